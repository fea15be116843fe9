"""The MLflow step, with a registry of its own in SQLite."""
from __future__ import annotations

import subprocess
import sys

import mlflow
import pytest
from conftest import EXAMPLES, gguf


@pytest.fixture
def registry(settings, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    client.create_experiment("compress", artifact_location=(tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "compress")
    return client


def step(folder, *arguments):
    command = [sys.executable, EXAMPLES / "mlflow_step.py", folder, "--name", "tiny", "--sequences", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_version_is_registered(registry, folder, tmp_path):
    for recipe, number in (("Q8_0", "1"), ("Q4_K_M", "2")):
        result = step(folder, "--recipe", recipe)
        assert result.returncode == 0, result.stderr
        version = registry.get_model_version("tiny", number)
        run = registry.get_run(version.run_id)
        assert run.info.status == "FINISHED" and run.data.params["recipe"] == recipe
        assert run.data.metrics["kl"] <= run.data.metrics["kl_upper"]
        assert version.tags["modelpress.job"] == run.data.params["modelpress.job"]
        fetched = mlflow.artifacts.download_artifacts(version.source, dst_path=str(tmp_path / number))
        file = gguf(fetched)
        assert run.data.metrics["bytes"] >= file.stat().st_size > run.data.metrics["bytes"] / 2
        names = {entry.path for entry in registry.list_artifacts(version.run_id)}
        assert names == {"model", "report.html", "report.json"}


def test_what_loses_too_much_is_not_registered(registry, folder):
    result = step(folder, "--recipe", "Q2_K", "--max-kl", "1e-9")
    assert result.returncode != 0 and "quality_gate" in result.stderr
    assert not registry.search_registered_models()
    (run,) = registry.search_runs([registry.get_experiment_by_name("compress").experiment_id])
    assert run.info.status == "FAILED" and run.data.metrics["kl"] > 1e-9
