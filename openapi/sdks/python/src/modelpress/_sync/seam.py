"""Where sync code differs from async code in more than words.

Owns: waiting, threads, running several things at once.
Must not know: what is run.
"""
from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Annotated, Callable, Generator, Iterator, List, Sequence, TypeVar

T = TypeVar("T")

Stream = Generator[T, None, None]
"""A generator that nothing is sent to."""
Later = Annotated[T, "at once"]
"""What a call comes to."""
INTERRUPTS = (KeyboardInterrupt,)
"""How somebody ends a wait."""
sleep = time.sleep


def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Work that takes the processor or the disk for a while."""
    return work(*arguments)


def body(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of a file as the body of a request."""
    return pieces


class Group:
    """Things that are done side by side; when one fails, `stopped` tells the others, and they end."""

    def __init__(self, at_once: int) -> None:
        self.stopped = threading.Event()
        self._at_once = max(1, at_once)

    def run(self, calls: Sequence[Callable[[], Later[T]]]) -> List[T]:
        """Their results in order, or the first failure."""
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="modelpress")
        try:
            futures = [pool.submit(call) for call in calls]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future in done and future.exception():
                    raise future.exception() or RuntimeError
            return [future.result() for future in futures]
        except BaseException:
            self.stopped.set()
            for future in futures:
                future.cancel()
            raise
        finally:
            pool.shutdown(wait=True)
