"""An executor that a factory makes: what breaks it, what is lost with it, and what its place is worth."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from metrics.instruments import Metrics, TaskOutcome
from service.offload import any_executor, executor_pool, supervised_pool
from service.offload.admission import Admission
from service.offload.errors import ExpiredError, RejectedError, WorkerLostError, WorkError, WorkerStartError
from service.offload.offload import Offload
from service.offload.strategies import pool_for
from tests.support.waiting import eventually


class Engine:
    """Runs each call at once, but keeps those of `str` until a test says what becomes of them.

    Its futures never say that they run, as Dask's do not: each could be cancelled.
    """

    def __init__(self) -> None:
        self.held: dict[str, tuple[Future[Any], Callable[[], Any]]] = {}
        self.refuses: Exception | None = None
        self.shutdowns: list[bool] = []
        self.shut_down = threading.Event()
        self.began_on: list[int] = []
        self.may_shut_down = threading.Event()
        self.may_shut_down.set()

    def submit(self, function: Callable[..., Any], packed: bytes, *more: Any) -> Future[Any]:
        if self.refuses is not None:
            raise self.refuses
        self.began_on.append(threading.get_ident())
        future: Future[Any] = Future()
        work, args = pickle.loads(packed)
        if work is str:
            self.held[args[0]] = future, lambda: function(packed, *more)
        else:
            future.set_result(function(packed, *more))
        return future

    def finishes(self, *names: str) -> None:
        for name in names:
            future, call = self.held.pop(name)
            future.set_result(call())

    def loses(self, name: str, error: Exception) -> None:
        self.held.pop(name)[0].set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shutdowns.append(wait)
        assert wait is not cancel_futures, "what is given up begins nothing more"
        self.shut_down.set()
        if wait:
            self.may_shut_down.wait(20)


class Bench:
    """An offload over such engines, two workers each."""

    def __init__(self, **more: Any) -> None:
        self.engines: list[Engine] = []
        self.away: Exception | None = None
        self.tries = 0
        self.metrics = Metrics()
        pool = pool_for("executor", 2, 0, self.metrics, None, 100, lambda: self.make())
        self.offload = Offload(pool, self.metrics, Admission(2, seconds=0.03), **more)

    def make(self) -> Engine:
        self.tries += 1
        if self.away is not None:
            raise self.away
        self.engines.append(Engine())
        return self.engines[-1]

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def outcomes(self) -> dict[str, float]:
        counts = {name: self.count("offload_tasks_total", outcome=name) for name in TaskOutcome}
        return {name: count for name, count in counts.items() if count}

    async def submitted(self, *names: str, **more: Any) -> dict[str, asyncio.Task[Any]]:
        callers = {name: asyncio.create_task(self.offload.submit(str, name, **more)) for name in names}
        for _ in range(5):
            await asyncio.sleep(0)
        return callers

    async def holds(self, *names: str) -> Engine:
        """The newest engine, once it has been handed just these."""
        await eventually(lambda: bool(self.engines) and [*self.engines[-1].held] == [*names], f"{names}")
        return self.engines[-1]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(executor_pool, "RETRY_SECONDS", 0.01)
    made = Bench()
    await made.offload.start(divmod, 7, 2)
    yield made
    for engine in made.engines:
        engine.may_shut_down.set()
        engine.finishes(*engine.held)
    await made.offload.stop(5)


async def test_workers_are_started_beside_the_loop(bench: Bench) -> None:
    (engine,) = bench.engines
    assert threading.get_ident() not in engine.began_on[:2]
    assert len(engine.began_on) > 2


async def test_all_workers_overdue_for_long_is_not_ready(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = await bench.submitted("a", "b", deadline=0.1, limit=0.1)
    engine = await bench.holds("a", "b")
    for caller in callers.values():
        with pytest.raises(ExpiredError):
            await caller
    assert bench.offload.healthy, "a client may have asked for a deadline of milliseconds"
    monkeypatch.setattr(executor_pool, "HANG_SECONDS", 0.0)
    await eventually(lambda: not bench.offload.healthy)
    assert bench.offload.trouble == "all workers are overdue"
    with pytest.raises(RejectedError):
        await bench.offload.submit(divmod, 7, 2)
    engine.finishes("a")
    await eventually(lambda: bench.offload.healthy, "one is free")
    assert await bench.offload.submit(divmod, 7, 2) == (3, 1)


async def test_what_the_work_raises_is_the_works_and_breaks_nothing(bench: Bench) -> None:
    assert await bench.offload.submit(divmod, 7, 2) == (3, 1)
    with pytest.raises(WorkError, match="ZeroDivisionError"):
        await bench.offload.submit(divmod, 7, 0)
    with pytest.raises(WorkError, match="are allowed"):
        await bench.offload.submit(bytes, 101)
    assert len(bench.engines) == 1
    assert bench.count("offload_worker_restarts_total", reason="crashed") == 0


async def test_a_wait_is_told_by_one_clock(bench: Bench) -> None:
    callers = await bench.submitted("a")
    engine = await bench.holds("a")
    began = time.monotonic()
    await asyncio.sleep(0.05)  # a loop's own clock may be a little ahead of this one
    held = time.monotonic() - began
    engine.finishes("a")
    assert await callers["a"] == "a"
    waited = bench.count("offload_queue_wait_seconds_sum")
    assert waited is not None
    assert waited >= held


@pytest.mark.parametrize("how", ["raises", "cancels"])
async def test_whatever_the_work_has_not_raised_breaks_it_and_no_task_is_lost(bench: Bench, how: str) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
    callers = await bench.submitted("a", "b", "c")
    first = await bench.holds("a", "b")
    late, call = first.held.pop("b")
    if how == "raises":
        first.loses("a", OSError("no route to host"))
    else:
        first.held.pop("a")[0].cancel()
    for name in "abc":
        (await bench.holds(name)).finishes(name)  # "c" came after it broke, and is nobody's neighbour
        assert await callers[name] == name
    late.set_result(call())  # an executor that broke is believed no more
    for _ in range(5):
        await asyncio.sleep(0)
    assert not errors
    assert len(bench.engines) == 2
    assert first.shutdowns
    assert bench.outcomes() == {"completed": 3}
    assert bench.count("offload_worker_restarts_total", reason="crashed") == 2


async def test_a_task_that_is_to_be_tried_once_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_pool, "RETRY_SECONDS", 0.01)
    bench = Bench(attempts=1)
    await bench.offload.start()
    callers = await bench.submitted("a")
    (await bench.holds("a")).loses("a", OSError())
    with pytest.raises(WorkerLostError):
        await callers["a"]
    await bench.offload.stop()


async def test_what_it_refuses_to_take_has_used_up_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_pool, "RETRY_SECONDS", 0.01)
    bench = Bench(attempts=1)
    await bench.offload.start()
    bench.engines[0].refuses = RuntimeError("cannot schedule new futures after shutdown")
    callers = await bench.submitted("a")
    (await bench.holds("a")).finishes("a")
    assert await callers["a"] == "a"
    await bench.offload.stop()


async def test_a_task_past_its_deadline_keeps_its_place_and_is_counted_as_overdue(bench: Bench) -> None:
    late = await bench.submitted("a", "b", deadline=0.05)
    for caller in late.values():
        with pytest.raises(ExpiredError):
            await caller
    engine = await bench.holds("a", "b")
    assert not any(future.cancelled() for future, _ in engine.held.values())
    assert bench.count("offload_overdue") == 2
    callers = await bench.submitted("c")
    assert [*engine.held] == ["a", "b"], "no place is given to two"
    engine.finishes("a")
    (await bench.holds("b", "c")).finishes("c")
    assert await callers["c"] == "c"
    assert bench.count("offload_overdue") == 1
    engine.finishes("b")
    await eventually(lambda: bench.count("offload_overdue") == 0)


async def test_an_engine_that_is_away_is_told_and_used_as_soon_as_it_is_back(bench: Bench) -> None:
    assert bench.offload.healthy
    callers = await bench.submitted("a")
    engine = await bench.holds("a")
    bench.away = ConnectionRefusedError("10.0.0.7")
    engine.loses("a", OSError())
    await eventually(lambda: not bench.offload.healthy)
    assert bench.offload.trouble == "no worker can be started: ConnectionRefusedError"
    with pytest.raises(RejectedError):
        await bench.offload.submit(str, "b")
    await eventually(lambda: bench.tries > supervised_pool.FAILED_STARTS + 1, seconds=10)
    assert not bench.offload.stuck, "to start this service anew would not help"
    bench.away = None
    (await bench.holds("a")).finishes("a")
    assert await callers["a"] == "a"
    assert bench.offload.healthy


async def test_an_engine_that_is_slow_to_come_back_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    make = bench.make
    monkeypatch.setattr(executor_pool, "AWAY_SECONDS", 0.05)

    def slowly() -> Engine:
        gate.wait(20)
        return make()

    monkeypatch.setattr(bench, "make", slowly)
    callers = await bench.submitted("a")
    (await bench.holds("a")).loses("a", OSError())
    assert bench.offload.healthy, "as after any death"
    await eventually(lambda: not bench.offload.healthy)
    assert bench.offload.trouble == "no worker can be started"
    gate.set()
    (await bench.holds("a")).finishes("a")
    assert await callers["a"] == "a"


async def test_an_engine_that_breaks_idle_is_replaced_before_the_next_request(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(any_executor, "PULSE_SECONDS", 0.01)
    bench = Bench()
    await bench.offload.start()
    bench.engines[0].refuses = ConnectionError("the client is closed")
    await eventually(lambda: len(bench.engines) == 2 and bench.offload.healthy)
    assert bench.offload.running == bench.offload.waiting == 0
    (broken,) = (line for line in logged() if line["event"] == "executor broken")
    assert "the client is closed" in broken["error"]
    await bench.offload.stop()


async def test_what_is_no_executor_is_refused_with_a_sentence() -> None:
    metrics = Metrics()
    offload = Offload(pool_for("executor", 1, 0, metrics, None, 1, lambda: 7), metrics)
    with pytest.raises(WorkerStartError, match="the factory returned int, which is no executor"):
        await offload.start()
    await offload.stop()


async def test_a_shut_down_that_hangs_holds_nobody_up(bench: Bench) -> None:
    callers = await bench.submitted("a")
    engine = await bench.holds("a")
    engine.may_shut_down.clear()
    async with asyncio.timeout(10):
        assert await bench.offload.stop(0.05) == 1
    with pytest.raises(WorkerLostError):
        await callers["a"]


async def test_what_runs_at_the_stop_may_finish_before_it_is_shut_down(bench: Bench) -> None:
    callers = await bench.submitted("a")
    engine = await bench.holds("a")
    stopping = asyncio.create_task(bench.offload.stop(20))
    waits = asyncio.create_task(asyncio.to_thread(engine.shut_down.wait, 0.2))
    assert not await waits, "some cancel what they have"
    engine.finishes("a")
    assert await stopping == 0
    assert await callers["a"] == "a"
    assert engine.shutdowns == [True]


async def test_one_that_can_kill_its_workers_does(bench: Bench) -> None:
    killed = threading.Event()
    engine = bench.engines[0]
    engine.kill_workers = killed.set  # type: ignore[attr-defined]
    callers = await bench.submitted("a")
    await bench.holds("a")
    assert await bench.offload.stop(0.05) == 1
    assert killed.wait(10)
    with contextlib.suppress(WorkerLostError):
        await callers["a"]


async def test_one_that_comes_too_late_is_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.offload.supervised_pool.START_SECONDS", 0.02)
    monkeypatch.setattr("service.offload.supervised_pool.STOP_SECONDS", 0.02)
    gate, metrics, engine = threading.Event(), Metrics(), Engine()

    def late() -> Engine:
        gate.wait(20)
        return engine

    offload = Offload(pool_for("executor", 1, 0, metrics, None, 1, late), metrics)
    with pytest.raises(WorkerStartError, match="not up after"):
        await offload.start()
    await offload.stop()
    gate.set()
    await eventually(lambda: engine.shutdowns)
