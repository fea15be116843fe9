#!/usr/bin/env python3
"""A Prefect flow: a job is submitted, waited for and downloaded, each a task that may be tried again.

    prefect_flow.py MODEL RECIPE OUT

The id of the flow run goes along as Idempotency-Key: a task that is tried again after its answer was lost finds the job
that it made. The job belongs to the server: a flow that is started again or moved goes on waiting.
"""
import sys

from modelpress import Client, InvalidRequest, JobFailed, Recipe
from prefect import flow, runtime, task


def may_pass(task, run, state) -> bool:
    """What was refused or failed stays so; a server that is away comes back."""
    return not isinstance(state.result(raise_on_failure=False), (InvalidRequest, JobFailed))


@task(retries=3, retry_delay_seconds=[2, 10, 60], retry_condition_fn=may_pass)
def bring(model: str) -> str:
    """A model's id, of a folder here or an address that the server brings it from; uploads go on where they broke."""
    with Client() as client:
        if model.startswith("mdl_"):
            return model
        there = client.models.pull(model, progress=False) if "://" in model else client.models.upload(model, progress=False)
        return there.id


@task(retries=3, retry_delay_seconds=[2, 10, 60], retry_condition_fn=may_pass)
def submit(model: str, recipe: Recipe) -> str:
    with Client() as client:
        return client.jobs.create(model, recipe, idempotency_key=f"{runtime.flow_run.id}:{model}").id


@task(retries=10, retry_delay_seconds=30, retry_condition_fn=may_pass)
def finished(job: str) -> dict:
    """Waits by events, which costs the server next to nothing; then the sizes."""
    with Client() as client:
        client.jobs.wait(job, timeout=6 * 3600, progress=False)
        return dict(client.jobs.report(job).raw["formats"][0])


@task(retries=3, retry_delay_seconds=10)
def download(job: str, out: str) -> list[str]:
    """Goes on with what is there already."""
    with Client() as client:
        artifacts = client.jobs.get(job).artifacts
        return [str(path) for id in artifacts for path in client.artifacts.download(id, out, progress=False)]


@flow(log_prints=True)
def compress(model: str, recipe: Recipe, out: str) -> list[str]:
    job = submit(bring(model), recipe)
    sizes = finished(job)
    print(f"{job}: {sizes['bytes']:,} bytes, {sizes['bits_per_weight']:.3f} bits a weight")
    return download(job, out)


if __name__ == "__main__":
    compress(*sys.argv[1:])
