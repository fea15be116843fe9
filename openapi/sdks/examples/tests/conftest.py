"""Real servers, one open and one that asks for keys, and a tiny model; borrowed from the Python SDK's tests."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES.parent / "python" / "tests")]

import tiny  # noqa: E402
from service import Server, new_key  # noqa: E402


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    """A folder of a server's, with the first key in it."""
    folder = tmp_path_factory.mktemp("guarded")
    return folder, new_key(folder / "data")


@pytest.fixture(scope="session")
def guarded(key):
    """A server that asks for a key: what an example leaves out shows."""
    folder, token = key
    server = Server(folder, "--auth", "required")
    server.token = token
    yield server
    server.stop()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def settings(guarded, tmp_path, monkeypatch):
    """Variables by which examples find the server."""
    monkeypatch.setenv("MODELPRESS_URL", guarded.url)
    monkeypatch.setenv("MODELPRESS_API_KEY", guarded.token)
    monkeypatch.setenv("MODELPRESS_CACHE", str(tmp_path / "cache"))
    return guarded


def gguf(out):
    """The GGUF file below a folder."""
    (found,) = Path(out).rglob("*.gguf")
    assert found.read_bytes()[:4] == b"GGUF"
    return found
