"""The queue, over workers that do as they are told: who comes first, who leaves, and exact counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from metrics.exposition import parse
from metrics.instruments import Metrics, TaskOutcome
from service.offload.admission import Admission
from service.offload.classes import LOAD_SECONDS, MISSED_SECONDS, SERVED_SECONDS, Place, TaskClass
from service.offload.errors import QuarantinedError, RejectedError, WorkerLostError
from service.offload.offload import Offload
from service.offload.pool import PoolObserver
from service.offload.queue import TaskQueue
from service.offload.task import Rank, Task
from service.offload.worker_main import Done

SECONDS = 0.1
DONE = Done("result", None, 0, SECONDS, 0, 0)


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate says holds for no time at all: tests ask about one moment twice."""
    monkeypatch.setattr("service.offload.offload.HOLDS_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time, which stands still: whoever waits has waited for as long as a test says."""
    moment = time.monotonic()
    for module in ("offload", "queue", "room"):
        monkeypatch.setattr(f"service.offload.{module}.time", SimpleNamespace(monotonic=lambda: moment))
    return moment


class Workers:
    """A pool whose tasks stay where they are until a test says what became of them."""

    kind = "told"
    passing = healthy = True
    stuck = False
    overdue = 0
    trouble = ""

    def __init__(self, observer: PoolObserver[Task], count: int = 1) -> None:
        self._observer = observer
        self.count = self.up = count
        self.has: list[Task] = []

    @property
    def in_flight(self) -> int:
        return len(self.has)

    @property
    def running(self) -> int:
        return min(len(self.has), self.count)

    def retry_after(self, now: float) -> None:
        pass

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], /) -> Any:
        return function, args

    def unpack(self, result: Any, /) -> Any:
        return result

    async def start(self, packed: Any, *, try_out: bool) -> None:
        pass

    def available(self, most: int, *, suspected: bool) -> Any:  # noqa: ARG002  # a pool's signature
        return self if len(self.has) < self.count * most else None

    def send(self, _opening: Any, task: Task, *_: Any) -> None:
        self.has.append(task)

    def expire(self, task: Task) -> bool:  # noqa: ARG002  # a pool's signature
        return True

    async def stop(self, seconds: float) -> int:  # noqa: ARG002  # a pool's signature
        return 0

    def finishes(self, waited: float = 0.0) -> None:
        """The task that runs for longest."""
        self._observer.finished([(self.has.pop(0), DONE._replace(waited=waited))], SECONDS)
        self._observer.dispatch()

    def dies(self, tried: int = 1, *, blamed: bool = True) -> None:
        """What it has is lost, and comes again."""
        lost, self.has = self.has, []
        self._observer.lost(lost, tried, blamed=blamed)


