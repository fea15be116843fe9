"""The async client: the same text, and the places where the two differ."""
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Awaitable, Callable, Coroutine, List

import pytest
import tiny
from service import Server
from test_uploads import Breaking, large
from tiny import SMALL

from modelpress import AsyncClient, Client, JobFailed, Model, RecipeRefused, Retries, WaitTimeout
from modelpress._async.seam import Group as AsyncGroup
from modelpress._sync.seam import Group


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def test_one_call(server: Server, folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(server.url, cache_dir=tmp_path / "cache") as client:
            result = await client.compress(folder, recipe="Q4_K_M", out=tmp_path / "out", evaluation=SMALL)
            assert (tmp_path / "out" / "gguf" / "model-Q4_K_M.gguf") in result.files
            assert result.report.measure("kl") and (await result.report.html()).lstrip().startswith("<!")
            assert "<svg" in result._repr_html_()
            with pytest.raises(RecipeRefused, match="/recipe/options/group_size"):
                await client.compress(result.job.model, {"preset": "W4A16", "options": {"group_size": 48}})
            with pytest.raises(JobFailed, match="quality_gate"):
                await client.compress(result.job.model, "Q2_K", evaluation=SMALL, gates={"max_kl": 1e-9})

    run(work)


def test_jobs_side_by_side_with_their_events(server: Server, model: Model, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(server.url, cache_dir=tmp_path) as client:

            async def one(recipe: str) -> List[int]:
                job = await client.jobs.create(model.id, recipe)
                return [event.seq async for event in client.jobs.events(job.id)]

            for seen in await asyncio.gather(*(one(recipe) for recipe in ("Q8_0", "Q4_0", "W8A16"))):
                assert seen == list(range(1, len(seen) + 1))
            assert len([job async for job in client.jobs.list(model=model.id)]) >= 3
            analysis = await client.analyze(model)
            assert analysis.presets
            found = await client.search(model, ["Q8_0", "Q4_0"], evaluation=SMALL)
            assert len(found.front) == 2

    run(work)


def test_an_upload_that_breaks(server: Server, tmp_path: Path) -> None:
    way = Breaking(server, after=3_000_000, times=2)

    async def work() -> None:
        async with AsyncClient(way.url, cache_dir=tmp_path / "cache", retries=Retries(first_pause=0.05)) as client:
            model = await client.models.upload(large(tmp_path / "large"))
            assert model.status == "ready" and way.left == 0

    try:
        run(work)
    finally:
        way.close()


def test_one_that_fails_stops_the_others() -> None:
    """What the first one raises comes out, and the rest ends with it."""
    running: List[str] = []

    async def work() -> None:
        group = AsyncGroup(2)

        def call(name: str, seconds: float) -> Callable[[], Awaitable[None]]:
            async def one() -> None:
                running.append(name)
                await asyncio.sleep(seconds)
                if name == "bad":
                    raise ValueError(name)
                running.append(f"{name} ended")

            return one

        with pytest.raises(ValueError):
            await group.run([call("long", 30), call("bad", 0.01), call("later", 0)])
        assert running == ["long", "bad"] and group.stopped.is_set()

    run(work)
    group = Group(2)

    def bad() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        group.run([lambda: group.stopped.wait(30), bad])
    assert group.stopped.is_set(), "the first was told, and ended before its half minute"


def test_cancelling_a_wait_leaves_the_job_or_ends_it(tmp_path: Path) -> None:
    idle = Server(tmp_path, "--workers", "0")

    async def work() -> None:
        async with AsyncClient(idle.url, cache_dir=tmp_path / "cache") as client:
            model = await client.models.upload(tiny.write(tmp_path / "tiny"))
            with pytest.raises(WaitTimeout):
                await client.compress(model, "Q8_0", timeout=0.3)
            for cancel, expected in ((False, "queued"), (True, "cancelled")):
                waiting = asyncio.ensure_future(client.compress(model, "Q8_0", cancel_on_interrupt=cancel))
                await asyncio.sleep(0.7)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                newest = [job async for job in client.jobs.list()][0]
                assert newest.status == expected

    try:
        run(work)
    finally:
        idle.stop()


def test_both_clients_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name.replace("aenter", "enter").replace("aexit", "exit") for name in vars(kind)}

    assert names(AsyncClient) == names(Client)
