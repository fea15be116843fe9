"""A real server, a tiny model, and clients of them."""
from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
import tiny
from service import BINARY, Server

from modelpress import Client, Model


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Needs no key; may send webhooks to this machine."""
    assert BINARY, "set MODELPRESS_BINARY to the server's program"
    running = Server(tmp_path_factory.mktemp("server"), "--outbound-allowed", "127.0.0.1")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[Client]:
    with Client(server.url, cache_dir=tmp_path / "cache") as client:
        yield client


@pytest.fixture(scope="session")
def model(server: Server, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that is there already."""
    with Client(server.url, cache_dir=tmp_path_factory.mktemp("cache")) as client:
        return client.models.upload(folder)
