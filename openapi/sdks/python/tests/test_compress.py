"""The one call, what comes out of it, and how it fails."""
from __future__ import annotations

import hashlib
import json
import pickle
import signal
import threading
from pathlib import Path

import pytest
import tiny
from service import Server
from tiny import SMALL

from modelpress import Client, InvalidRequest, JobFailed, Model, RecipeRefused, Report, UploadInvalid, WaitTimeout


def test_one_call_from_a_folder_to_files(client: Client, folder: Path, tmp_path: Path) -> None:
    seen = []
    out = tmp_path / "small"
    result = client.compress(folder, recipe="Q4_K_M", out=out, evaluation=SMALL, progress=seen.append)

    assert result.job.status == "succeeded"
    assert out / "gguf" / "model-Q4_K_M.gguf" in result.files
    (artifact,) = result.artifacts
    for file in artifact.files:
        written = (out / "gguf" / file.name).read_bytes()
        assert f"sha256:{hashlib.sha256(written).hexdigest()}" == file.digest
    assert (out / "gguf" / "model-Q4_K_M.gguf").read_bytes()[:4] == b"GGUF"
    assert json.loads((out / "report.json").read_text())["formats"][0]["bytes"] == result.report.bytes
    assert (out / "report.html").read_text().startswith("<!")
    assert 4 < result.report.bits_per_weight < 6 and result.report.compression_ratio > 5
    kl = result.report.measure("kl")
    assert kl and kl.interval[0] <= kl.after <= kl.interval[1]
    labels = {update.label.split()[0] for update in seen}
    assert labels == {"upload", "job", "download"}
    assert all(0 <= update.done <= update.total for update in seen)


def test_several_formats_a_budget_and_data_of_ones_own(client: Client, model: Model, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog " * 200)
    result = client.compress(
        model,
        recipe="Q4_0",
        calibration={"dataset": text, **SMALL},
        evaluation={"dataset": "builtin", **SMALL},
        budget={"target_bits_per_weight": 5},
    )
    assert result.report.bits_per_weight <= 5
    assert result.report.allocation and result.report.allocation["held"]
    assert result.report["recipe"]["calibration"]["dataset"].startswith("ds_")

    formats = ["compressed-tensors", "gptq"]
    recipe = {"preset": "W4A16", "options": {"scale_dtype": "F16"}}
    both = client.compress(model.id, recipe, formats=formats, out=tmp_path / "both")
    assert sorted(artifact.format for artifact in both.artifacts) == formats
    assert {path.name for path in (tmp_path / "both").iterdir()} >= {"compressed-tensors", "gptq", "report.html"}


def test_a_refused_recipe_says_where_and_why(client: Client, model: Model) -> None:
    with pytest.raises(RecipeRefused) as refused:
        client.compress(model, {"preset": "W4A16", "options": {"group_size": 48}})
    error = refused.value
    assert error.status == 422 and error.code == "recipe_refused" and error.request_id
    assert error.errors[0].pointer == "/recipe/options/group_size"
    shown = str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errors) == (RecipeRefused, shown, error.errors)
    assert "/recipe/options/group_size: group_size 48 does not divide" in shown and error.request_id in shown

    with pytest.raises(InvalidRequest):
        client.plan(model, "Q9_9")
    with pytest.raises(ValueError, match="the recipe has budget already"):
        client.compress(model, {"preset": "Q4_0", "budget": {"max_kl": 1}}, budget={"max_kl": 1})
    with pytest.raises(UploadInvalid, match="no file or folder"):
        client.compress(model, "W4A16_GPTQ", calibration="nowhere.txt")
    with pytest.raises(InvalidRequest, match="/model: no model has the id"):
        client.compress("mdl_0193d0a67c1e7bd08d532f5a9f1d1c11", "Q4_0")


def test_a_missed_gate_raises_and_has_its_report(client: Client, model: Model) -> None:
    with pytest.raises(JobFailed, match=r"failed: .*\[quality_gate\]") as failed:
        client.compress(model, "Q2_K", evaluation=SMALL, gates={"max_kl": 1e-9})
    assert failed.value.code == "quality_gate"
    assert pickle.loads(pickle.dumps(failed.value)).job == failed.value.job
    assert client.jobs.report(failed.value.job.id).measure("kl")


def test_waiting_ends_but_the_job_goes_on(model: Model, tmp_path: Path) -> None:
    """No workers: a job that never begins."""
    idle = Server(tmp_path, "--workers", "0")
    try:
        with Client(idle.url, cache_dir=tmp_path / "cache") as client:
            there = client.models.upload(tiny.write(tmp_path / "tiny"))
            with pytest.raises(WaitTimeout):
                client.compress(there, "Q8_0", timeout=0.5)
            job = next(iter(client.jobs.list(status="queued")))
            assert client.jobs.cancel(job.id).status == "cancelled"
            with pytest.raises(JobFailed, match="was cancelled"):
                client.jobs.wait(job.id)
            assert client.jobs.wait(job.id, check=False).status == "cancelled"
            interrupted(client, there)
    finally:
        idle.stop()


def interrupted(client: Client, model: Model) -> None:
    """Ctrl-C while a job runs: by the signal, as a terminal sends it."""
    for cancel, expected in ((False, "queued"), (True, "cancelled")):
        main = threading.main_thread().ident
        threading.Timer(1.0, signal.pthread_kill, [main, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            client.compress(model, "Q8_0", cancel_on_interrupt=cancel)
        assert next(iter(client.jobs.list())).status == expected


def test_the_readme_of_a_result_in_a_notebook(client: Client, model: Model) -> None:
    report = client.compress(model, "Q8_0").report
    shown = report._repr_html_()
    assert "<svg" in shown and "model.embed_tokens.weight: Q8_0, 8 bits" in shown
    table = report.to_pandas()
    assert len(table) == 21 and table["kind"].isin(["Q8_0", "F32"]).all()
    assert report.html().lstrip().startswith("<!")
    assert "8.5" in repr(report)

    hostile = {**report.raw, "recipe": {"preset": "<script>"}, "warnings": ["<img src=x>"]}
    hostile["tensors"] = [{**t, "name": '"><script>', "kind": "Q4<b>"} for t in report.tensors]
    shown = Report(hostile, report.job, client.operations)._repr_html_()
    assert "<script" not in shown and "<img" not in shown and "<b>Q4" not in shown and "Q4<b>" not in shown
