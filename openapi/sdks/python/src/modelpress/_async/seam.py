"""Where async code differs from sync code in more than words.

Owns: waiting, threads, running several things at once.
Must not know: what is run.
"""
from __future__ import annotations

import asyncio
import threading
from typing import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, List, Sequence, TypeVar

T = TypeVar("T")

Stream = AsyncGenerator[T, None]
"""A generator that nothing is sent to."""
Later = Awaitable[T]
"""What a call comes to."""
INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt)
"""How somebody ends a wait."""
sleep = asyncio.sleep


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Work that takes the processor or the disk for a while."""
    return await asyncio.to_thread(work, *arguments)


async def body(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of a file as the body of a request."""
    while True:
        piece = await asyncio.to_thread(next, pieces, b"")
        if not piece:
            return
        yield piece


class Group:
    """Things that are done side by side; when one fails, `stopped` tells the others, and they end."""

    def __init__(self, at_once: int) -> None:
        self.stopped = threading.Event()
        self._at_once = asyncio.Semaphore(max(1, at_once))

    async def run(self, calls: Sequence[Callable[[], Later[T]]]) -> List[T]:
        """Their results in order, or the first failure."""
        tasks = [asyncio.ensure_future(self._one(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # Nothing is left to stop where all went well.
            self.stopped.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, call: Callable[[], Later[T]]) -> T:
        async with self._at_once:
            if self.stopped.is_set():
                raise asyncio.CancelledError
            try:
                return await call()
            except BaseException:
                self.stopped.set()
                raise
