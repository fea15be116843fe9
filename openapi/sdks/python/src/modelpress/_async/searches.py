"""Searches: many recipes at once, and which of them are worth having.

Owns: making and awaiting them.
Must not know: how figures are shown.
"""
from __future__ import annotations

import time
from typing import Any, AsyncIterator, Dict, Mapping, Optional, Sequence, Union

from .._generated.async_operations import AsyncOperations
from .._generated.models import Search, SearchEntry
from .._progress import Progress, task
from .._types import UNSET, Recipe, Unset
from ..errors import SearchFailed, WaitTimeout
from ..search import SearchResult
from .jobs import OVER
from .pages import entries
from .seam import sleep


class AsyncSearches:
    """Searches for the recipes that are worth having."""

    def __init__(self, operations: AsyncOperations) -> None:
        self._operations = operations

    async def create(
        self,
        model: str,
        recipes: Optional[Sequence[Recipe]] = None,
        *,
        grid: Optional[Mapping[str, Any]] = None,
        calibration: Any = UNSET,
        evaluation: Any = UNSET,
        metadata: Optional[Dict[str, str]] = None,
        priority: Union[int, Unset] = UNSET,
        idempotency_key: Optional[str] = None,
    ) -> Search:
        """Queues a job of every recipe and of every combination in the grid."""
        return await self._operations.create_search(
            model=model,
            recipes=UNSET if recipes is None else list(recipes),
            grid=UNSET if grid is None else grid,
            calibration=calibration,
            evaluation=evaluation,
            metadata=UNSET if metadata is None else metadata,
            priority=priority,
            idempotency_key=idempotency_key,
        )

    async def get(self, search: str) -> SearchResult:
        """A search as it is now, by its id."""
        return SearchResult(await self._operations.get_search(search))

    def list(self) -> AsyncIterator[SearchEntry]:
        """Every search, newest first, page by page."""
        return entries(self._operations.list_searches)

    async def cancel(self, search: str) -> SearchResult:
        """Asks a search's jobs to end."""
        return SearchResult(await self._operations.cancel_search(search))

    async def wait(
        self, search: str, *, timeout: Optional[float] = None, progress: Progress = None, check: bool = True
    ) -> SearchResult:
        """Waits until every recipe is done; raises `SearchFailed` if none succeeded, unless `check` is false."""
        deadline = None if timeout is None else time.monotonic() + timeout
        now, pause = await self._operations.get_search(search), 0.3
        with task(progress, f"search {search}", len(now.points), " recipes") as shown:
            while now.status not in OVER:
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeout(f"search {search} is not over yet; it goes on")
                shown.at(sum(point.status in (*OVER, "refused") for point in now.points))
                await sleep(pause)
                pause = min(5.0, pause * 1.5)
                now = await self._operations.get_search(search)
            shown.at(len(now.points))
        if check and now.status != "succeeded":
            raise SearchFailed(now)
        return SearchResult(now)
