"""Artifacts: what they are, and their files on the way here.

Owns: the course of a download.
Must not know: jobs.
Invariant: a file has its name only when its digest was found right; a broken download goes on where it ended.
"""
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import List, Union

from .._files import Incoming, PathLike, Stopped
from .._generated.async_operations import AsyncOperations
from .._generated.models import Artifact
from .._progress import Progress, Task, task
from ..errors import APIError, ConnectionFailed
from .seam import Group, in_thread, sleep
from .sender import AsyncSender


class AsyncArtifacts:
    """What jobs publish."""

    def __init__(self, sender: AsyncSender, operations: AsyncOperations) -> None:
        self._sender = sender
        self._operations = operations

    async def get(self, artifact: str) -> Artifact:
        """An artifact, by its id."""
        return await self._operations.get_artifact(artifact)

    async def download(
        self, artifact: Union[str, Artifact], out: PathLike, *, progress: Progress = None, at_once: int = 4
    ) -> List[Path]:
        """Puts an artifact's files into a folder and checks them; what is there already is not fetched again."""
        found = await self.get(artifact) if isinstance(artifact, str) else artifact
        files = [Incoming(Path(out), file.name, file.bytes, file.digest) for file in found.files]
        group = Group(at_once)
        with task(progress, f"download {found.format}", found.bytes) as shown:
            return await group.run([partial(self._file, found.id, file.name, into, group, shown)
                                    for file, into in zip(found.files, files)])  # fmt: skip

    async def _file(self, artifact: str, name: str, file: Incoming, group: Group, shown: Task) -> Path:
        if await in_thread(file.is_there):
            shown.advance(file.bytes)
            return file.target
        await in_thread(file.resume)
        shown.advance(file.offset)
        failures = 0
        while file.offset < file.bytes:
            before = file.offset
            try:
                await self._rest(artifact, name, file, group, shown)
            except ConnectionFailed:
                failures = 1 if file.offset > before else failures + 1
                pause = self._sender.retries.pause(failures)
                if pause is None:
                    raise
                await sleep(pause)
        return await in_thread(file.finish)

    async def _rest(self, artifact: str, name: str, file: Incoming, group: Group, shown: Task) -> None:
        """Everything from where the file ends."""
        wanted = f"bytes={file.offset}-" if file.offset else None
        ask = self._operations.get_artifact_file(artifact, name, range=wanted)
        try:
            async with ask as answer:
                if file.offset and answer.status_code != 206:
                    shown.advance(-file.offset)
                    await in_thread(file.restart)
                async for piece in answer.aiter_bytes(1 << 20):
                    if group.stopped.is_set():
                        raise Stopped
                    await in_thread(file.write, piece)
                    shown.advance(len(piece))
        except APIError as error:
            if error.status != 416:
                raise
            shown.advance(-file.offset)
            await in_thread(file.restart)
