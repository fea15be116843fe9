"""Files to the server, several at once; after a break from where the server stands.

Owns: the course of an upload.
Must not know: what becomes of the files.
Invariant: a file counts as uploaded only when the server has its digest.
"""
from __future__ import annotations

from functools import partial
from typing import List, Sequence

from .._files import LocalFile, Outgoing
from .._generated.async_operations import AsyncOperations
from .._generated.models import Upload, UploadedFileIn
from .._progress import Progress, Task, task
from .._upload_state import Memory, Remembered
from ..errors import APIError, ConnectionFailed, DigestMismatch, NotFound
from .seam import Group, body, in_thread, sleep
from .sender import AsyncSender

# What a request that breaks off, or is ended by a proxy or by a newer request, comes back with.
_BREAKS = {"offset_mismatch", "upload_superseded", "idle_timeout", "body_truncated", "upload_complete", "rate_limited"}


class AsyncUploads:
    """Resumable uploads. `models.upload` and `datasets.upload` make something of them."""

    def __init__(self, sender: AsyncSender, operations: AsyncOperations, memory: Memory) -> None:
        self._sender = sender
        self._operations = operations
        self._memory = memory

    async def send(
        self,
        files: Sequence[LocalFile],
        *,
        progress: Progress = None,
        at_once: int = 4,
        piece_bytes: int = 256 << 20,
    ) -> List[UploadedFileIn]:
        """Uploads files and says what they are called and which upload each is.

        - at_once: files that are sent side by side.
        - piece_bytes: most bytes of one request; the server keeps what arrived even of one that breaks.
        """
        group = Group(at_once)
        label = f"upload {files[0].name}" if len(files) == 1 else f"upload {len(files)} files"
        with task(progress, label, sum(file.bytes for file in files)) as shown:
            calls = [partial(self._file, file, group, shown, max(1, piece_bytes)) for file in files]
            return await group.run(calls)

    def forget(self, files: Sequence[LocalFile]) -> None:
        """What was remembered of files that have become part of something."""
        for file in files:
            self._memory.forget(file)

    async def _file(self, file: LocalFile, group: Group, shown: Task, piece_bytes: int) -> UploadedFileIn:
        with self._memory.of(file) as remembered:
            outgoing = Outgoing(file, group.stopped, shown.advance)
            upload = await self._begin(file, remembered)
            if upload.offset:
                shown.advance(upload.offset)
            upload = await self._through(upload, outgoing, shown, piece_bytes)
            await self._check(upload, outgoing)
            return {"name": file.name, "upload": upload.id}

    async def _begin(self, file: LocalFile, remembered: Remembered) -> Upload:
        """The upload that an earlier process began, or a new one."""
        known = remembered.upload()
        if known:
            try:
                upload = await self._operations.get_upload(known)
                if upload.length == file.bytes:
                    return upload
            except NotFound:
                pass  # it expired, or has become part of a model
        upload = await self._operations.create_upload(length=file.bytes)
        remembered.keep(upload.id)
        return upload

    async def _through(self, upload: Upload, outgoing: Outgoing, shown: Task, piece_bytes: int) -> Upload:
        """Sends what is missing, however often the connection breaks, as long as something gets through."""
        total = outgoing.file.bytes
        failures = 0
        while upload.status == "open":
            offset = upload.offset
            try:
                length = min(piece_bytes, total - offset)
                await self._piece(upload.id, outgoing, offset, length, last=offset + length == total)
            except (ConnectionFailed, APIError) as error:
                if not _is_break(error):
                    raise
                upload = await self._operations.get_upload(upload.id)
                failures = 1 if upload.offset > offset else failures + 1
                pause = self._sender.retries.pause(failures, getattr(error, "retry_after", None))
                if pause is None and upload.status == "open":
                    raise
                await sleep(pause or 0)
            else:
                failures = 0
                upload = await self._operations.get_upload(upload.id)
            shown.advance(upload.offset - offset - outgoing.take_counted())
        return upload

    async def _piece(self, id: str, outgoing: Outgoing, offset: int, length: int, last: bool) -> None:
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": length,
            "Upload-Offset": offset,
            "Upload-Complete": "?1" if last else "?0",
        }
        pieces = outgoing.pieces(offset, length)
        await self._sender.send("PATCH", f"/v1/uploads/{id}", headers=headers, content=body(pieces))

    async def _check(self, upload: Upload, outgoing: Outgoing) -> None:
        digest = await in_thread(outgoing.digest)
        if upload.digest == digest:
            return
        await self._operations.delete_upload(upload.id)
        raise DigestMismatch(
            f"{outgoing.file.name}: the server has {upload.digest}, the file is {digest}; the upload was deleted"
        )


def _is_break(error: Exception) -> bool:
    if not isinstance(error, APIError):
        return True
    return error.code in _BREAKS or error.status in (408, 500, 502, 503, 504)
