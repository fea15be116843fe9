"""Lists, page by page.

Owns: following cursors.
Must not know: what is listed.
"""
from __future__ import annotations

from typing import Any, AsyncIterator, Callable, TypeVar

from .._generated.models import Page
from .seam import Later

T = TypeVar("T")


async def entries(list_page: Callable[..., Later[Page[T]]], *arguments: Any, **filters: Any) -> AsyncIterator[T]:
    """Every entry of a list; `list_page` is one of the operations that list something."""
    after = None
    while True:
        page = await list_page(*arguments, limit=100, after=after, **filters)
        for entry in page.data:
            yield entry
        after = page.next_cursor
        if not page.has_more or after is None:
            return
