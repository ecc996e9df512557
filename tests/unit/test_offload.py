"""The one interface over three strategies: results, refusals, deadlines, and a count for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from metrics.exposition import parse
from metrics.instruments import OUTCOMES, Metrics
from service.offload import (
    ExpiredError,
    Offload,
    RejectedError,
    Strategy,
    WorkerLostError,
    WorkError,
    WorkerStartError,
)
from tests import work

Make = Callable[..., Awaitable["Bench"]]


class Bench:
    """An offload with its counters."""

    def __init__(self, offload: Offload, metrics: Metrics) -> None:
        self.offload, self.metrics = offload, metrics

    def outcomes(self) -> dict[str, float]:
        """Outcomes that are not zero."""
        counts = {
            name: self.metrics.registry.get_sample_value("offload_tasks_total", {"outcome": name})
            for name in OUTCOMES
        }
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Offload] = []

    async def _make(
        strategy: Strategy, workers: int = 1, admit: Callable[[int, int], bool] | None = None
    ) -> Bench:
        metrics = Metrics()
        offload = Offload(strategy, workers, 0, metrics, *([admit] if admit else []))
        made.append(offload)
        await offload.start()
        return Bench(offload, metrics)

    yield _make
    for offload in made:
        await offload.stop()


@pytest.mark.parametrize("strategy", ["inline", "thread", "process"])
async def test_the_result_comes_back_and_errors_as_they_are(make: Make, strategy: Strategy) -> None:
    bench = await make(strategy)
    assert await bench.offload.submit(divmod, 7, 2) == (3, 1)
    with pytest.raises(WorkError, match="ZeroDivisionError") as caught:
        await bench.offload.submit(divmod, 7, 0)
    assert "Traceback" in caught.value.details
    assert bench.outcomes() == {"completed": 1, "failed": 1}
    assert (bench.offload.waiting, bench.offload.running) == (0, 0)


@pytest.mark.parametrize("strategy", ["inline", "thread", "process"])
@pytest.mark.parametrize("function", [work.exits, work.stops_iterating, work.raises_what_cannot_be_pickled])
async def test_no_exception_of_the_work_can_do_more_than_fail_its_request(
    make: Make, strategy: Strategy, function: Callable[[int], bytes]
) -> None:
    bench = await make(strategy)
    with pytest.raises(WorkError):
        await bench.offload.submit(function, 1)
    assert await bench.offload.submit(divmod, 7, 2) == (3, 1)
    assert bench.outcomes() == {"completed": 1, "failed": 1}


async def test_work_that_cannot_reach_a_worker_is_refused_at_start() -> None:
    offload = Offload("process", 1, 0, Metrics())
    with pytest.raises(WorkerStartError, match=r"(?i)pickle"):
        await offload.start(work.no_way_to_pickle_me, 1)
    await offload.stop()


async def test_stopping_cuts_off_what_outlives_its_time(make: Make, tmp_path: Path) -> None:
    bench = await make("process")
    begun = tmp_path / "begun"
    caller = asyncio.create_task(bench.offload.submit(work.begins_and_stays, str(begun)))
    async with asyncio.timeout(20):
        while not begun.exists():  # a call still in the pool's pipe would be cancelled and not cut off
            await asyncio.sleep(0.005)
    assert await bench.offload.stop(0.05) == 1
    with pytest.raises(WorkerLostError):
        await caller
    assert (
        bench.metrics.registry.get_sample_value("offload_worker_restarts_total", {"reason": "crashed"}) == 0
    )


async def test_what_admission_refuses_is_never_started(make: Make) -> None:
    bench = await make("inline", admit=lambda _waiting, _running: False)
    called: list[int] = []
    with pytest.raises(RejectedError):
        await bench.offload.submit(called.append, 1)
    assert not called
    assert bench.outcomes() == {"rejected": 1}


async def test_admission_sees_what_waits_and_what_runs(make: Make) -> None:
    seen: list[tuple[int, int]] = []

    def admit(waiting: int, running: int) -> bool:
        seen.append((waiting, running))
        return True

    bench = await make("thread", admit=admit)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(bench.offload.submit(time.sleep, 0.01))
    assert seen == [(0, 0), (0, 1), (1, 1)]


async def test_a_passed_deadline_is_expired_and_the_place_is_free(make: Make) -> None:
    bench = await make("thread")
    with pytest.raises(ExpiredError):
        await bench.offload.submit(time.sleep, 0.2, deadline=0.01)
    assert bench.outcomes() == {"expired": 1}
    assert bench.offload.running == 1  # a thread cannot be stopped: its place is taken until it is done
    async with asyncio.timeout(20):
        while bench.offload.running:
            await asyncio.sleep(0.005)


async def test_a_timeout_of_the_work_itself_is_a_failure(make: Make) -> None:
    def work() -> None:
        raise TimeoutError("mine")

    bench = await make("inline")
    with pytest.raises(WorkError, match="TimeoutError: mine"):
        await bench.offload.submit(work, deadline=10)
    assert bench.outcomes() == {"failed": 1}


async def test_a_caller_that_leaves_is_counted_as_cancelled(make: Make) -> None:
    bench = await make("thread")
    caller = asyncio.create_task(bench.offload.submit(time.sleep, 0.05))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert bench.outcomes() == {"cancelled": 1}


async def test_a_dead_worker_fails_its_task_and_is_replaced_once(make: Make) -> None:
    bench = await make("process")
    both = await asyncio.gather(
        *(bench.offload.submit(work.kills_its_worker, 2) for _ in range(2)), return_exceptions=True
    )
    assert [type(error) for error in both] == [WorkerLostError, WorkerLostError]
    assert (
        bench.metrics.registry.get_sample_value("offload_worker_restarts_total", {"reason": "crashed"}) == 1
    )
    assert await bench.offload.submit(divmod, 7, 2) == (3, 1)
    assert bench.outcomes() == {"killed": 2, "completed": 1}


async def test_a_worker_reports_its_wait_and_its_cpu(make: Make) -> None:
    bench = await make("thread")
    await asyncio.gather(*(bench.offload.submit(time.sleep, 0.05) for _ in range(2)))
    values = parse(generate_latest(bench.metrics.registry).decode())
    assert values["offload_queue_wait_seconds_sum"] >= 0.04  # the second waited for the first
    assert values["offload_task_cpu_seconds_sum"] < 0.05  # sleeping costs none
