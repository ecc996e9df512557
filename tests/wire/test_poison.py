"""Inputs that kill their worker, sent again and again: what the others get."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.offload import admission
from service.offload.process_lane import ProcessLane
from tests.support.running import Running, Start, status_of
from tests.support.waiting import eventually

processes = pytest.mark.parametrize("offload", ["process", "executor"])
POISON = "/data?name=poison"
GOOD = "/data?name=good"


async def statuses(service: Running, *paths: str) -> list[int]:
    return [status_of(answer) for answer in await asyncio.gather(*map(service.get, paths))]


@processes
async def test_poison_that_is_sent_again_and_again_costs_two_workers_and_nobody_an_answer(
    start: Start, offload: str
) -> None:
    service = await start(offload=offload, workers=2, work="tests.work:kills_if_poison", queue_wait="off")
    with capture_logs() as lines:
        for _ in range(10):
            poison, *good = await statuses(service, POISON, *[GOOD] * 5)
            assert poison == 500
            assert good == [200] * 5
    values = await service.scrape()
    breaks = values["offload_worker_restarts_total{reason=crashed}"] / (1 if offload == "process" else 2)
    assert breaks == 2
    assert values["offload_tasks_total{outcome=killed}"] == 1
    assert values["offload_tasks_total{outcome=quarantined}"] == 9
    assert [line["event"] for line in lines].count("call quarantined") == 1
    assert service.service.ready() == (True, "serving")


@processes
async def test_with_one_attempt_the_second_request_is_the_last_that_kills(start: Start, offload: str) -> None:
    service = await start(offload=offload, workers=2, work="tests.work:kills_if_poison", task_attempts=1)
    assert [*await statuses(service, POISON), *await statuses(service, POISON)] == [500, 500]
    assert await statuses(service, POISON, GOOD) == [500, 200]
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=killed}"] == 2
    assert values["offload_tasks_total{outcome=quarantined}"] == 1


@processes
async def test_the_breaker_is_probed_without_a_request(
    start: Start, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "FIRST_PROBE_SECONDS", 1.0)  # so that it is seen open
    service = await start(offload=offload, workers=1, work="tests.work:kills_if_poison")
    with capture_logs() as lines:
        got: list[int] = []
        for number in range(4):  # each kills two workers, and the fourth death is one too many
            got += await statuses(service, f"{POISON}{number}")
            if not service.service.ready()[0]:
                break
        assert got[0] == 500
        assert service.service.ready() == (False, "workers keep dying")
        await eventually(lambda: "workers stay up again" in [line["event"] for line in lines])
    assert service.service.ready() == (True, "serving")
    assert await statuses(service, GOOD) == [200]


async def test_what_killed_nobody_has_a_worker_free_of_what_did(start: Start, tmp_path: Path) -> None:
    service = await start(
        offload="process", workers=2, work="tests.work:kills_once_then_waits", queue_wait=1e-9, deadline=60
    )
    go = f"{tmp_path}/go"
    paths = [f"/data?trace={tmp_path}/{number}&go={go}" for number in range(3)]
    held = service.clients = [asyncio.create_task(service.get(path)) for path in paths]
    offload = service.service.parts.offload

    async def all_have_killed() -> bool:
        return (await service.scrape())["offload_worker_restarts_total{reason=crashed}"] == 3

    await eventually(all_have_killed)
    await eventually(lambda: (offload.running, offload.waiting) == (1, 2), "suspects share one worker")
    assert await statuses(service, "/data?trace=none&go=none") == [200]
    (tmp_path / "go").touch()
    assert [status_of(answer) for answer in await asyncio.gather(*held)] == [200] * 3


async def test_where_all_requests_are_the_same_call_an_accident_stops_nobody(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(offload="process", workers=2, work="tests.work:dies_while_there_is_a_file")
    path = f"/data?path={tmp_path / 'trace'}"
    ready = asyncio.Event()
    begin = ProcessLane.start

    async def late(self: ProcessLane, packed: object) -> None:
        await ready.wait()
        await begin(self, packed)

    monkeypatch.setattr(ProcessLane, "start", late)
    (tmp_path / "trace").touch()
    unlucky = asyncio.create_task(service.get(path))
    await service.shows("offload_worker_restarts_total{reason=crashed}")
    assert await statuses(service, path) == [200], "the other worker is there for it"
    assert status_of(await unlucky) == 200, "and then it is clear that it was an accident"
    ready.set()
