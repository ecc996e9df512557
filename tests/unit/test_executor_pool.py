"""Work in a `ProcessPoolExecutor` as it comes: what is in it, what is lost with it, what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from typing import Any, ClassVar

import pytest

from metrics.instruments import Metrics, TaskOutcome
from service.offload.admission import Admission
from service.offload.errors import (
    ExpiredError,
    OffloadError,
    RejectedError,
    WorkerLostError,
    WorkError,
)
from service.offload.executor_pool import ExecutorPool
from service.offload.offload import Offload
from service.offload.worker_main import Done


class Scripted:
    """An executor that keeps what it is handed until a test says what became of it."""

    made: ClassVar[list[Scripted]]

    def __init__(self, count: int, nice: int, died: Callable[[Any], Any], most_result: float = 0) -> None:  # noqa: ARG002  # an executor's signature
        self.made.append(self)
        self.count, self.nice, self.died = count, nice, died
        self.futures: dict[str, asyncio.Future[Done]] = {}
        self.broken = False
        self.killed = 0

    @staticmethod
    def pack(_function: Callable[..., Any], args: tuple[Any, ...], /) -> Any:
        return args[0].encode()  # pickled, as far as our side can tell

    @staticmethod
    def unpack(result: Any, /) -> Any:
        return result.decode()

    async def start(self, packed: Any) -> None:
        pass

    async def ask(self, packed: Any) -> Done:
        raise NotImplementedError

    def submit(self, packed: Any, submitted: float, until: float) -> asyncio.Future[Done]:  # noqa: ARG002  # an executor's signature
        if self.broken:
            raise BrokenExecutor
        name = packed.decode()
        self.futures[name] = asyncio.get_running_loop().create_future()
        return self.futures[name]

    def finishes(self, *names: str) -> None:
        for name in names:
            self.futures.pop(name).set_result(Done(name.encode(), None, 0.0, 0.005, 0.001, 0))

    def breaks(self) -> None:
        self.broken = True
        while self.futures:
            self.futures.popitem()[1].set_exception(BrokenExecutor())

    def kill(self) -> bool:
        self.killed += 1
        return True

    async def stop(self) -> None:
        pass


class Bench:
    """An offload over scripted executors of two workers, each handed two tasks at most."""

    def __init__(self) -> None:
        self.executors: list[Scripted] = []
        self.metrics = Metrics()

    def make(self, **more: Any) -> Offload:
        class Ours(Scripted):
            made = self.executors

        return Offload(
            lambda observer: ExecutorPool(Ours, 2, 0, self.metrics, observer),
            self.metrics,
            Admission(2, seconds=0.01),
            **more,
        )

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def outcomes(self) -> dict[str, float]:
        counts = {name: self.count("offload_tasks_total", outcome=name) for name in TaskOutcome}
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def turn() -> None:
    """Let what is due happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def submitted(offload: Offload, names: Iterable[str], **more: Any) -> dict[str, asyncio.Task[Any]]:
    callers = {name: asyncio.create_task(offload.submit(str, name, **more)) for name in names}
    await turn()
    return callers


async def test_no_more_is_handed_over_than_workers_can_do_in_a_moment(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "abcdefg")
    (executor,) = bench.executors
    assert list(executor.futures) == [*"abcd"], "two workers, and 10 ms of work ahead for each"
    assert (offload.running, offload.waiting) == (2, 5)
    executor.finishes("b")
    await turn()
    assert list(executor.futures) == [*"acde"]
    assert (offload.running, offload.waiting) == (2, 4)
    callers["f"].cancel()
    executor.finishes(*"acde")
    await turn()
    assert list(executor.futures) == ["g"], "whoever leaves while it waits with us is never handed over"
    executor.finishes("g")
    await turn()
    assert [await callers[name] for name in "abcdeg"] == [*"abcdeg"]
    assert bench.outcomes() == {"completed": 6, "cancelled": 1}
    await offload.stop()


async def test_the_first_that_are_not_done_run_and_the_others_are_ahead(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "abcd")
    seen = []
    for name in "bacd":
        bench.executors[0].finishes(name)
        await turn()
        seen.append((offload.running, offload.waiting))
        assert await callers[name] == name
    assert seen == [(2, 1), (2, 0), (1, 0), (0, 0)]
    await offload.stop()


