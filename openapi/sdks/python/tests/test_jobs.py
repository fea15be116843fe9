"""Jobs followed through breaks, lists, searches, analyses, plans."""
from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import tiny
from service import Server
from test_uploads import Breaking
from tiny import SMALL

from modelpress import APIError, Client, Event, Model, Retries, SearchFailed
from modelpress._sse import Parser


def test_events_from_the_first_to_the_last(client: Client, model: Model) -> None:
    job = client.jobs.create(model.id, "Q8_0")
    events = list(client.jobs.events(job.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].data == {"status": "queued"} and events[-1].data["status"] == "succeeded"
    assert list(client.jobs.events(job.id, after=events[-2].seq)) == events[-1:]
    assert list(client.jobs.events(job.id, after=events[-1].seq)) == [], "204, and it ends"
    assert client.operations.list_job_events(job.id, limit=2).data == events[:2]


def test_a_broken_stream_goes_on_after_the_last_event(server: Server, model: Model, tmp_path: Path) -> None:
    """Each connection ends after 900 bytes of answer, which is one or two events."""
    way = Breaking(server, after=900, times=3, incoming=True)
    try:
        with Client(way.url, retries=Retries(first_pause=0.01), cache_dir=tmp_path) as client:
            direct = Client(server.url, cache_dir=tmp_path)
            job = direct.compress(model, "Q8_0").job
            events: list[Event] = []
            thread = threading.Thread(target=lambda: events.extend(client.jobs.events(job.id)))
            thread.start()
            thread.join(30)
            assert not thread.is_alive() and way.left == 0, "it broke three times, and ended"
            assert events == list(direct.jobs.events(job.id)), "nothing twice, nothing missing"
            direct.close()
    finally:
        way.close()


def test_where_all_streams_are_taken_jobs_are_asked_for(tmp_path: Path) -> None:
    """One stream is allowed, and somebody else has it."""
    server = Server(tmp_path, "--max-event-streams", "1")
    try:
        with Client(server.url, cache_dir=tmp_path / "cache") as client:
            model = client.models.upload(tiny.write(tmp_path / "tiny"))
            client.operations.create_job(model=model.id, recipe="Q8_0")
            low = client.jobs.create(model.id, "IQ3_S", priority=-100)
            holding = client.jobs.events(low.id)
            next(holding)
            job = client.jobs.create(model.id, "Q4_0", priority=100)
            with pytest.raises(APIError, match="overloaded"):
                with client.operations.list_job_events_stream(job.id):
                    pass
            assert client.jobs.wait(job.id, timeout=60).status == "succeeded"
            polled = list(client.jobs.events(job.id))
            holding.close()
            assert polled == list(client.jobs.events(job.id)) and len(polled) > 3
    finally:
        server.stop()


def test_the_parser_does_not_mind_where_bytes_are_cut() -> None:
    stream = b": hi\r\nretry: 1500\n\nid: 7\nevent: state\r\ndata: {\ndata:  \xc3\xa4}\n\n\ndata\n\nid: 8\ndata: x\r\r"
    whole = list(Parser().feed(stream))
    assert [(e.id, e.kind, e.data) for e in whole][:2] == [("7", "state", "{\n ä}"), (None, "message", "")]
    for size in range(1, 9):
        parser = Parser()
        cut = [e for at in range(0, len(stream), size) for e in parser.feed(stream[at : at + size])]
        assert cut[:2] == whole[:2] and parser.retry == 1.5


def test_lists_go_over_pages(client: Client, model: Model) -> None:
    made = [client.jobs.create(model.id, "Q8_0", metadata={"n": str(n)}) for n in range(3)]
    ids = {job.id for job in client.jobs.list(model=model.id)}
    assert ids >= {job.id for job in made}
    small = []

    def two_at_a_time(**filters: Any) -> Any:
        page = client.operations.list_jobs(**{**filters, "limit": 2})
        small.append(len(page.data))
        return page

    assert {job.id for job in client.entries(two_at_a_time, model=model.id)} == ids
    assert len(small) > 1 and max(small) == 2
    for job in made:
        client.jobs.wait(job.id)


def test_a_plan_says_what_would_come_out(client: Client, model: Model) -> None:
    plan = client.plan(model, "Q4_K_M").plan
    planned = plan["formats"][0]["bytes"]
    assert client.compress(model, "Q4_K_M").report.bytes == planned


def test_an_analysis(client: Client, model: Model) -> None:
    analysis = client.analyze(model, progress=False)
    assert analysis.model["parameters"] == model.parameter_count
    assert {"Q8_0", "W8A16"} <= {preset["preset"] for preset in analysis.presets}
    assert "<table>" in analysis._repr_html_() and "Q8_0" in analysis._repr_html_()
    assert len(analysis.to_pandas()) == 21 and analysis.html().lstrip().startswith("<!")


def test_a_search_and_its_front(client: Client, model: Model) -> None:
    refused = {"preset": "W4A16", "options": {"group_size": 48}}
    found = client.search(
        model,
        ["Q8_0", refused],
        grid={"recipe": {"preset": "Q4_0"}, "vary": {"/preset": ["Q4_0", "Q5_0"]}},
        evaluation=SMALL,
    )
    assert found.status == "succeeded" and len(found.points) == 4
    assert {point.status for point in found.points} == {"succeeded", "refused"}
    sizes = [point.result.bytes for point in found.front if point.result]
    assert len(sizes) >= 2 and sizes == sorted(sizes)
    best = found.best("quality")
    assert best and best.result and best.on_front
    assert "does not divide" in found._repr_html_()
    assert found.id in {entry.id for entry in client.searches.list()}
    assert client.searches.get(found.id).front == found.front

    with pytest.raises(SearchFailed, match="failed"):
        client.search(model, [{"preset": "Q2_K", "evaluation": SMALL, "gates": {"max_kl": 1e-9}}])
