"""Checks config/kubernetes: every object against Kubernetes' own schemas, and that the objects fit each other and the server.

    check.py [PATH_TO_MODELPRESS]     with a binary, the settings of the pods are read by it too
"""

import os
import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

FOLDER = pathlib.Path(__file__).parents[2] / "config" / "kubernetes"
VERSION = "1.31"
# Applied by hand, once.
BY_HAND = ["secret.example.yaml", "first-key.yaml"]

faults = []


def fault(where, text):
    faults.append(f"{where}: {text}")


def load(name):
    with open(FOLDER / name) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def render():
    """What kubectl -k makes of the files, as far as ours goes: resources, namespace, images."""
    (kustomization,) = load("kustomization.yaml")
    known = {"apiVersion", "kind", "namespace", "resources", "images"}
    for key in kustomization.keys() - known:
        fault("kustomization.yaml", f"{key} is not understood by this check")
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    files = kustomization["resources"] + BY_HAND
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    for name in there ^ set(files):
        fault(name, "is in the folder or in the list, but not in both")
    objects = []
    for name in files:
        for made in load(name):
            if made["kind"] != "Namespace":
                made["metadata"].setdefault("namespace", kustomization["namespace"])
            for container in containers(made):
                container["image"] = images.get(container["image"], container["image"])
            objects.append((f"{name} {made['kind']} {made['metadata']['name']}", made))
    return objects, set(images.values())


def pod(made):
    return made["spec"]["template"]["spec"] if made["kind"] in ("Deployment", "Job") else None


def containers(made):
    return pod(made)["containers"] if pod(made) else []


def settings(container, configs):
    """The variables of a container, as it sees them."""
    variables = {}
    for source in container.get("envFrom", []):
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if key in source:
                variables.update(configs.get((kind, source[key]["name"]), {}))
    variables.update({entry["name"]: entry["value"] for entry in container.get("env", [])})
    return variables


def check_pod(where, made, images, configs, binary):
    spec = pod(made)
    context = spec.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        fault(where, "the pod must not run as root, and with the runtime's seccomp profile")
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        if container["image"] not in images:
            fault(where, f"image {container['image']} is not the one of kustomization.yaml")
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
            fault(where, "the container keeps privileges")
        if not own.get("readOnlyRootFilesystem"):
            fault(where, "the container may write to its image")
        if "memory" not in container["resources"].get("limits", {}):
            fault(where, "no memory limit")
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                fault(where, f"no volume {mount['name']}")
        for source in container["envFrom"]:
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source and (kind, source[key]["name"]) not in configs:
                    fault(where, f"no {kind} {source[key]['name']}")
        variables = settings(container, configs)
        if binary:
            read = subprocess.run(
                [binary, "check-config"],
                env={"PATH": os.environ["PATH"], **variables},
                capture_output=True,
                text=True,
            )
            if read.returncode != 0:
                fault(where, read.stderr.strip())
            for name, value in variables.items():
                setting = name.removeprefix("MODELPRESS_").lower()
                if name.startswith("MODELPRESS_") and f"{setting} = " not in read.stdout:
                    fault(where, f"{name} is no setting")
                if setting.endswith(("secret", "url")) and "password" in read.stdout:
                    fault(where, f"{name} is shown with its secret")
        if made["kind"] == "Deployment":
            check_server(where, spec, container, variables)


def check_server(where, spec, container, variables):
    ports = {port["name"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        asked = container[probe]["httpGet"]
        if asked["port"] not in ports:
            fault(where, f"{probe}: no port {asked['port']}")
        if asked["path"] != ("/readyz" if probe == "readinessProbe" else "/livez"):
            fault(where, f"{probe} asks {asked['path']}")
    drain = int(variables["MODELPRESS_DRAIN_SECONDS"])
    before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1]
    if spec["terminationGracePeriodSeconds"] < drain + int(before) + 5:
        fault(where, f"is killed before it has drained for {drain} seconds")


def check_selectors(objects):
    labels = [made["spec"]["template"]["metadata"]["labels"] for _, made in objects if made["kind"] == "Deployment"]
    names = {made["metadata"]["name"]: made for _, made in objects if made["kind"] == "Deployment"}
    for where, made in objects:
        selector = made.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            chosen = [have for have in labels if wanted.items() <= have.items()]
            if len(chosen) != 1:
                fault(where, f"selects the pods of {len(chosen)} deployments")
        if made["kind"] == "HorizontalPodAutoscaler" and made["spec"]["scaleTargetRef"]["name"] not in names:
            fault(where, "scales what is not there")


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else None
    objects, images = render()
    for where, made in objects:
        try:
            kubernetes_validate.validate(made, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            fault(where, f"{'.'.join(map(str, error.path))}: {error.message}")
    configs = {
        (made["kind"], made["metadata"]["name"]): made.get("data", made.get("stringData"))
        for _, made in objects
        if made["kind"] in ("ConfigMap", "Secret")
    }
    for where, made in objects:
        if pod(made):
            check_pod(where, made, images, configs, binary)
    check_selectors(objects)
    for text in faults:
        print(text)
    print(f"{len(objects)} objects, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
