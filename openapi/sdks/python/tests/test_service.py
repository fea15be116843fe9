"""Keys, errors, retries, webhooks: what surrounds the work."""
from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import tiny
from service import Server, new_key

import modelpress
from modelpress import APIError, Client, ConnectionFailed, Model, PermissionDenied, Retries, Unauthenticated
from modelpress._decode import parse_time
from modelpress._generated.models import Job
from modelpress._retry import passes, retry_after
from modelpress.webhooks import verify


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks for keys; the client takes its settings from variables."""
    key = new_key(tmp_path / "data")
    server = Server(tmp_path, "--auth", "required")
    try:
        monkeypatch.setenv("MODELPRESS_URL", server.url)
        monkeypatch.setenv("MODELPRESS_CACHE", str(tmp_path / "cache"))
        with pytest.raises(Unauthenticated, match="unauthenticated"):
            list(Client().models.list())
        monkeypatch.setenv("MODELPRESS_API_KEY", key)
        with Client() as admin:
            result = admin.compress(tiny.write(tmp_path / "tiny"), recipe="Q8_0", out=tmp_path / "out")
            assert result.files and admin.health().status == "ok"
            made = admin.operations.create_key(name="reader", scopes=["models:read"])
            with Client(api_key=made.token) as reader:
                assert len(list(reader.models.list())) == 1
                with pytest.raises(PermissionDenied):
                    reader.jobs.create(result.job.model, "Q8_0")
            assert made.key.id in {entry.id for entry in admin.entries(admin.operations.list_keys)}
            assert any("keys" in entry.action for entry in admin.entries(admin.operations.list_audit_entries))
    finally:
        server.stop()


class Scripted(BaseHTTPRequestHandler):
    """Answers what it is told to, for answers that a real server gives too seldom."""

    script: List[Tuple[int, Dict[str, str], Any]] = []
    seen: List[Tuple[str, str, Dict[str, str]]] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        status, headers, body = self.script.pop(0)
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[str]:
    Scripted.script, Scripted.seen = [], []
    server = HTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def job_json(client: Client, model: Model) -> Any:
    return client.compress(model, "Q8_0").job.raw


def test_what_is_sent_again_and_what_is_not(scripted: str, job_json: Any, tmp_path: Path) -> None:
    quick = Client(scripted, retries=Retries(first_pause=0.01), cache_dir=tmp_path)
    down = (503, {}, {"code": "unavailable"})

    Scripted.script = [(0, {}, None), down, (200, {}, job_json)]
    assert quick.jobs.get("job_1").id == job_json["id"], "reading is sent again"

    Scripted.seen.clear()
    Scripted.script = [(0, {}, None), (409, {}, {"code": "idempotency_running"}), (202, {}, job_json)]
    quick.jobs.create("mdl_1", "Q8_0")
    keys = {headers["idempotency-key"] for _, _, headers in Scripted.seen}
    assert len(Scripted.seen) == 3 and len(keys) == 1, "a job is, with one key"

    Scripted.script = [(0, {}, None)]
    with pytest.raises(ConnectionFailed):
        quick.operations.create_webhook(url="https://example.com")  # it may have been made
    Scripted.script = [(429, {"Retry-After": "0"}, {"code": "rate_limited"}), (500, {}, {"code": "internal"})]
    with pytest.raises(APIError, match=r"internal \(500\)"):
        quick.operations.create_webhook(url="https://example.com")
    assert not Scripted.script, "what was not even looked at is"

    Scripted.script = [(429, {}, {"code": "quota_exceeded", "detail": "full"})]
    with pytest.raises(modelpress.TooManyRequests, match="full"):
        quick.jobs.create("mdl_1", "Q8_0")
    Scripted.script = [down] * 5
    with pytest.raises(modelpress.ServerError):
        quick.jobs.get("job_1")
    assert not Scripted.script, "five times in all"


def test_retry_after_is_honoured(scripted: str, job_json: Any, tmp_path: Path) -> None:
    quick = Client(scripted, retries=Retries(first_pause=0.01), cache_dir=tmp_path)
    Scripted.script = [(429, {"Retry-After": "1"}, {"code": "rate_limited"}), (200, {}, job_json)]
    began = time.monotonic()
    quick.jobs.get("job_1")
    assert 1.0 <= time.monotonic() - began < 2
    Scripted.script = [(503, {"Retry-After": "3600"}, {"code": "unavailable"})]
    with pytest.raises(modelpress.ServerError) as raised:
        quick.jobs.get("job_1")
    assert raised.value.retry_after == 3600, "nobody waits for an hour without being asked"
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_pauses_grow_and_differ() -> None:
    retries = Retries(attempts=4, first_pause=1, longest_pause=3)
    for failures, least, most in ((1, 0.5, 1), (2, 1, 2), (3, 1.5, 3)):
        pauses = {retries.pause(failures) for _ in range(20)}
        assert len(pauses) > 10 and all(p is not None and least <= p <= most for p in pauses)
    assert retries.pause(4) is None
    assert passes(APIError(503, {"code": "request_timeout"}), True)
    assert not passes(APIError(503, {"code": "request_timeout"}), False)


def test_a_newer_server_does_not_break_this_client(scripted: str, job_json: Any, tmp_path: Path) -> None:
    newer = {**job_json, "carbon": {"grams": 3}, "stage": {"name": "x", "index": 0, "of": 1, "eta": 4}}
    job = Job.from_json(newer)
    assert job.raw["carbon"] == {"grams": 3} and job.stage and job.stage.raw["eta"] == 4
    assert job == Job.from_json({**newer, "carbon": None}), "they are the same job"
    Scripted.script = [(200, {}, {"hello": "world"})]
    with pytest.raises(modelpress.UnexpectedAnswer, match="is this a modelpress server"):
        Client(scripted, cache_dir=tmp_path).jobs.get("job_1")
    assert parse_time("2026-11-27T13:18:34.59Z").microsecond == 590_000
    assert parse_time("2026-11-27T13:18:34.123456789+01:30").utcoffset() is not None


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    client = Client("http://127.0.0.1:1", retries=Retries(attempts=2, first_pause=0.01), cache_dir=tmp_path)
    with pytest.raises(ConnectionFailed, match="GET /v1/models"):
        next(iter(client.models.list()))


class Receiver(BaseHTTPRequestHandler):
    """A webhook's receiver."""

    messages: List[Tuple[Dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.messages.append((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_webhooks_that_the_server_sends(client: Client) -> None:
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        made = client.operations.create_webhook(url=f"http://127.0.0.1:{receiver.server_port}/hook")
        client.operations.test_webhook(made.webhook.id)
        for _ in range(100):
            if Receiver.messages:
                break
            time.sleep(0.1)
        headers, body = Receiver.messages[0]
        message = verify(body, headers, made.secret)
        assert message.type == "webhook.test" and message.data.id == made.webhook.id
        assert verify(body.decode(), {k.upper(): v for k, v in headers.items()}, ["whsec_MTIz", made.secret])

        name = {name.lower(): name for name in headers}
        bad = [
            (body + b" ", headers, made.secret),
            (body, headers, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            (body, {**headers, name["webhook-id"]: "msg_other"}, made.secret),
            (body, {**headers, name["webhook-timestamp"]: str(int(time.time()) - 301)}, made.secret),
            (body, {**headers, name["webhook-timestamp"]: "nan"}, made.secret),
            (body, {**headers, name["webhook-signature"]: "v1,"}, made.secret),
            (body, {k: v for k, v in headers.items() if k.lower() != "webhook-signature"}, made.secret),
        ]
        for arguments in bad:
            with pytest.raises(modelpress.WebhookInvalid):
                verify(*arguments)
        client.operations.delete_webhook(made.webhook.id)
    finally:
        receiver.shutdown()


def test_the_published_vector_of_standard_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1614265330.0)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    # Its body is no message of ours, which shows only after its signature was found good.
    with pytest.raises(modelpress.UnexpectedAnswer):
        verify('{"test": 2432232314}', headers, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
