"""The generated code: current, complete, and following the document where it changes."""
from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

from modelpress import _generated, _sync
from modelpress._generated.operations import Operations

HERE = Path(__file__).resolve().parents[1]
OPENAPI = HERE.parents[1] / "openapi.json"


def check(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "generate.py", "--check"], cwd=folder, capture_output=True, text=True)


def test_it_is_current() -> None:
    result = check(HERE)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_operation_is_there() -> None:
    import re

    for path in json.loads(OPENAPI.read_text())["paths"].values():
        for operation in path.values():
            name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation["operationId"]).lower()
            assert hasattr(Operations, name), name


def test_drift_is_noticed(tmp_path: Path) -> None:
    """A copy: clean, then with a new field, an edited file and a file too many."""
    copy = tmp_path / "openapi" / "sdks" / "python"
    shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    document = tmp_path / "openapi" / "openapi.json"
    shutil.copy(OPENAPI, document)
    assert check(copy).returncode == 0
    api = json.loads(OPENAPI.read_text())
    api["components"]["schemas"]["JobOut"]["properties"]["carbon"] = {"type": "number", "description": "Grams."}
    document.write_text(json.dumps(api))
    assert "models.py" in check(copy).stdout
    shutil.copy(OPENAPI, document)
    package = copy / "src" / "modelpress"
    with (package / "_sync" / "jobs.py").open("a") as f:
        f.write("# by hand\n")
    assert check(copy).stdout.split() == ["differs:", "src/modelpress/_sync/jobs.py"]
    (package / "_generated" / "old.py").write_text("")
    assert "old.py" in check(copy).stdout
    subprocess.run([sys.executable, "generate.py"], cwd=copy, check=True, capture_output=True)
    assert check(copy).returncode == 0 and not (package / "_generated" / "old.py").exists()


def test_nothing_async_is_left_in_the_sync_twin() -> None:
    for folder in (Path(_sync.__path__[0]), Path(_generated.__path__[0])):
        for path in folder.glob("*.py"):
            if path.name == "async_operations.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)), path
