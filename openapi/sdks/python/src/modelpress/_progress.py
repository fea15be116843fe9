"""Showing how far things are.

Owns: bars by tqdm, lines on stderr, calls of the caller's own function, and which of them it is.
Must not know: what is going on.
Invariant: progress never breaks what it shows: it may be moved from any thread, and is closed with its block.
"""
from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Optional, Type, Union

_LINE_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class ProgressUpdate:
    """How far something is."""

    label: str
    """What: `upload model`, `job job_…`, `download`."""
    done: float
    total: float
    unit: str
    """`B` for bytes, `%` for jobs."""
    note: str
    """What is at work."""


Progress = Union[bool, None, Callable[[ProgressUpdate], None]]
"""How to show progress: a function of yours, `True`, `False`, or `None`: bars where somebody may look at them.

`True` is bars of tqdm on a terminal or in a notebook, if tqdm is installed, and lines on stderr otherwise.
"""


class Task:
    """One thing that gets done; shows nothing."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        self._state = ProgressUpdate(label, 0, total, unit, "")
        self._lock = threading.Lock()

    def advance(self, by: float) -> None:
        with self._lock:
            self._move(self._state.done + by, self._state.note)

    def at(self, done: float, note: str = "") -> None:
        with self._lock:
            self._move(done, note)

    def _move(self, done: float, note: str) -> None:
        before, self._state = self._state, ProgressUpdate(
            self._state.label, min(done, self._state.total), self._state.total, self._state.unit, note
        )
        if before != self._state:
            self.show(self._state)

    def show(self, state: ProgressUpdate) -> None:
        """Shows it."""

    def close(self) -> None:
        """Ends the showing."""

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class _Called(Task):
    def __init__(self, label: str, total: float, unit: str, call: Callable[[ProgressUpdate], None]) -> None:
        super().__init__(label, total, unit)
        self._call = call

    def show(self, state: ProgressUpdate) -> None:
        self._call(state)


class _Lines(Task):
    def __init__(self, label: str, total: float, unit: str) -> None:
        super().__init__(label, total, unit)
        self._last, self._shown = 0.0, ""

    def show(self, state: ProgressUpdate) -> None:
        now = time.monotonic()
        if state.done >= state.total or now - self._last >= _LINE_EVERY_SECONDS:
            self._last = now
            self._print(state)

    def _print(self, state: ProgressUpdate) -> None:
        share = 100 * state.done / state.total if state.total else 100
        line = f"{state.label}: {share:.0f} %{' ' + state.note if state.note else ''}"
        if line != self._shown:
            self._shown = line
            print(line, file=sys.stderr, flush=True)


class _Bar(Task):
    def __init__(self, label: str, total: float, unit: str, tqdm: Any) -> None:
        super().__init__(label, total, unit)
        scaled = unit == "B"
        self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=scaled, unit_divisor=1024, leave=True)

    def show(self, state: ProgressUpdate) -> None:
        if state.note:
            self._bar.set_postfix_str(state.note, refresh=False)
        self._bar.update(state.done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def task(progress: Progress, label: str, total: float, unit: str = "B") -> Task:
    """Something that is about to begin."""
    if callable(progress):
        return _Called(label, total, unit, progress)
    if progress is False:
        return Task(label, total, unit)
    tqdm = _tqdm() if _is_watched() else None
    if tqdm is not None:
        return _Bar(label, total, unit, tqdm)
    return _Lines(label, total, unit) if progress else Task(label, total, unit)


def _is_watched() -> bool:
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    # Asked for only where IPython runs already; importing it here would be slow.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    return shell is not None and hasattr(shell, "kernel")


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
