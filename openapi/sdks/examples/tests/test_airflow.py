"""The Airflow DAG, run from end to end by Airflow itself."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow")

from conftest import EXAMPLES, gguf  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An Airflow with this one DAG and a database in SQLite."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    shutil.copy(EXAMPLES / "airflow_dag.py", home / "dags")
    airflow(home, "db", "migrate")
    return home


def airflow(home, *arguments):
    env = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [Path(sys.executable).parent / "airflow", *arguments]
    result = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=240)
    return result


def test_it_is_parsed(home):
    listed = airflow(home, "dags", "list-import-errors", "--output", "json")
    assert "airflow_dag" not in listed.stdout, listed.stdout
    airflow(home, "dags", "reserialize")
    tasks = airflow(home, "tasks", "list", "modelpress_compress").stdout.split()
    assert {"bring", "submit", "finished", "download"} <= set(tasks), tasks


def test_it_runs(home, settings, folder, tmp_path):
    conf = {"model": str(folder), "recipe": "Q8_0", "out": str(tmp_path / "out")}
    run = airflow(home, "dags", "test", "modelpress_compress", "--conf", json.dumps(conf))
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    gguf(tmp_path / "out")


def test_it_fails_with_the_reason(home, settings, folder, tmp_path):
    conf = {"model": str(folder), "recipe": "Q9_9", "out": str(tmp_path / "out")}
    run = airflow(home, "dags", "test", "modelpress_compress", "--conf", json.dumps(conf))
    assert "Q9_9" in run.stdout + run.stderr and not (tmp_path / "out").exists()
