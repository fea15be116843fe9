"""Models and datasets: uploaded, brought from elsewhere, listed, deleted.

Owns: from files or an address to something that jobs can use.
Must not know: how bytes are sent.
"""
from __future__ import annotations

import time
from pathlib import Path
from typing import AsyncIterator, Dict, Iterable, Optional, Sequence, Union

from .._files import PathLike, dataset_files, model_files
from .._generated.async_operations import AsyncOperations
from .._generated.models import Dataset, Model, Tensor
from .._progress import Progress, task
from .._types import UNSET
from ..errors import NotFound, PullFailed, WaitTimeout
from .pages import entries
from .seam import sleep
from .uploads import AsyncUploads


class AsyncModels:
    """What is compressed."""

    def __init__(self, operations: AsyncOperations, uploads: AsyncUploads) -> None:
        self._operations = operations
        self._uploads = uploads

    async def upload(
        self,
        path: PathLike,
        *,
        name: Optional[str] = None,
        metadata: Optional[Dict[str, str]] = None,
        include: Optional[Sequence[str]] = None,
        progress: Progress = None,
        at_once: int = 4,
        piece_bytes: int = 256 << 20,
    ) -> Model:
        """Uploads a folder or a file; goes on with an upload of it that broke off, here or in an earlier process.

        Of a folder the files that `include` names (`*` stands for anything), or else its safetensors with
        configuration and tokenizer, or its one GGUF file.
        """
        files = model_files(path, include)

        async def made() -> Model:
            sent = await self._uploads.send(files, progress=progress, at_once=at_once, piece_bytes=piece_bytes)
            return await self._operations.create_model(
                files=sent, name=name or _name_of(path), metadata=UNSET if metadata is None else metadata
            )

        try:
            model = await made()
        except NotFound:
            # A remembered upload was swept away, or used up, between the look at it and its use.
            self._uploads.forget(files)
            model = await made()
        self._uploads.forget(files)
        return model

    async def pull(
        self,
        source: str,
        *,
        include: Optional[Sequence[str]] = None,
        token: Optional[str] = None,
        name: Optional[str] = None,
        metadata: Optional[Dict[str, str]] = None,
        wait: bool = True,
        timeout: Optional[float] = None,
        progress: Progress = None,
    ) -> Model:
        """Has the server bring a model: `hf://org/name@revision`, or what its operator allows besides.

        Raises `PullFailed` if it cannot. Without `wait` the model comes back while it is still `pulling`.
        """
        model = await self._operations.create_model(
            source=source,
            include=UNSET if include is None else list(include),
            token=UNSET if token is None else token,
            name=UNSET if name is None else name,
            metadata=UNSET if metadata is None else metadata,
        )
        return await self.wait(model.id, timeout=timeout, progress=progress) if wait else model

    async def wait(self, model: str, *, timeout: Optional[float] = None, progress: Progress = None) -> Model:
        """Waits until a model that is being brought is there."""
        deadline = None if timeout is None else time.monotonic() + timeout
        now, pause = await self.get(model), 0.2
        with task(progress, f"pull {model}", 100, "%") as shown:
            while now.status == "pulling":
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeout(f"model {model} is still being brought; that goes on")
                if now.pull and now.pull.bytes_total:
                    shown.at(100 * now.pull.bytes_done / now.pull.bytes_total, now.pull.waiting_for or "")
                await sleep(pause)
                pause = min(3.0, pause * 1.5)
                now = await self.get(model)
        if now.status == "failed":
            raise PullFailed(now)
        return now

    async def get(self, model: str) -> Model:
        """A model, by its id."""
        return await self._operations.get_model(model)

    def list(self) -> AsyncIterator[Model]:
        """Every model, newest first, page by page."""
        return entries(self._operations.list_models)

    def tensors(self, model: str) -> AsyncIterator[Tensor]:
        """Every tensor of a model."""
        return entries(self._operations.list_model_tensors, model)

    async def delete(self, model: str) -> None:
        """Deletes a model that no job needs."""
        await self._operations.delete_model(model)


class AsyncDatasets:
    """What recipes calibrate with and evaluate on."""

    def __init__(self, operations: AsyncOperations, uploads: AsyncUploads) -> None:
        self._operations = operations
        self._uploads = uploads

    async def upload(
        self,
        paths: Union[PathLike, Iterable[PathLike]],
        *,
        name: Optional[str] = None,
        metadata: Optional[Dict[str, str]] = None,
        progress: Progress = None,
        at_once: int = 4,
    ) -> Dataset:
        """Uploads one file, several, or a folder of them, all of one kind: txt, jsonl, npy, safetensors, imatrix."""
        files = dataset_files(paths)

        async def made() -> Dataset:
            sent = await self._uploads.send(files, progress=progress, at_once=at_once)
            return await self._operations.create_dataset(
                files=sent, name=name or _name_of(files[0].name), metadata=UNSET if metadata is None else metadata
            )

        try:
            dataset = await made()
        except NotFound:
            self._uploads.forget(files)
            dataset = await made()
        self._uploads.forget(files)
        return dataset

    async def get(self, dataset: str) -> Dataset:
        """A dataset, by its id."""
        return await self._operations.get_dataset(dataset)

    def list(self) -> AsyncIterator[Dataset]:
        """Every dataset, newest first, page by page."""
        return entries(self._operations.list_datasets)

    async def delete(self, dataset: str) -> None:
        """Deletes a dataset that no job needs."""
        await self._operations.delete_dataset(dataset)


def _name_of(path: PathLike) -> str:
    return Path(path).resolve().name
