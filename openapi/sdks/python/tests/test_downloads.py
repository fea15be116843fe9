"""Downloads: checked, resumed, never half a file under its name."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from service import Server
from test_uploads import Breaking

from modelpress import Client, DigestMismatch, Retries
from modelpress._generated.models import Artifact


@pytest.fixture(scope="module")
def artifact(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("wide")
    with Client(server.url, cache_dir=folder / "cache") as client:
        return client.compress(tiny.write(folder / "tiny"), "BF16").artifacts[0]


def test_a_broken_download_goes_on(server: Server, artifact: Artifact, tmp_path: Path) -> None:
    (file,) = [file for file in artifact.files if file.name.endswith(".gguf")]
    assert file.bytes > 1_900_000
    way = Breaking(server, after=500_000, times=3, incoming=True)
    seen: list[Any] = []
    try:
        with Client(way.url, cache_dir=tmp_path, retries=Retries(first_pause=0.01)) as client:
            paths = client.artifacts.download(artifact.id, tmp_path / "out", progress=seen.append)
    finally:
        way.close()
    assert way.left == 0 and seen[-1].done == seen[-1].total == artifact.bytes
    assert sum(path.stat().st_size for path in paths) == artifact.bytes
    assert not list((tmp_path / "out").glob("*.part"))


def test_what_is_there_is_kept_and_what_is_half_there_is_gone_on_with(
    client: Client, artifact: Artifact, tmp_path: Path
) -> None:
    paths = client.artifacts.download(artifact, tmp_path)
    (path,) = [path for path in paths if path.suffix == ".gguf"]
    whole, at = path.read_bytes(), path.stat().st_mtime_ns
    asked: list[str] = []
    inner = client.operations.get_artifact_file

    def noted(id: str, name: str, **headers: Any) -> Any:
        asked.append(f"{name} {headers.get('range')}")
        return inner(id, name, **headers)

    client.operations.get_artifact_file = noted  # type: ignore[method-assign]
    client.artifacts.download(artifact, tmp_path)
    assert asked == [] and path.stat().st_mtime_ns == at, "nothing is fetched twice"

    part = path.with_name(path.name + ".part")
    path.unlink()
    part.write_bytes(whole[:1_000_000])
    client.artifacts.download(artifact, tmp_path)
    assert asked == [f"{path.name} bytes=1000000-"] and path.read_bytes() == whole

    path.unlink()
    part.write_bytes(b"x" * 1_000_000)
    with pytest.raises(DigestMismatch):
        client.artifacts.download(artifact, tmp_path)
    assert not part.exists() and not path.exists(), "wrong bytes are not kept"
    client.artifacts.download(artifact, tmp_path)
    assert path.read_bytes() == whole
