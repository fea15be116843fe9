"""The steps of GitHub Actions and Argo: their files against schemas, their scripts against a real server."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import EXAMPLES, gguf
from hera.workflows.models import Workflow
from modelpress import Client

SDK = EXAMPLES.parent / "python"
GITHUB = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
ARGO = yaml.safe_load((EXAMPLES / "argo-workflow.yaml").read_text())
STEPS = {step["name"]: step for step in GITHUB["jobs"]["compress"]["steps"] if "run" in step}


def test_the_workflow_is_one_by_githubs_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    result = subprocess.run([*command, str(EXAMPLES / "github-actions.yml")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_workflow_is_one_by_argos_models():
    """What the models do not know they drop, so that what was misspelled is missing."""
    read = Workflow.model_validate(ARGO).model_dump(by_alias=True, exclude_none=True, mode="json")
    assert read == ARGO


def resolved(variables, values):
    """Variables of a step, their expressions filled in."""
    return {k: re.sub(r"\$\{\{ (.+?) \}\}", lambda m: values[m.group(1)], v) for k, v in variables.items()}


def run_github(name, server, folder, where, recipe="Q8_0", **more):
    values = {
        "vars.MODELPRESS_URL": server.url, "secrets.MODELPRESS_API_KEY": server.token, "inputs.model": str(folder),
        "inputs.recipe": recipe, "github.run_id": where.name, "github.run_attempt": "1",
    }  # fmt: skip
    step = STEPS[name]
    assert "${{" not in step["run"], "what users type must not become a part of the script"
    env = resolved({**GITHUB["jobs"]["compress"]["env"], **step.get("env", {})}, values)
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(where / "summary"), "MODELPRESS_CACHE": str(where / "cache"), **env, **more}
    # As runners do: https://docs.github.com, `shell` of a step.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=120)


def test_the_step_with_curl(guarded, folder, tmp_path):
    result = run_github("Compress with curl", guarded, folder, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    gguf(tmp_path / "small")
    assert (tmp_path / "small" / "report.html").read_text().lstrip().startswith("<!")
    assert guarded.token not in result.stdout + result.stderr


def test_the_step_with_curl_fails_where_it_should(guarded, folder, tmp_path):
    refused = run_github("Compress with curl", guarded, folder, tmp_path, recipe="Q9_9")
    assert refused.returncode != 0 and "Q9_9" in refused.stdout + refused.stderr
    assert not (tmp_path / "small").exists()
    stranger = run_github("Compress with curl", guarded, folder, tmp_path, MODELPRESS_API_KEY="mp_no")
    assert stranger.returncode != 0 and "unauthenticated" in stranger.stdout


def test_the_step_with_python(guarded, folder, tmp_path):
    """pip installs the package from its folder into an environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    path = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    result = run_github("Compress with Python", guarded, folder, tmp_path, PATH=path, MODELPRESS_SDK=str(SDK))
    assert result.returncode == 0, result.stdout + result.stderr
    gguf(tmp_path / "small")
    assert "bits a weight" in (tmp_path / "summary").read_text()


def run_argo(name, server, where, parameters):
    """A template's script, as Argo runs it: parameters filled in, the secret as a variable."""
    (template,) = [t for t in ARGO["spec"]["templates"] if t["name"] == name]
    script = template["script"]
    assert "{{" not in script["source"], "parameters reach the script as variables only"
    env = {}
    for variable in script["env"]:
        if "value" in variable:
            env[variable["name"]] = re.sub(r"\{\{(.+?)\}\}", lambda m: parameters[m.group(1)], variable["value"])
    env.update(API_KEY=server.token, OUT=str(where / "out"), PATH=os.environ["PATH"])
    shell = script["command"]
    (where / "script").write_text(script["source"])
    return subprocess.run([*shell, str(where / "script")], cwd=where, env=env, capture_output=True, text=True, timeout=120)


def test_argos_steps(guarded, folder, tmp_path):
    with Client(guarded.url, guarded.token, cache_dir=tmp_path) as client:
        model = client.models.upload(folder).id
    parameters = {
        "workflow.parameters.server": guarded.url, "workflow.parameters.model": model,
        "workflow.parameters.recipe": "Q8_0", "workflow.uid": tmp_path.name,
    }  # fmt: skip
    brought = run_argo("bring", guarded, tmp_path, parameters)
    assert brought.returncode == 0 and brought.stdout.strip() == model, brought.stderr
    parameters["inputs.parameters.model"] = brought.stdout.strip()
    jobs = []
    for _ in range(2):  # a pod that is lost comes again
        result = run_argo("compress", guarded, tmp_path, parameters)
        assert result.returncode == 0, result.stdout + result.stderr
        jobs.append(re.search(r"job_\w+", result.stdout).group())
    assert jobs[0] == jobs[1]
    gguf(tmp_path / "out")

    refused = run_argo("bring", guarded, tmp_path, {**parameters, "workflow.parameters.model": "ftp://nowhere"})
    assert refused.returncode != 0 and "mdl_" not in refused.stdout and "/source" in refused.stderr


@pytest.mark.parametrize("name", ["bring", "compress"])
def test_argos_scripts_need_no_bash(name):
    (template,) = [t for t in ARGO["spec"]["templates"] if t["name"] == name]
    checked = subprocess.run(["sh", "-n"], input=template["script"]["source"], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
