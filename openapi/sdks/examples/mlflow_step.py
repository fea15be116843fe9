#!/usr/bin/env python3
"""A step of an MLflow pipeline: compresses a model and registers what comes out as a version.

    mlflow_step.py MODEL_DIR --recipe Q4_K_M --name smol [--max-kl 0.05]

The run has the recipe and ids as parameters, sizes and losses as metrics, files and report as artifacts. A model that
loses more than `--max-kl` fails its job and is not registered. Servers are found by MLFLOW_TRACKING_URI, MODELPRESS_URL
and MODELPRESS_API_KEY.
"""
import argparse
import tempfile
from pathlib import Path

import mlflow
from modelpress import Client, JobFailed


def metrics_of(report):
    """Figures of a report under names that MLflow takes."""
    figures = {
        "source_bytes": report.source_bytes,
        "bytes": report.bytes,
        "compression_ratio": report.compression_ratio,
        "bits_per_weight": report.bits_per_weight,
        "seconds": report.seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
    }
    for measure in report.measures:
        figures[measure.metric] = measure.after
        figures[f"{measure.metric}_upper"] = measure.interval[1]
        if measure.before is not None:
            figures[f"{measure.metric}_before"] = measure.before
    return figures


def register(name, run_id, report):
    """A version of the registered model `name`, made of the run's files."""
    registry = mlflow.MlflowClient()
    if not registry.search_registered_models(f"name = '{name}'"):
        registry.create_registered_model(name)
    tags = {"modelpress.job": report.job, "modelpress.bits_per_weight": f"{report.bits_per_weight:.4f}"}
    return registry.create_model_version(name, mlflow.get_artifact_uri("model"), run_id, tags=tags)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="a folder, a file, a model's id or hf://org/name")
    p.add_argument("--recipe", default="Q4_K_M")
    p.add_argument("--name", required=True, help="of the registered model")
    p.add_argument("--max-kl", type=float, help="most divergence from the original, in nats")
    p.add_argument("--sequences", type=int, default=40, help="of the evaluation")
    a = p.parse_args()

    gates = None if a.max_kl is None else {"max_kl": a.max_kl}
    evaluation = {"num_samples": a.sequences, "max_seq_length": 512}
    with Client() as client, mlflow.start_run(run_name=f"{a.name} {a.recipe}") as run, tempfile.TemporaryDirectory() as out:
        mlflow.log_params({"recipe": a.recipe, "source": a.model})
        try:
            result = client.compress(a.model, a.recipe, out=out, evaluation=evaluation, gates=gates)
        except JobFailed as error:
            mlflow.set_tag("modelpress.job", error.job.id)
            if error.code == "quality_gate":
                mlflow.log_metrics(metrics_of(client.jobs.report(error.job.id)))
            raise
        mlflow.log_params({"modelpress.job": result.job.id, "modelpress.model": result.job.model})
        mlflow.log_metrics(metrics_of(result.report))
        for artifact in result.artifacts:
            mlflow.log_artifacts(str(Path(out, artifact.format)), f"model/{artifact.format}")
        for report in ("report.html", "report.json"):
            mlflow.log_artifact(str(Path(out, report)))
        version = register(a.name, run.info.run_id, result.report)
        print(f"{version.name} version {version.version}: {result.report}")


if __name__ == "__main__":
    main()
