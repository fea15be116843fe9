"""Uploads that break off, and go on: after the connection, after the process, after the server."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from service import Server

from modelpress import (
    Client,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PullFailed,
    Retries,
    UploadInvalid,
)
from modelpress._files import Outgoing, model_files, safe_target


def test_a_folder_becomes_a_model(client: Client, folder: Path) -> None:
    (folder / "README.md").write_text("not part of it")
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache" / "model.safetensors").write_text("hidden")
    model = client.models.upload(folder, metadata={"from": "a test"})
    assert model.status == "ready" and model.name == folder.name and model.metadata == {"from": "a test"}
    assert {file.name for file in model.files} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert client.models.get(model.id) == model
    assert model.id in {entry.id for entry in client.models.list()}
    assert sum(1 for _ in client.models.tensors(model.id)) == model.tensor_count == 21
    client.models.delete(model.id)


class Breaking:
    """A way to the server that breaks after so many bytes, so many times; of requests, or of answers."""

    def __init__(self, server: Server, after: int, times: int, incoming: bool = False) -> None:
        host, port = server.address.split(":")
        self._to, self._after, self.left = (host, int(port)), after, times
        self._incoming = incoming
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, outgoing: bool) -> None:
        carried = 0
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                carried += len(data)
                if outgoing != self._incoming and carried > self._after and self.left > 0:
                    self.left -= 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def close(self) -> None:
        self._listener.close()


def large(path: Path, values: int = 2_000_000) -> Path:
    """A checkpoint of 8 MB that nothing but its own bytes makes."""
    path.mkdir()
    tensor = np.random.default_rng(1).standard_normal(values).astype("<f4").reshape(-1, 1000)
    tiny.save(path / "model.safetensors", {"layer.weight": tensor})
    return path


def test_a_connection_that_breaks_costs_only_what_was_in_flight(server: Server, tmp_path: Path) -> None:
    way = Breaking(server, after=3_000_000, times=2)
    seen: list[Any] = []
    sent = 0
    try:
        with Client(way.url, cache_dir=tmp_path / "cache", retries=Retries(first_pause=0.05)) as client:
            original = Outgoing.pieces

            def counted(self: Outgoing, offset: int, length: int) -> Any:
                nonlocal sent
                for piece in original(self, offset, length):
                    sent += len(piece)
                    yield piece

            Outgoing.pieces = counted  # type: ignore[method-assign]
            try:
                model = client.models.upload(large(tmp_path / "large"), progress=seen.append)
            finally:
                Outgoing.pieces = original  # type: ignore[method-assign]
    finally:
        way.close()
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert way.left == 0, "the connection broke twice"
    assert model.status == "ready" and model.bytes == size
    assert sent < 2.5 * size, "it went on, and did not begin again each time"
    assert seen[-1].done == seen[-1].total == size


def test_another_process_goes_on_where_the_first_one_ended(server: Server, tmp_path: Path) -> None:
    path, cache = large(tmp_path / "large"), tmp_path / "cache"
    (file,) = model_files(path)

    class Died(BaseException):
        pass

    def die(update: Any) -> None:
        if update.done > 3_000_000:
            raise Died

    with Client(server.url, cache_dir=cache) as first, pytest.raises(Died):
        first.models.upload(path, progress=die, piece_bytes=1_000_000)
    (state,) = (cache / "uploads").glob("*.json")
    upload = json.loads(state.read_text())["upload"]

    with Client(server.url, cache_dir=cache) as second:
        stood = second.operations.get_upload(upload).offset
        assert 2_000_000 < stood < file.bytes, "some of it is durable"
        seen: list[Any] = []
        sent = second.uploads.send([file], progress=seen.append)
        assert sent == [{"name": "model.safetensors", "upload": upload}], "the same upload"
        assert seen[0].done >= stood, "from where it stood"
        assert second.models.upload(path).status == "ready"
        assert not list((cache / "uploads").glob("*.json")), "nothing is left to go on with"


def test_a_server_that_dies_is_waited_for(tmp_path: Path) -> None:
    server = Server(tmp_path)
    once = threading.Event()

    def kill(update: Any) -> None:
        if update.done > 3_000_000 and not once.is_set():
            once.set()
            server.kill()
            threading.Timer(0.3, server.start).start()

    try:
        retries = Retries(attempts=8, first_pause=0.2)
        with Client(server.url, cache_dir=tmp_path / "cache", retries=retries) as client:
            model = client.models.upload(large(tmp_path / "large"), progress=kill, piece_bytes=1_000_000)
        assert once.is_set() and model.status == "ready"
    finally:
        server.stop()


def test_a_file_that_changes_is_noticed(client: Client, tmp_path: Path) -> None:
    path = large(tmp_path / "large")
    (file,) = model_files(path)
    cache = tmp_path / "cache"

    class Died(BaseException):
        pass

    def die(update: Any) -> None:
        if update.done > 3_000_000:
            raise Died

    with pytest.raises(Died):
        client.uploads.send([file], progress=die, piece_bytes=1_000_000)
    (state,) = (cache / "uploads").glob("*.json")
    upload = json.loads(state.read_text())["upload"]
    at = file.path.stat()
    with file.path.open("r+b") as f:
        f.seek(1000)
        f.write(b"another")
    os.utime(file.path, ns=(at.st_atime_ns, at.st_mtime_ns))  # as if nothing had happened
    with pytest.raises(DigestMismatch, match="the upload was deleted"):
        client.models.upload(path)
    with pytest.raises(NotFound):
        client.operations.get_upload(upload)
    assert client.models.upload(path).status == "ready", "the next one begins again"


def test_what_cannot_be_a_model_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UploadInvalid, match="neither a file nor a folder"):
        client.models.upload(tmp_path / "nothing")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(UploadInvalid, match="2 GGUF files"):
        client.models.upload(tmp_path)
    with pytest.raises(InvalidRequest) as rejected:
        client.models.upload(tmp_path, include=["a.*"])
    assert rejected.value.code == "invalid_gguf"


def test_datasets(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
    dataset = client.datasets.upload([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], name="tickets")
    assert (dataset.format, dataset.records, dataset.name) == ("jsonl", 3, "tickets")
    assert dataset.id in {d.id for d in client.datasets.list()}
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(InvalidRequest) as rejected:
        client.datasets.upload(tmp_path / "a.jsonl")
    assert rejected.value.code == "invalid_json"
    client.datasets.delete(dataset.id)


def test_names_from_a_server_stay_in_the_folder(tmp_path: Path) -> None:
    assert safe_target(tmp_path, "a/b.gguf") == tmp_path / "a" / "b.gguf"
    for name in ("../x", "/etc/passwd", "a/../../x", "c:\\x", "a\\..\\x", ""):
        with pytest.raises(DigestMismatch):
            safe_target(tmp_path, name)


def test_a_model_that_the_server_brings(folder: Path, tmp_path: Path) -> None:
    """From a web server that the operator allows, with a list of digests; and from nowhere."""
    listing = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    )
    shutil.copytree(folder, tmp_path / "web")
    (tmp_path / "web" / "SHA256SUMS").write_text(listing)
    quiet = partial(QuietFiles, directory=str(tmp_path / "web"))
    web = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    source = f"http://127.0.0.1:{web.server_port}"
    server = Server(tmp_path, "--outbound-allowed", "127.0.0.1", "--pull-allowed", source)
    try:
        with Client(server.url, cache_dir=tmp_path / "cache") as client:
            model = client.models.pull(f"{source}/SHA256SUMS", name="brought")
            assert model.status == "ready" and len(model.files) == 3 and model.name == "brought"
            assert client.compress(f"{source}/SHA256SUMS", "Q8_0").job.status == "succeeded"
            begun = client.models.pull(f"{source}/SHA256SUMS", wait=False)
            assert client.models.wait(begun.id, timeout=20).digest == model.digest
            (tmp_path / "web" / "SHA256SUMS").write_text("0" * 64 + listing[64:])
            with pytest.raises(PullFailed) as failed:
                client.models.pull(f"{source}/SHA256SUMS")
            assert failed.value.code == "digest_mismatch" and "could not be brought" in str(failed.value)
            with pytest.raises(PermissionDenied):
                client.models.pull("https://example.com/model.gguf")
    finally:
        server.stop()
        web.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass
