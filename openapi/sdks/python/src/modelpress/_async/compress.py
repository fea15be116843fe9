"""From a model here to a smaller one here, in one call.

Owns: the order of the steps, and what an interrupt does to the job.
Must not know: how any step is done.
"""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Union

from .._files import PathLike
from .._generated.models import Artifact, Dataset, Job, Model
from .._progress import Progress
from .._types import UNSET, Recipe, Unset
from ..errors import UploadInvalid
from .documents import AsyncReport
from .seam import INTERRUPTS

if TYPE_CHECKING:
    from .client import AsyncClient

Source = Union[str, "os.PathLike[str]", Model]
"""A folder or file here, the id of a model there, an address (`hf://org/name`), or a `Model`."""
Data = Union[None, bool, str, "os.PathLike[str]", Dataset, Mapping[str, Any]]
"""A file here, the id of a dataset there, `builtin`, a `Dataset`, or an object whose `dataset` is one of these."""


class AsyncResult:
    """What came of a compression."""

    def __init__(self, client: AsyncClient, job: Job, artifacts: List[Artifact], report: AsyncReport) -> None:
        self._client = client
        self.job = job
        """The job, over and done."""
        self.artifacts = artifacts
        """What it published, one for each format."""
        self.report = report
        """What changed and what it cost."""
        self.files: List[Path] = []
        """Files that were downloaded."""

    async def download(self, out: PathLike, *, progress: Progress = None) -> List[Path]:
        """Puts every artifact into a folder of its format's name, and the report beside them."""
        folder = Path(out)
        for artifact in self.artifacts:
            self.files += await self._client.artifacts.download(artifact, folder / artifact.format, progress=progress)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(await self.report.html(), "utf-8")
        (folder / "report.json").write_text(json.dumps(self.report.raw, ensure_ascii=False), "utf-8")
        return self.files

    def __repr__(self) -> str:
        return f"<Result of {self.job.id}: {self.report!r}>"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


async def compress(
    client: AsyncClient,
    model: Source,
    recipe: Recipe,
    *,
    out: Optional[PathLike],
    formats: Optional[Sequence[str]],
    calibration: Data,
    evaluation: Data,
    budget: Optional[Mapping[str, Any]],
    gates: Optional[Mapping[str, Any]],
    metadata: Optional[Dict[str, str]],
    priority: Union[int, Unset],
    timeout: Optional[float],
    progress: Progress,
    cancel_on_interrupt: bool,
) -> AsyncResult:
    id = await model_id(client, model, progress)
    whole = with_parts(
        recipe,
        calibration=await data(client, calibration, progress),
        evaluation=await data(client, evaluation, progress),
        budget=budget,
        gates=gates,
    )
    job = await client.jobs.create(id, whole, formats=formats, metadata=metadata, priority=priority)
    ended = await until_over(client, job.id, timeout, progress, cancel_on_interrupt)
    artifacts = [await client.artifacts.get(artifact) for artifact in ended.artifacts]
    result = AsyncResult(client, ended, artifacts, await client.jobs.report(ended.id))
    if out is not None:
        await result.download(out, progress=progress)
    return result


async def until_over(
    client: AsyncClient, job: str, timeout: Optional[float], progress: Progress, cancel_on_interrupt: bool
) -> Job:
    """Waits for a job; an interrupt leaves it running unless told otherwise."""
    try:
        return await client.jobs.wait(job, timeout=timeout, progress=progress)
    except INTERRUPTS:
        if cancel_on_interrupt:
            await client.jobs.cancel(job)
        raise


async def model_id(client: AsyncClient, model: Source, progress: Progress) -> str:
    """The id of a model that is ready, after whatever it takes."""
    if isinstance(model, Model):
        return model.id
    text = os.fspath(model)
    if text.startswith("mdl_"):
        return text
    if "://" in text:
        return (await client.models.pull(text, progress=progress)).id
    return (await client.models.upload(text, progress=progress)).id


async def data(client: AsyncClient, asked: Data, progress: Progress) -> Any:
    """What a recipe says of its data, files uploaded."""
    if asked is None:
        return UNSET
    if isinstance(asked, Mapping):
        named = asked.get("dataset")
        return {**asked, "dataset": await _dataset(client, named, progress)} if named is not None else dict(asked)
    if isinstance(asked, bool):
        return asked
    return {"dataset": await _dataset(client, asked, progress)}


async def _dataset(client: AsyncClient, asked: Any, progress: Progress) -> str:
    if isinstance(asked, Dataset):
        return asked.id
    text: str = os.fspath(asked)
    if text == "builtin" or text.startswith("ds_"):
        return text
    if not Path(text).exists():
        raise UploadInvalid(f"{text!r} is no file or folder, no dataset's id and not builtin")
    return (await client.datasets.upload(text, progress=progress)).id


def with_parts(recipe: Recipe, **parts: Any) -> Recipe:
    """A recipe with what was given beside it; what it says itself may not be said twice."""
    given = {name: part for name, part in parts.items() if part is not None and part is not UNSET}
    if not given:
        return recipe
    whole: Dict[str, Any] = {"preset": recipe} if isinstance(recipe, str) else dict(recipe)
    twice = sorted(set(whole) & set(given))
    if twice:
        raise ValueError(f"the recipe has {', '.join(twice)} already")
    return {**whole, **given}
