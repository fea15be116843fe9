"""Every block of the README runs, in order, as somebody would run it."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import packing
import pytest
from service import Server
from tiny import SMALL

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text("utf-8"), re.S | re.M)


def test_every_block_runs(server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    languages = [language for language, _ in BLOCKS]
    assert languages.count("python") >= 6 and set(languages) <= {"python", "sh"}, languages
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "tickets.jsonl").write_text('{"text": "a b c d e f g h"}\n' * 64)
    (tmp_path / "model.packed").write_bytes(packing.packed_file([packing.plain("steps", "I64", (), bytes(8))]))
    env = {**os.environ, "MODELPRESS_URL": server.url, "MODELPRESS_CACHE": str(tmp_path / "cache")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, (Path(p) for p in sys.path if p)))
    # Evaluations of the README are of the usual length; a tiny model does not make them instructive, only slow.
    shorter = {"evaluation=True": f"evaluation={SMALL!r}"}
    for language, text in BLOCKS:
        for long, short in shorter.items():
            text = text.replace(long, short)
        if language == "sh":
            assert "pip install" in text, "only check.sh installs packages"
            continue
        command = [sys.executable, "-c", text]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
    assert (tmp_path / "small" / "gguf" / "model-Q4_K_M.gguf").is_file()
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "small" / "report.json").read_text())["formats"]
