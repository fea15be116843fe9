"""The client: where everything is found.

Owns: settings, and what belongs to whom.
Must not know: how anything is done.
"""
from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Dict, List, Mapping, Optional, Sequence, Type, TypeVar, Union

import httpx

from .._files import PathLike
from .._generated.async_operations import AsyncOperations
from .._generated.models import Format, Health, Page, Plan
from .._progress import Progress
from .._retry import Retries
from .._types import UNSET, Recipe, Unset
from .._upload_state import Memory, default_folder
from ..search import SearchResult
from . import compress as one_call
from .artifacts import AsyncArtifacts
from .compress import AsyncResult, Data, Source
from .documents import AsyncAnalysis
from .jobs import AsyncJobs
from .models import AsyncDatasets, AsyncModels
from .pages import entries
from .seam import INTERRUPTS, Later
from .searches import AsyncSearches
from .sender import AsyncSender
from .uploads import AsyncUploads

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"


class AsyncClient:
    """A modelpress server.

    - base_url: where it is; `MODELPRESS_URL`, or else http://127.0.0.1:8080.
    - api_key: what opens it; `MODELPRESS_API_KEY`. A server that only its own machine can reach asks for none.
    - timeout: seconds of silence after which a request counts as lost.
    - retries: how often and when requests that may be sent again are.
    - cache_dir: where unfinished uploads are remembered; `MODELPRESS_CACHE`, or the user's cache folder.
    - http_client: an httpx client of yours, for proxies or certificates; it is closed with this one.
    """

    def __init__(
        self,
        base_url: Optional[str] = None,
        api_key: Optional[str] = None,
        *,
        timeout: float = 60.0,
        retries: Retries = Retries(),
        cache_dir: Optional[PathLike] = None,
        http_client: Optional[httpx.AsyncClient] = None,
    ) -> None:
        url = base_url or os.environ.get("MODELPRESS_URL") or DEFAULT_URL
        key = api_key or os.environ.get("MODELPRESS_API_KEY") or None
        self._sender = AsyncSender(url, key, timeout, retries, http_client)
        self.operations = AsyncOperations(self._sender)
        """Every operation of the API, as it is."""
        memory = Memory(Path(cache_dir) if cache_dir else default_folder(), self.base_url, key)
        self.uploads = AsyncUploads(self._sender, self.operations, memory)
        self.models = AsyncModels(self.operations, self.uploads)
        self.datasets = AsyncDatasets(self.operations, self.uploads)
        self.jobs = AsyncJobs(self._sender, self.operations)
        self.artifacts = AsyncArtifacts(self._sender, self.operations)
        self.searches = AsyncSearches(self.operations)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._sender.base_url

    async def close(self) -> None:
        """Closes its connections."""
        await self._sender.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.base_url}>"

    async def compress(
        self,
        model: Source,
        recipe: Recipe,
        *,
        out: Optional[PathLike] = None,
        formats: Optional[Sequence[str]] = None,
        calibration: Data = None,
        evaluation: Data = None,
        budget: Optional[Mapping[str, Any]] = None,
        gates: Optional[Mapping[str, Any]] = None,
        metadata: Optional[Dict[str, str]] = None,
        priority: Union[int, Unset] = UNSET,
        timeout: Optional[float] = None,
        progress: Progress = None,
        cancel_on_interrupt: bool = False,
    ) -> AsyncResult:
        """Compresses a model: uploads it, runs the job, and puts what comes out into `out`.

        - model: a folder or file, the id of a model, or an address (`hf://org/name`) that the server brings it from.
        - recipe: the name of a preset, or a recipe object.
        - out: a folder; `out/<format>/…` are the files, checked by their digests, beside report.html and report.json.
        - calibration: a file, the id of a dataset, or an object with more of it, e.g.
          `{"dataset": "tickets.jsonl", "num_samples": 64}`.
        - evaluation: likewise, or `True`.
        - budget: a limit instead of knobs, e.g. `{"max_perplexity_increase": 0.01}`.
        - gates: limits that the result must keep, or the job fails.
        - timeout: seconds to wait for the job; `WaitTimeout` after that, and the job goes on.
        - cancel_on_interrupt: end the job on Ctrl-C; without it the job goes on too.

        Raises `RecipeRefused` for a recipe that cannot work, with the reasons, and `JobFailed` if the job fails.
        """
        return await one_call.compress(
            self,
            model,
            recipe,
            out=out,
            formats=formats,
            calibration=calibration,
            evaluation=evaluation,
            budget=budget,
            gates=gates,
            metadata=metadata,
            priority=priority,
            timeout=timeout,
            progress=progress,
            cancel_on_interrupt=cancel_on_interrupt,
        )

    async def plan(self, model: Source, recipe: Recipe, *, formats: Optional[Sequence[str]] = None) -> Plan:
        """What would come out: every tensor's type, exact bytes, peak memory; or `RecipeRefused`."""
        id = await one_call.model_id(self, model, None)
        return await self.operations.create_plan(
            model=id, recipe=recipe, formats=UNSET if formats is None else list(formats)
        )

    async def analyze(
        self,
        model: Source,
        *,
        sensitivity: Optional[Recipe] = None,
        timeout: Optional[float] = None,
        progress: Progress = None,
        cancel_on_interrupt: bool = False,
    ) -> AsyncAnalysis:
        """What the weights are before anything is done to them, and what each preset would make of them.

        With `sensitivity`, a recipe with calibration or a preset's name, also what each of its schemes would cost each tensor.
        """
        id = await one_call.model_id(self, model, progress)
        job = await self.operations.analyze_model(
            id, sensitivity=UNSET if sensitivity is None else sensitivity
        )
        await one_call.until_over(self, job.id, timeout, progress, cancel_on_interrupt)
        return await self.jobs.analysis(job.id)

    async def search(
        self,
        model: Source,
        recipes: Optional[Sequence[Recipe]] = None,
        *,
        grid: Optional[Mapping[str, Any]] = None,
        calibration: Data = None,
        evaluation: Data = None,
        metadata: Optional[Dict[str, str]] = None,
        priority: Union[int, Unset] = UNSET,
        timeout: Optional[float] = None,
        progress: Progress = None,
        cancel_on_interrupt: bool = False,
    ) -> SearchResult:
        """Tries many recipes: those given, and every combination of a grid. `front` names those worth having.

        - grid: `{"recipe": …, "vary": {"/budget/target_bits_per_weight": [4.5, 5]}}`.
        """
        id = await one_call.model_id(self, model, progress)
        search = await self.searches.create(
            id,
            recipes,
            grid=grid,
            calibration=await one_call.data(self, calibration, progress),
            evaluation=await one_call.data(self, evaluation, progress),
            metadata=metadata,
            priority=priority,
        )
        try:
            return await self.searches.wait(search.id, timeout=timeout, progress=progress)
        except INTERRUPTS:
            if cancel_on_interrupt:
                await self.searches.cancel(search.id)
            raise

    async def presets(self) -> List[Mapping[str, Any]]:
        """The recipes that have a name."""
        return list((await self.operations.list_presets()).data)

    async def techniques(self) -> List[Mapping[str, Any]]:
        """What a stage of a recipe can be, with its options as JSON Schema."""
        return list((await self.operations.list_techniques()).data)

    async def formats(self) -> List[Format]:
        """What is read and what is written."""
        return (await self.operations.list_formats()).data

    async def health(self) -> Health:
        """Whether the server takes requests, and its version."""
        return await self.operations.readyz()

    def entries(
        self, list_page: Callable[..., Later[Page[T]]], *arguments: Any, **filters: Any
    ) -> AsyncIterator[T]:
        """Every entry of a list, page by page: `client.entries(client.operations.list_webhooks)`."""
        return entries(list_page, *arguments, **filters)
