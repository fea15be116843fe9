"""A running `modelpress serve` and a client of its HTTP API, standard library only."""
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote


class ServiceError(Exception):
    """An answer that is not a success, or a job that did not succeed."""


class Service:
    """Starts the server on a free port with its own data folder; ends it on leaving the `with` block."""

    def __init__(self, binary, data_dir, threads=2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{s.getsockname()[1]}"
        self.base = f"http://{self.address}"
        self.log = Path(data_dir) / "server.log"
        Path(data_dir).mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "MODELPRESS_DATA_DIR": str(Path(data_dir) / "data"), "MODELPRESS_LISTEN": self.address}
        self.process = subprocess.Popen([binary, "serve"], env=env, stdout=open(self.log, "w"), stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(300):
            if self.process.poll() is not None:
                raise ServiceError(f"the server ended at start, code {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
            try:
                urllib.request.urlopen(self.base + "/readyz", timeout=2).read()
                return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise ServiceError("the server is not ready after 30 s")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            raise ServiceError(f"{method} {path}: {e.code} {e.read().decode(errors='replace')[:1500]}") from None

    def put(self, path, file):
        """The file as a raw body, streamed."""
        connection = http.client.HTTPConnection(self.address, timeout=600)
        with open(file, "rb") as f:
            connection.request("PUT", path, f, {"Content-Length": str(Path(file).stat().st_size),
                                               "Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        if answer.status >= 300:
            raise ServiceError(f"PUT {path}: {answer.status} {text[:1500]}")

    def upload(self, folder):
        """A draft, one PUT a file, a commit; the model's id."""
        model = self.call("POST", "/v1/models", {"name": Path(folder).name})["id"]
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                self.put(f"/v1/models/{model}/files/{quote(str(file.relative_to(folder)))}", file)
        self.call("POST", f"/v1/models/{model}/commit")
        return model

    def compress(self, model, recipe, formats, out):
        """Runs a job and downloads its artifacts: {format: folder}, and the job."""
        job = self.call("POST", "/v1/jobs", {"model": model, "recipe": recipe, "formats": formats})
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.3)
            job = self.call("GET", f"/v1/jobs/{job['id']}")
        if job["status"] != "succeeded":
            raise ServiceError(f"job {job['id']} {job['status']}: {job.get('error')}")
        folders = {}
        for artifact in job["artifacts"]:
            a = self.call("GET", f"/v1/artifacts/{artifact}")
            folder = folders[a["format"]] = Path(out) / a["format"]
            for file in a["files"]:
                target = folder / file["name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                url = f"{self.base}/v1/artifacts/{artifact}/files/{quote(file['name'])}"
                with urllib.request.urlopen(url, timeout=600) as answer, open(target, "wb") as f:
                    shutil.copyfileobj(answer, f, 1 << 20)
        return folders, job


class CommandLine:
    """The same work by `modelpress compress`, one process a job, no server."""

    def __init__(self, binary):
        self.binary = binary

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def upload(self, folder):
        return str(folder)

    def compress(self, model, recipe, formats, out):
        text = recipe if isinstance(recipe, str) else json.dumps(recipe)
        command = [self.binary, "compress", model, "--recipe", text, "--out", str(out)]
        for f in formats:
            command += ["--format", f]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServiceError(f"{' '.join(command)}: code {done.returncode}\n{(done.stdout + done.stderr)[-1500:]}")
        return {f: Path(out) / f if (Path(out) / f).is_dir() else Path(out) for f in formats}, {}