async def test_a_task_past_its_deadline_keeps_its_place_until_it_ends(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    expiring = await submitted(offload, "abcd", deadline=0.05)
    for caller in expiring.values():
        with pytest.raises(ExpiredError):
            await caller
    (executor,) = bench.executors
    assert not executor.killed
    assert (offload.running, offload.waiting) == (2, 2)
    assert offload.retry_after(deadline=0.02) is not None, "admission sees who is in the way"
    assert offload.retry_after(deadline=1) is None
    callers = await submitted(offload, "e")
    assert "e" not in executor.futures
    executor.finishes(*"abcd")
    await turn()
    assert (offload.running, offload.waiting) == (1, 0)
    executor.finishes("e")
    assert await callers["e"] == "e"
    assert bench.outcomes() == {"expired": 4, "completed": 1}
    assert bench.count("offload_task_cpu_seconds_count") == 5, "they kept the cores busy"
    await offload.stop()


async def test_whoever_was_in_a_broken_executor_is_tried_again_alone(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "abcdef")
    bench.executors[0].finishes("a")
    bench.executors[0].breaks()  # in the same instant
    await turn()
    assert bench.executors[0].killed
    await turn()
    assert await callers["a"] == "a", "what was done before is done"
    executor = bench.executors[1]
    for name in "bcd":
        assert list(executor.futures) == [name]
        assert offload.running == 1
        executor.finishes(name)
        await turn()
    assert list(executor.futures) == [*"ef"], "they had not been handed over, and run side by side"
    executor.finishes(*"ef")
    assert [await callers[name] for name in "bcdef"] == [*"bcdef"]
    assert bench.outcomes() == {"completed": 6}
    assert bench.count("offload_worker_restarts_total", reason="crashed") == 2, "both workers"
    await offload.stop()


async def test_only_the_culprit_is_given_up(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "abcd")
    bench.executors[0].breaks()
    await turn()
    bench.executors[1].finishes("a")
    await turn()
    assert list(bench.executors[1].futures) == ["b"]
    bench.executors[1].breaks()
    await turn()
    with pytest.raises(WorkerLostError, match="2 times"):
        await callers["b"]
    for name in "cd":
        bench.executors[2].finishes(name)
        await turn()
    assert [await callers[name] for name in "acd"] == [*"acd"]
    assert bench.outcomes() == {"completed": 3, "killed": 1}
    await offload.stop()


async def test_a_suspect_that_does_not_end_holds_others_up_until_its_deadline(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    stuck = await submitted(offload, "a", deadline=2)
    callers = await submitted(offload, "bc")
    bench.executors[0].breaks()
    await turn()
    executor = bench.executors[1]
    assert list(executor.futures) == ["a"]
    with pytest.raises(ExpiredError):
        await stuck["a"]
    assert list(executor.futures) == ["a", "b"], "the next one, at once"
    callers |= await submitted(offload, "de")
    executor.finishes("a")
    for name in "bc":
        await turn()
        assert list(executor.futures) == [name], "still one suspect at a time"
        executor.finishes(name)
    await turn()
    assert list(executor.futures) == [*"de"]
    executor.finishes(*"de")
    assert [await callers[name] for name in "bcde"] == [*"bcde"]
    assert (offload.running, offload.waiting) == (0, 0)
    # And whoever was overdue once is forgotten, whether it has ended or was lost.
    await submitted(offload, "fg")
    late = await submitted(offload, "h", deadline=0.3)
    with pytest.raises(ExpiredError):
        await late["h"]
    executor.breaks()
    await turn()
    assert list(bench.executors[2].futures) == ["f"]
    bench.executors[2].finishes("f")
    await turn()
    assert list(bench.executors[2].futures) == ["g"]
    await offload.stop()


async def test_work_that_must_not_run_twice_does_not(bench: Bench) -> None:
    offload = bench.make(attempts=1)
    await offload.start()
    callers = await submitted(offload, "abcde")
    bench.executors[0].breaks()
    await turn()
    for name in "abcd":
        with pytest.raises(WorkerLostError):
            await callers[name]
    assert list(bench.executors[1].futures) == ["e"]
    bench.executors[1].finishes("e")
    assert await callers["e"] == "e"
    assert bench.outcomes() == {"killed": 4, "completed": 1}
    await offload.stop()


async def test_an_executor_that_broke_unseen_costs_the_next_task_no_attempt(bench: Bench) -> None:
    offload = bench.make(attempts=1)
    await offload.start()
    first = await submitted(offload, "a")
    bench.executors[0].finishes("a")
    assert await first["a"] == "a"
    bench.executors[0].breaks()  # nobody is there to be told
    callers = await submitted(offload, "bcd")
    assert list(bench.executors[1].futures) == [*"bcd"], "they run side by side: nobody is suspected"
    bench.executors[1].finishes(*"bcd")
    assert [await callers[name] for name in "bcd"] == [*"bcd"]
    assert bench.outcomes() == {"completed": 4}
    assert offload.healthy
    await offload.stop()


async def test_a_task_that_meets_a_breaking_executor_waits_for_the_fate_of_the_others(bench: Bench) -> None:
    offload = bench.make(attempts=1)
    await offload.start()
    callers = await submitted(offload, "ab")
    executor = bench.executors[0]
    executor.broken = True
    callers |= await submitted(offload, "c")
    assert not callers["a"].done()
    executor.finishes("a")  # the last that could be read
    executor.breaks()
    await turn()
    assert await callers["a"] == "a"
    with pytest.raises(WorkerLostError):
        await callers["b"]
    bench.executors[1].finishes("c")
    assert await callers["c"] == "c"
    await offload.stop()


async def test_nothing_goes_to_a_fresh_executor_before_the_broken_one_has_said_all(bench: Bench) -> None:
    offload = bench.make(attempts=1)
    await offload.start()
    await submitted(offload, "ab")
    bench.executors[0].broken = True
    bench.executors[0].futures.pop("a").set_exception(BrokenExecutor())
    await turn()
    assert len(bench.executors) == 2
    callers = await submitted(offload, "c")
    assert not bench.executors[1].futures
    bench.executors[0].breaks()
    await turn()
    assert list(bench.executors[1].futures) == ["c"]
    bench.executors[1].finishes("c")
    assert await callers["c"] == "c"
    assert bench.outcomes() == {"killed": 2, "completed": 1}
    await offload.stop()


async def test_executors_that_keep_breaking_open_the_breaker(bench: Bench) -> None:
    offload = bench.make(attempts=100)
    await offload.start()
    callers = await submitted(offload, "a")
    for breaks in range(4):
        assert offload.healthy, breaks
        bench.executors[-1].breaks()
        await turn()
    assert not offload.healthy
    with pytest.raises(RejectedError):
        await offload.submit(str, "b")
    callers["a"].cancel()
    await turn()
    assert offload.waiting == 0
    assert offload.may_refuse(), "or the gate does not ask"
    assert offload.retry_after() == 1, "what it asks says the same"
    await offload.stop()


async def test_an_error_of_the_executor_itself_fails_one_task(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "ab")
    bench.executors[0].futures.pop("a").set_exception(OSError("no pipe is that large"))
    bench.executors[0].finishes("b")
    with pytest.raises(WorkError, match="no pipe is that large"):
        await callers["a"]
    assert await callers["b"] == "b"
    await offload.stop()


async def test_an_executor_that_keeps_no_order_is_borne(bench: Bench) -> None:
    offload = bench.make()
    await offload.start()
    callers = await submitted(offload, "abcd")
    bench.executors[0].finishes("d")
    await turn()
    assert (offload.running, offload.waiting) == (2, 1)
    bench.executors[0].finishes(*"cba")
    assert [await callers[name] for name in "abcd"] == [*"abcd"]
    assert (offload.running, offload.waiting) == (0, 0)
    await offload.stop()


async def test_who_was_beside_a_call_that_kills_is_not_held_with_it(bench: Bench) -> None:
    offload = bench.make(attempts=1)
    await offload.start()
    for breaks in range(3):
        executor = bench.executors[-1]
        callers = await submitted(offload, ["good", "bad"])
        if breaks:
            assert list(executor.futures) == ["good"], "suspected, and so alone"
            executor.finishes("good")
            await turn()
            assert list(executor.futures) == ([] if breaks == 2 else ["bad"])
        executor.breaks()
        await turn()
        assert isinstance((await asyncio.gather(callers["bad"], return_exceptions=True))[0], OffloadError)
        with contextlib.suppress(WorkerLostError):
            assert await callers["good"] == "good"
    assert bench.outcomes() == {"killed": 3, "completed": 2, "quarantined": 1}
    await offload.stop()
