"""An Airflow DAG: a job is submitted, polled without holding a worker's slot, and downloaded.

Params: `model` (a folder, a model's id or hf://org/name), `recipe`, `out`. MODELPRESS_URL and MODELPRESS_API_KEY are
variables of the workers. For Airflow 2.9 and newer, and 3.
"""
from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk import PokeReturnValue, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.sensors.base import PokeReturnValue


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    params={"model": "hf://HuggingFaceTB/SmolLM2-135M@main", "recipe": "Q4_K_M", "out": "/tmp/small"},
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    doc_md=__doc__,
)
def modelpress_compress():
    @task
    def bring(params: dict | None = None) -> str:
        from modelpress import Client

        with Client() as client:
            model = params["model"]
            if model.startswith("mdl_"):
                return model
            there = client.models.pull if "://" in model else client.models.upload
            return there(model, progress=False).id

    @task
    def submit(model: str, params: dict | None = None, run_id: str | None = None) -> str:
        from airflow.exceptions import AirflowFailException
        from modelpress import Client, InvalidRequest

        with Client() as client:
            # A task that is tried again after its answer was lost finds the job that it made; a new run makes a new one.
            try:
                return client.jobs.create(model, params["recipe"], idempotency_key=f"airflow:{run_id}").id
            except InvalidRequest as error:
                raise AirflowFailException(str(error)) from error  # it would be refused again

    @task.sensor(poke_interval=30, timeout=6 * 3600, mode="reschedule")
    def finished(job: str) -> PokeReturnValue:
        from airflow.exceptions import AirflowFailException
        from modelpress import Client, JobFailed

        with Client() as client:
            now = client.jobs.get(job)
            if now.status in ("failed", "cancelled"):
                raise AirflowFailException(str(JobFailed(now)))  # trying again would find the same job
            return PokeReturnValue(is_done=now.status == "succeeded", xcom_value=now.artifacts)

    @task
    def download(artifacts: list[str], params: dict | None = None) -> list[str]:
        from modelpress import Client

        with Client() as client:
            made = [client.artifacts.download(id, params["out"], progress=False) for id in artifacts]
            return [str(path) for paths in made for path in paths]

    download(finished(submit(bring())))


modelpress_compress()
