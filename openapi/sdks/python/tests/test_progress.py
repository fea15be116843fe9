"""Progress: bars where somebody looks, lines where asked for, silence otherwise."""
from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from modelpress._progress import task


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, progress: object) -> str:
    monkeypatch.setattr(sys, "stderr", stderr)
    with task(progress, "upload model", 100) as it:  # type: ignore[arg-type]
        it.advance(50)
        it.advance(-10)
        it.at(100, "done")
    return stderr.getvalue()


def test_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), None) == "", "nobody looks at a log"
    assert shown(monkeypatch, Terminal(), False) == ""
    assert "upload model: 100%" in shown(monkeypatch, Terminal(), None), "tqdm's bar"
    assert shown(monkeypatch, io.StringIO(), True).splitlines()[-1] == "upload model: 100 % done"


def test_without_tqdm_lines_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert shown(monkeypatch, Terminal(), None) == ""
    assert "upload model: 100 % done" in shown(monkeypatch, Terminal(), True)


def test_a_notebook_counts_as_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class IPython:
        @staticmethod
        def get_ipython() -> object:
            return type("Shell", (), {"kernel": object()})()

    monkeypatch.setitem(sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    from modelpress._progress import _is_watched

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert _is_watched()
