"""Jobs: made, followed, waited for, cancelled, and their reports.

Owns: the stream of events and what happens when it breaks.
Must not know: where a job's model came from.
Invariant: every event comes once and in order, however often the connection breaks.
"""
from __future__ import annotations

import json
import time
from typing import Any, AsyncIterator, Dict, Optional, Sequence, Union

from .._generated.async_operations import AsyncOperations
from .._generated.models import Event, Job
from .._progress import Progress, task
from .._sse import Parser
from .._types import UNSET, Recipe, Unset, escaped
from ..errors import APIError, ConnectionFailed, JobFailed, WaitTimeout
from .documents import AsyncAnalysis, AsyncReport
from .pages import entries
from .seam import Stream, sleep
from .sender import AsyncSender

OVER = ("succeeded", "failed", "cancelled")
# The server sends a comment every 15 seconds; without three of them the connection is dead.
_SILENCE_SECONDS = 45.0


class AsyncJobs:
    """Compressions and analyses."""

    def __init__(self, sender: AsyncSender, operations: AsyncOperations) -> None:
        self._sender = sender
        self._operations = operations

    async def create(
        self,
        model: str,
        recipe: Recipe,
        *,
        formats: Optional[Sequence[str]] = None,
        metadata: Optional[Dict[str, str]] = None,
        priority: Union[int, Unset] = UNSET,
        deduplicate: Union[bool, Unset] = UNSET,
        idempotency_key: Optional[str] = None,
    ) -> Job:
        """Queues a job. The recipe is planned first: one that cannot work raises `RecipeRefused`.

        Sent again after a broken connection it makes no second job: it carries a key of its own, unless you give one.
        """
        return await self._operations.create_job(
            model=model,
            recipe=recipe,
            formats=UNSET if formats is None else list(formats),
            metadata=UNSET if metadata is None else metadata,
            priority=priority,
            deduplicate=deduplicate,
            idempotency_key=idempotency_key,
        )

    async def get(self, job: str) -> Job:
        """A job, by its id."""
        return await self._operations.get_job(job)

    def list(self, *, status: Optional[str] = None, model: Optional[str] = None) -> AsyncIterator[Job]:
        """Every job, newest first, page by page."""
        return entries(self._operations.list_jobs, status=status, model=model)

    async def cancel(self, job: str) -> Job:
        """Asks a job to end."""
        return await self._operations.cancel_job(job)

    async def events(self, job: str, *, after: int = 0) -> Stream[Event]:
        """A job's events as they happen, from the first or after a `seq`, until the one that ends the job."""
        following = self._follow(job, after, None)
        try:
            async for sent in following:
                if isinstance(sent, Event):
                    yield sent
        finally:
            await following.aclose()

    async def wait(
        self, job: str, *, timeout: Optional[float] = None, progress: Progress = None, check: bool = True
    ) -> Job:
        """Waits until a job is over; raises `JobFailed` if it did not succeed, unless `check` is false.

        After `timeout` seconds it raises `WaitTimeout`; the job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with task(progress, f"job {job}", 100, "%") as shown:
            ended = await self._until_over(job, deadline, lambda now: shown.at(100 * now.progress, stage(now)))
            if ended.status == "succeeded":
                shown.at(100)
        if check and ended.status != "succeeded":
            raise JobFailed(ended)
        return ended

    async def report(self, job: str) -> AsyncReport:
        """What changed and what it cost, of a job that has succeeded or missed a quality gate."""
        return AsyncReport(await self._operations.get_job_report(job), job, self._operations)

    async def analysis(self, job: str) -> AsyncAnalysis:
        """What an analysis found."""
        return AsyncAnalysis(await self._operations.get_job_report(job), job, self._operations)

    async def _until_over(self, job: str, deadline: Optional[float], see: Any) -> Job:
        following = self._follow(job, 0, deadline)
        try:
            async for sent in following:
                if isinstance(sent, Job):
                    see(sent)
        finally:
            await following.aclose()
        return await self.get(job)

    async def _follow(self, job: str, after: int, deadline: Optional[float]) -> Stream[Union[Event, Job]]:
        """Events, and between them the job as it is while it runs."""
        seen, failures, pause = after, 0, 2.0
        while True:
            began, parser = seen, Parser()
            try:
                async with self._sender.stream(
                    "GET",
                    f"/v1/jobs/{escaped(job)}/events",
                    headers={"Accept": "text/event-stream", "Last-Event-ID": seen or None},
                    timeout=_silence(job, deadline),
                ) as answer:
                    if answer.status_code == 204:
                        return
                    async for piece in answer.aiter_bytes():
                        for sent in parser.feed(piece):
                            if sent.kind == "progress":
                                yield Job.from_json(json.loads(sent.data))
                                continue
                            event = Event.from_json(json.loads(sent.data))
                            seen = event.seq
                            yield event
                        _check_time(job, deadline)
            except APIError as error:
                if error.code != "overloaded":
                    raise
                # All event streams are taken. The job before its events: if it is over by then, its last is among them.
                now = await self.get(job)
                page = await self._operations.list_job_events(job, after=seen, limit=100)
                for event in page.data:
                    seen = event.seq
                    yield event
                if now.status in OVER and not page.has_more:
                    return
                yield now
                _check_time(job, deadline)
                await sleep(0 if page.has_more else pause)
                continue
            except ConnectionFailed:
                _check_time(job, deadline)
                failures = 1 if seen > began else failures + 1
                given_up = self._sender.retries.pause(failures) is None
                if given_up:
                    raise
                await sleep(parser.retry or pause)
                continue
            # The server ends the stream after the last event, and when it is going down: asking again tells which.
            failures = 0
            if seen == began:
                await sleep(parser.retry or pause)


def stage(job: Job) -> str:
    """What a job is at, in a word."""
    if job.status == "queued" and job.waiting_for:
        return f"waits: {job.waiting_for}"
    return f"{job.stage.name} ({job.stage.index + 1}/{job.stage.of})" if job.stage else job.status


def _silence(job: str, deadline: Optional[float]) -> float:
    _check_time(job, deadline)
    left = _SILENCE_SECONDS if deadline is None else deadline - time.monotonic()
    return max(0.05, min(_SILENCE_SECONDS, left))


def _check_time(job: str, deadline: Optional[float]) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise WaitTimeout(f"job {job} is not over yet; it goes on")