class Bench:
    """An offload whose workers have one task each, while so many wait at most."""

    def __init__(self, most: float = 4, workers: int = 1, client_share: float = 1.0) -> None:
        self.metrics = Metrics()
        self.made: list[Workers] = []
        # The last of them waits for one less, and for half of those that run.
        wait = (most - 1 + workers / 2 + 0.1) * SECONDS / workers
        admission = Admission(workers, wait, SECONDS, client_share=client_share)
        self._count = workers
        self.offload = Offload(self._make, self.metrics, admission)
        self.callers: dict[str, asyncio.Task[str]] = {}
        (self.workers,) = self.made

    def _make(self, observer: PoolObserver[Task]) -> Workers:
        self.made.append(Workers(observer, self._count))
        return self.made[-1]

    async def submit(self, *wanted: tuple[str, Rank]) -> None:
        for name, rank in wanted:
            self.callers[name] = asyncio.create_task(self.offload.submit(str, name, rank=rank))
            await asyncio.sleep(0)

    @property
    def waits(self) -> list[str]:
        """Who waits, in the order in which they will be handed over."""
        return [task.packed[1][0] for task in self.offload._queue._classes]

    async def refused(self) -> dict[str, int]:
        """Who got 503, and when they are to ask again."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = {}
        for name, caller in self.callers.items():
            if caller.done() and isinstance(error := caller.exception(), RejectedError):
                found[name] = error.retry_after
        return found

    def counted(self) -> dict[str, float]:
        values = parse(generate_latest(self.metrics.registry).decode())
        return {name: value for name, value in values.items() if "urgency" in name and value}

    async def end(self) -> None:
        while self.workers.has:
            self.workers.finishes()
        await self.offload.stop()
        await asyncio.gather(*self.callers.values(), return_exceptions=True)
        for one in self.offload._queue._classes.in_order:
            assert (dict(one.tasks), one.places, one.held) == ({}, set(), {})
        assert len(self.offload._queue) == 0


def named(urgency: int, names: str, client: str | None = None) -> list[tuple[str, Rank]]:
    return [(name, Rank(urgency, client)) for name in names]


async def test_the_most_urgent_come_first_and_in_a_class_those_that_came_first() -> None:
    bench = Bench(most=20)
    await bench.submit(*named(3, "ab"), *named(7, "c"), *named(0, "d"), *named(3, "e"), *named(0, "f"))
    assert bench.waits == [*"dfbec"], "a runs"
    bench.workers.finishes()
    assert bench.waits == [*"fbec"]
    bench.workers.dies()
    assert bench.workers.has[0].packed[1][0] == "d", "at the head of its class, and so the next"
    await bench.submit(*named(0, "g"))
    bench.workers.dies()
    assert bench.waits == [*"gbec"], "d has used up its attempts, and f is tried"
    await bench.end()


async def test_one_that_was_lost_is_passed_by_the_more_urgent_and_not_by_its_own() -> None:
    bench = Bench(most=20)
    await bench.submit(*named(3, "abc"), *named(0, "d"))
    bench.workers.dies()
    assert bench.waits == [*"abc"]
    assert bench.workers.has[0].packed[1][0] == "d"
    await bench.end()


async def test_a_class_waits_for_its_own_and_for_more_urgent_ones_alone() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(3, "abcde"))
    say = bench.offload.retry_after
    assert [say(rank=Rank(urgency)) for urgency in (0, 2, 3, 7)] == [None, None, 1, 1]
    bench.offload._queue.admission.seconds = 10 * SECONDS
    assert say(deadline=2, rank=Rank(0)) is None
    assert say(deadline=2, rank=Rank(3)) is not None, "it would be late"
    await bench.end()


async def test_how_long_the_first_has_waited_counts_for_its_class_and_for_less_urgent_ones() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(3, "abc"))
    say = bench.offload.retry_after
    assert [say(rank=Rank(urgency)) for urgency in (0, 3, 7)] == [None, None, None]
    for task in bench.offload._queue._classes:
        task.submitted -= 1
    assert [say(rank=Rank(urgency)) for urgency in (0, 3, 7)] == [None, 1, 1]
    await bench.end()


async def test_a_class_waits_as_well_for_those_who_will_come_before_it() -> None:
    bench = Bench(most=4)
    say = bench.offload.retry_after
    await bench.submit(*named(0, "abc"))
    assert (say(rank=Rank(0)), say(rank=Rank(3))) == (None, None)
    for name in "defghi":
        bench.workers.finishes()
        await bench.submit(*named(0, name))
    assert bench.waits == [*"hi"], "as many as before"
    assert (say(rank=Rank(0)), say(rank=Rank(3))) == (None, 1), "two thirds of the last second were theirs"
    await bench.end()


async def test_who_had_to_wait_longer_than_was_predicted_makes_room_for_that() -> None:
    bench = Bench(most=5)  # of 0.46 s
    say = bench.offload.retry_after
    await bench.submit(*named(3, "abcd"))
    assert (say(), bench.waits) == (None, [*"bcd"]), "a fourth waits for 0.35 s"
    bench.workers.finishes(waited=0.12)  # and was expected not to wait
    await bench.submit(*named(3, "e"))
    assert say() == 1, "0.35 s, and perhaps 0.12 more"
    for _ in range(3):
        bench.workers.finishes(waited=60)
    assert bench.waits == []
    await bench.submit(*named(3, "fg"))
    assert (say(), bench.waits) == (1, [*"fg"]), "0.25 s, and half of the wait at most"
    assert bench.offload._queue.room.predicted_wait() == pytest.approx(0.25 + 0.23, abs=0.01)
    assert bench.offload._queue.room.limit() == 2
    await bench.end()


async def test_only_what_was_predicted_can_be_missed() -> None:
    bench = Bench(most=4)
    (one,) = bench.offload._queue._classes.in_order
    await bench.submit(*named(3, "a"))
    bench.workers.dies()  # its second turn comes when it comes
    bench.workers.finishes(waited=9)
    assert one.margin(time.monotonic()) == 0
    bench.offload._queue.admission.seconds = None
    await bench.submit(*named(3, "b"))
    bench.workers.finishes(waited=9)
    assert one.margin(time.monotonic()) == 0
    await bench.end()


async def test_a_class_has_no_margin_while_less_urgent_ones_wait() -> None:
    bench = Bench(most=4)
    say = bench.offload.retry_after
    await bench.submit(*named(3, "a"))
    bench.workers.finishes(waited=9)
    await bench.submit(*named(3, "bcd"))
    assert (say(), say(rank=Rank(7))) == (1, 1), "the last class that there is"
    await bench.submit(*named(7, "e"))
    assert await bench.refused() == {"e": 1}
    bench.workers.finishes()
    await bench.submit(*named(7, "f"))
    assert bench.waits == [*"df"]
    await bench.submit(*named(3, "g"))
    assert (say(), bench.waits) == (None, [*"dgf"]), "it is not the one that an overload fills"
    await bench.end()


def test_a_miss_counts_until_it_is_forgotten_and_a_smaller_one_changes_nothing() -> None:
    one = TaskClass(3)
    assert one.margin(0.0) == 0
    one.missed(0.2, 0.0)
    one.missed(0.1, 1.0)
    one.missed(-math.inf, 1.0)
    assert one.margin(1.0) == pytest.approx(0.2 * math.exp(-1 / MISSED_SECONDS))
    one.missed(0.4, 1.0)
    assert one.margin(1.0) == pytest.approx(0.4)
    assert one.margin(100.0) < 1e-4


async def test_a_place_that_is_kept_is_a_promise() -> None:
    bench = Bench(most=2)
    await bench.submit(*named(3, "ab"))
    place = bench.offload.expect(Rank(3))
    bench.offload._queue.admission.observe(9, 9, 1)
    assert bench.offload.retry_after() is not None
    bench.callers["c"] = asyncio.create_task(bench.offload.submit(str, "c", place=place))
    await asyncio.sleep(0)
    assert bench.waits == [*"bc"], "tasks take longer since then, and it has been let in"
    bench.callers["d"] = asyncio.create_task(bench.offload.submit(str, "d", place=place))
    assert set(await bench.refused()) == {"d"}, "only once"
    await bench.end()


def test_the_load_of_a_class_is_what_it_kept_busy_and_is_forgotten() -> None:
    one = TaskClass(3)
    assert one.load(0.0) == 0
    for tenth in range(100):
        one.kept_busy(0.05, tenth / 10)
    assert one.load(9.9) == pytest.approx(0.5, rel=0.06)
    assert one.load(9.9 + LOAD_SECONDS) == pytest.approx(0.5 / math.e, rel=0.06)
    assert one.load(99) == pytest.approx(0, abs=1e-9)
    one.kept_busy(60, 99)
    assert one.load(99) == pytest.approx(1), "a long one is no crowd"


@pytest.mark.parametrize(
    ("tried", "blamed", "seconds"),
    [(1, True, 0.3), (1, False, 0.3), (0, False, 0.3), (0, True, 0)],
    ids=["died", "killed for the one before it", "killed for it", "never begun"],
)
async def test_what_a_lost_worker_was_busy_with_is_load_of_its_class(
    now: float, tried: int, blamed: bool, seconds: float
) -> None:
    bench = Bench()
    urgent = bench.offload._queue._classes.of(0)
    await bench.submit(*named(0, "ab"))
    bench.workers.has[0].sent = now - 0.3
    bench.workers.dies(tried, blamed=blamed)
    assert urgent.load(now) == pytest.approx(seconds / LOAD_SECONDS), "who waited kept no worker"
    assert urgent.is_served(now) is (seconds > 0)
    await bench.end()


async def test_a_class_may_wait_longer_while_less_urgent_ones_are_served(now: float) -> None:
    bench = Bench(most=4)
    *_, least = bench.offload._queue._classes.in_order
    await bench.submit(*named(2, "a"))
    assert bench.offload.retry_after(rank=Rank(2)) is None
    await bench.submit(*named(2, "bcdef"))
    assert (set(await bench.refused()), bench.waits) == ({"f"}, [*"bcde"]), "the others have had nothing"
    for _ in range(5):
        bench.workers.finishes()
    await bench.submit(*named(3, "g"))
    bench.workers.finishes()
    assert bench.offload._queue._classes.in_order[-1] is least
    assert least.is_served(now)
    await bench.submit(*named(2, "hijklmnopqrstuv"))
    assert (set(await bench.refused()), bench.waits) == ({*"ftuv"}, [*"ijklmnopqrs"]), (
        "3.6 tasks, three times"
    )
    assert not least.is_served(now + SERVED_SECONDS + 1e-3)
    await bench.end()


async def test_who_may_wait_longer_need_not_leave_sooner() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(7, "a"))
    bench.workers.finishes()
    await bench.submit(*named(3, "bcdefg"), *named(0, "h"))
    assert (await bench.refused(), bench.waits) == ({}, [*"hcdefg"])
    await bench.end()


async def test_a_no_holds_for_those_who_are_alike_and_no_others(
    monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    monkeypatch.setattr("service.offload.offload.HOLDS_SECONDS", 60.0)
    bench = Bench(most=4)
    say = bench.offload.retry_after
    await bench.submit(*named(3, "abcde"))
    assert say(arrived=now) == 1
    bench.workers.finishes()
    assert say(arrived=now) == 1, "for a moment"
    assert say(arrived=now - 0.001) == 1
    assert say(rank=Rank(2)) is None
    assert say(arrived=now) is None, "what was said to another has taken its place"
    await bench.submit(*named(3, "f"))
    assert say(arrived=now) == 1
    bench.workers.finishes()
    assert say(9.0, arrived=now) is None, "with another deadline"
    await bench.submit(*named(3, "g"))
    assert say(arrived=now - 0.05) == 1
    bench.workers.finishes()
    assert say(arrived=now + 1) is None, "it has waited for less"
    await bench.end()


async def test_the_last_of_the_least_urgent_leaves_when_the_queue_is_too_long() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(3, "ab"), *named(7, "cd"), *named(5, "e"))
    assert bench.waits == [*"becd"]
    assert not await bench.refused()
    await bench.submit(*named(0, "f"))
    assert bench.waits == [*"fbec"]
    await bench.submit(*named(1, "g"), *named(1, "h"))
    assert bench.waits == [*"fghb"]
    assert set(await bench.refused()) == {*"dce"}
    assert min((await bench.refused()).values()) >= 1
    await bench.submit(*named(3, "i"))
    assert bench.waits == [*"fghb"], "none leaves for one that is not more urgent"
    assert set(await bench.refused()) == {*"dcei"}
    counted = bench.counted()
    assert counted == {
        "offload_waiting{urgency=0}": 1,
        "offload_waiting{urgency=1}": 2,
        "offload_waiting{urgency=3}": 1,
        "offload_tasks_by_urgency_total{outcome=rejected,urgency=7}": 2,
        "offload_tasks_by_urgency_total{outcome=rejected,urgency=5}": 1,
        "offload_tasks_by_urgency_total{outcome=rejected,urgency=3}": 1,
    }
    assert bench.metrics.registry.get_sample_value("offload_tasks_total", {"outcome": "rejected"}) == 4
    await bench.end()


async def test_one_that_was_passed_for_longer_than_it_may_wait_leaves_first() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(3, "a"), *named(7, "bc"))
    first = next(iter(bench.offload._queue._classes))
    await bench.submit(*named(0, "d"))
    assert bench.waits == [*"dbc"], "there is room"
    first.submitted -= 1
    assert bench.offload._queue.room.leaving(7) is None, "not for one of its own"
    await bench.submit(*named(0, "e"))
    assert bench.waits == [*"dec"]
    assert [*await bench.refused()] == ["b"]
    await bench.end()


async def test_one_for_each_worker_may_wait_however_long_it_does() -> None:
    bench = Bench(most=4, workers=2)
    await bench.submit(*named(3, "ab"), *named(7, "c"))
    next(iter(bench.offload._queue._classes)).submitted -= 1
    await bench.submit(*named(0, "d"))
    assert bench.waits == [*"dc"]
    assert not await bench.refused()
    await bench.submit(*named(0, "e"))
    assert bench.waits == [*"de"]
    assert [*await bench.refused()] == ["c"]
    await bench.end()


async def test_what_a_dead_worker_had_leaves_for_nobody() -> None:
    bench = Bench(most=3)
    await bench.submit(*named(7, "a"), *named(0, "b"), *named(7, "c"))
    bench.workers.dies()
    assert bench.waits == [*"ac"], "the more urgent one runs"
    next(iter(bench.offload._queue._classes)).submitted -= 1
    await bench.submit(*named(0, "de"))
    assert bench.waits == [*"dea"]
    assert [*await bench.refused()] == ["c"]
    await bench.submit(*named(0, "f"))
    assert "a" in bench.waits
    await bench.end()


async def test_copies_of_a_call_that_is_held_do_not_wait_behind_a_class_that_is_always_busy() -> None:
    bench = Bench(most=9)
    await bench.submit(*named(7, "abc"))
    for task in (*bench.workers.has, next(iter(bench.offload._queue._classes))):
        task.call = b"kills"
    bench.workers.dies()
    await bench.submit(*named(0, "de"))
    bench.workers.dies()
    await asyncio.sleep(0)
    assert bench.waits == [*"ec"]
    assert isinstance(bench.callers["a"].exception(), WorkerLostError)
    assert isinstance(bench.callers["b"].exception(), QuarantinedError)
    await bench.end()


async def test_without_a_bound_on_the_wait_no_one_leaves() -> None:
    bench = Bench(most=math.inf, client_share=0.01)
    await bench.submit(*named(7, "abc", "one"), *named(0, "d"))
    assert bench.waits == [*"dbc"]
    await bench.end()


async def test_places_count_in_their_class() -> None:
    bench = Bench(most=4)
    await bench.submit(*named(3, "ab"))
    places = [bench.offload.expect(Rank(3)) for _ in range(3)]
    say = bench.offload.retry_after
    assert [say(rank=Rank(urgency)) for urgency in (2, 3, 4)] == [None, 1, 1]
    for place in places * 2:
        place.release()
    assert say(rank=Rank(4)) is None
    await bench.end()


async def test_a_client_has_its_share_of_each_class_and_one_at_least() -> None:
    bench = Bench(most=4, client_share=0.7)
    await bench.submit(*named(3, "a"), *named(3, "bcd", "greedy"), *named(3, "e", "other"))
    assert bench.waits == [*"bce"]
    assert await bench.refused() == {"d": 1}
    await bench.submit(*named(0, "f", "greedy"))
    assert bench.waits == [*"fbce"], "in another class it has another"
    bench.workers.finishes()
    bench.workers.finishes()
    await bench.submit(*named(3, "g", "greedy"))
    assert bench.waits == [*"ceg"], "what a worker has does not wait"
    await bench.end()
    small = Bench(most=4, client_share=0.01)
    await small.submit(*named(3, "a"), *named(3, "bc", "greedy"))
    assert small.waits == ["b"]
    await small.end()


async def test_the_place_of_a_request_takes_from_its_clients_share() -> None:
    bench = Bench(most=4, client_share=0.7)
    await bench.submit(*named(3, "a"))
    greedy, other = Rank(3, "greedy"), Rank(3, b"other")
    first, others = bench.offload.expect(greedy), bench.offload.expect(other)
    assert bench.offload.retry_after(rank=greedy) is None
    second = bench.offload.expect(greedy)
    assert bench.offload.retry_after(rank=greedy) == 1
    assert bench.offload.retry_after(rank=other) is None
    caller = asyncio.create_task(bench.offload.submit(str, "b", place=first, rank=greedy))
    await asyncio.sleep(0)
    assert bench.waits == ["b"], "it was promised"
    assert bench.offload.retry_after(rank=greedy) == 1
    second.release()
    assert bench.offload.retry_after(rank=greedy) is None
    others.release()
    bench.callers["b"] = caller
    await bench.end()


CLIENTS = st.sampled_from([None, "one", "other"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 7), CLIENTS),
        st.tuples(st.just("keep"), st.integers(0, 7), CLIENTS),
        st.tuples(st.sampled_from(["release", "expire", "drop"]), st.integers(0, 50)),
        st.tuples(st.sampled_from(["finish", "die"])),
    ),
    max_size=60,
)


class Story:
    """What happens to a queue in front of two workers, step by step, with its promises checked after each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.metrics = Metrics()
        made: list[Workers] = []

        def make(observer: PoolObserver[Task]) -> Workers:
            made.append(Workers(observer, 2))
            return made[0]

        self.queue = TaskQueue(make, self.metrics, Admission(2, 0.36, SECONDS), 2)  # seven may wait
        (self.workers,) = made
        self.tasks: list[Task] = []
        self.places: list[Place] = []
        self.begun = time.monotonic()

    def put(self, urgency: int, client: str | None) -> None:
        rank = Rank(urgency, client)
        before = self.queue.room.before(self.begun, rank, with_places=False)
        has_share = self.queue.room.has_share(rank, before.margin)
        if has_share and self.queue.admission.retry_after(before) is None:
            submitted = self.begun + len(self.tasks) * 1e-3
            self.tasks.append(Task((str, ()), submitted, self.loop.create_future(), None, rank=rank))
            self.queue.put(self.tasks[-1])

    def keep(self, urgency: int, client: str | None) -> None:
        self.places.append(self.queue.expect(Rank(urgency, client)))

    def release(self, number: int) -> None:
        for place in self.places[number : number + 1]:
            place.release()

    def expire(self, number: int) -> None:
        for task in self.tasks[number : number + 1]:
            if not task.in_flight:
                self.queue.expire(task)

    def drop(self, number: int) -> None:
        for task in self.tasks[number : number + 1]:
            if task.outcome.cancel():
                self.queue.drop(task)

    def finish(self) -> None:
        if self.workers.has:
            self.workers.finishes()

    def die(self) -> None:
        self.workers.dies()

    def check(self) -> None:
        waiting = [(task.rank.urgency, task.submitted) for task in self.queue._classes]
        assert waiting == sorted(waiting)
        assert len(self.queue) == len(waiting)
        assert self.queue.room.waiting <= 7 + 2, "and what dead workers have given back"
        assert not any(task.outcome.done() for task in self.queue._classes)
        for one in self.queue._classes.in_order:
            held = Counter(task.rank.client for task in one.tasks)
            held.update(place._client for place in one.places)
            del held[None]
            assert one.held == held

    def end(self) -> None:
        self.queue.close()
        for place in self.places:
            place.release()
        while self.workers.has:
            self.workers.finishes()
        for one in self.queue._classes.in_order:
            assert (dict(one.tasks), one.places, one.held) == ({}, set(), {})
        assert all(task.outcome.done() for task in self.tasks)
        told = Counter[int](task.rank.urgency for task in self.tasks)
        for urgency, count in told.items():
            labels = ({"urgency": str(urgency), "outcome": outcome} for outcome in TaskOutcome)
            of = self.metrics.registry.get_sample_value
            assert sum(of("offload_tasks_by_urgency_total", one) or 0 for one in labels) == count
        for task in self.tasks:
            if not task.outcome.cancelled():
                task.outcome.exception()  # else the loop complains that nobody has asked


@given(STEPS)
def test_whatever_happens_the_order_holds_and_every_count_is_exact(steps: list[tuple[Any, ...]]) -> None:
    loop = asyncio.new_event_loop()
    try:
        story = Story(loop)
        for name, *arguments in steps:
            getattr(story, name)(*arguments)
            story.check()
        story.end()
    finally:
        loop.close()
