"""The Prefect flow, on a server of Prefect's that lives as long as the test."""
from __future__ import annotations

import pytest

prefect = pytest.importorskip("prefect")

import prefect_flow  # noqa: E402
from conftest import gguf  # noqa: E402
from modelpress import Client, JobFailed, RecipeRefused  # noqa: E402
from modelpress._sync.jobs import Jobs  # noqa: E402
from prefect.testing.utilities import prefect_test_harness  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def ephemeral():
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_the_flow(settings, folder, tmp_path):
    made = prefect_flow.compress(str(folder), "Q8_0", str(tmp_path / "out"))
    assert [str(gguf(tmp_path / "out"))] == [path for path in made if path.endswith(".gguf")]


def test_a_task_that_lost_its_answer_finds_its_job(settings, folder, tmp_path, monkeypatch):
    """The first submit dies after the server has made the job."""
    made = []
    create = Jobs.create

    def lost_once(self, *arguments, **options):
        made.append(create(self, *arguments, **options).id)
        if len(made) == 1:
            raise ConnectionError("the answer was lost")
        return self.get(made[-1])

    monkeypatch.setattr(Jobs, "create", lost_once)
    monkeypatch.setattr(prefect_flow, "submit", prefect_flow.submit.with_options(retry_delay_seconds=0))
    prefect_flow.compress(str(folder), "Q8_0", str(tmp_path / "out"))
    assert len(made) == 2 and made[0] == made[1]


def test_a_job_that_failed_is_not_waited_for_again(settings, folder, tmp_path, monkeypatch):
    with Client() as client:
        model = client.models.upload(folder)
        gated = {"preset": "Q2_K", "evaluation": {"num_samples": 2, "max_seq_length": 32}, "gates": {"max_kl": 1e-9}}
        job = client.jobs.create(model.id, gated)

    @prefect.flow
    def wait():
        return prefect_flow.finished(job.id)

    with pytest.raises(JobFailed, match="quality_gate"):
        wait()
    with pytest.raises(RecipeRefused, match="/recipe"):
        prefect_flow.compress(model.id, {"preset": "W4A16", "options": {"group_size": 48}}, "out")
