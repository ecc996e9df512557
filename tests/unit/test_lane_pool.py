"""Lanes without workers: the order of tasks, what is lost with a lane, and outcomes in pieces."""

from __future__ import annotations

import asyncio
import math
import pickle
from concurrent.futures import BrokenExecutor
from typing import Any, ClassVar

import pytest

from metrics.instruments import Metrics
from service.offload import admission, strategies
from service.offload.admission import LIMIT_PER_WORKER, Admission
from service.offload.errors import ExpiredError, RejectedError, WorkerLostError
from service.offload.lane import InlineLane, Lane
from service.offload.lane_pool import LanePool, Recycling
from service.offload.offload import Offload
from service.offload.process_lane import ProcessLane
from service.offload.quarantine import KILLS
from service.offload.strategies import pool_for
from service.offload.worker_main import Done, Failure, framed, run
from tests.support.waiting import eventually


class Silent(InlineLane):
    """Keeps what it is sent until a test says what became of it."""

    made: ClassVar[list[Silent]] = []

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self.sent: list[Any] = []
        self.made.append(self)

    def send(self, packed: Any, submitted: float, until: float = 0) -> None:  # noqa: ARG002  # a lane's signature
        self.sent.append(packed[1][0])

    def finishes(self, count: int = 1) -> None:
        self._finished(self, [Done(b"", None, 0, 0.001, 0, 0)] * count)

    def dies(self) -> None:
        self._lost(self)

    def kill(self) -> bool:
        return True


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> list[Silent]:
    """Lanes that run nothing, in the order in which they are started; those of the strategy "thread"."""
    monkeypatch.setattr(strategies, "ThreadLane", Silent)
    monkeypatch.setattr(Silent, "made", [])
    return Silent.made


class Fragile(Silent):
    """Finishes at once what it is sent. Once `broken` is set, no further one can be started."""

    broken: ClassVar[bool]

    async def start(self, packed: Any) -> None:  # noqa: ARG002  # a lane's signature
        if self.broken:
            raise OSError("no process can be started")

    def send(self, packed: Any, submitted: float, until: float = math.inf) -> None:
        super().send(packed, submitted, until)
        if packed[0] is not abs:  # which never ends
            self._finish([run(packed, submitted, until)])


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> list[Silent]:
    """Those of the strategy "thread", which try their starts again and their probes at once."""
    monkeypatch.setattr(strategies, "ThreadLane", Fragile)
    monkeypatch.setattr(Silent, "made", [])
    monkeypatch.setattr(Fragile, "broken", False, raising=False)
    monkeypatch.setattr(admission, "FIRST_PROBE_SECONDS", 0.001)
    monkeypatch.setattr(admission, "LAST_PROBE_SECONDS", 0.001)
    return Silent.made


async def submitted(offload: Offload, *names: str) -> list[asyncio.Task[Any]]:
    callers = [asyncio.create_task(offload.submit(str, name)) for name in names]
    await asyncio.sleep(0)
    return callers


async def test_tasks_run_in_the_order_in_which_they_came_also_after_a_death(silent: list[Silent]) -> None:
    metrics = Metrics()
    offload = Offload(pool_for("thread", 1, 0, metrics), metrics, Admission(1, seconds=0.005))
    await offload.start()
    callers = await submitted(offload, *"abcde")
    assert silent[0].sent == ["a", "b", "c"], "one runs, and 10 ms of work ahead"
    silent[0].finishes()
    assert silent[0].sent[3:] == ["d"]
    silent[0].dies()
    await eventually(lambda: len(silent) == 2 and silent[1].sent)
    silent[1].finishes()
    assert silent[1].sent[:3] == ["b", "c", "d"]
    silent[1].finishes(2)
    silent[1].finishes(1)
    await asyncio.gather(*callers)
    await offload.stop()


async def test_a_worker_that_is_to_be_replaced_gets_nothing_new(silent: list[Silent]) -> None:
    metrics = Metrics()
    pool = pool_for("thread", 1, 0, metrics, Recycling(tasks=1))
    offload = Offload(pool, metrics, Admission(1, seconds=0.005))
    await offload.start()
    callers = await submitted(offload, *"abcd")
    silent[0].finishes()
    assert silent[0].sent == ["a", "b", "c"]
    silent[0].finishes(2)
    await eventually(lambda: len(silent) == 2 and silent[1].sent)
    assert silent[1].sent == ["d"]
    silent[1].finishes()
    await asyncio.gather(*callers)
    await offload.stop()


async def test_outcomes_may_come_in_any_pieces() -> None:
    outcomes = [Done(bytes(size), None, 0, 0, 0, 0) for size in (1, 2, 300, 70_000)]
    outcomes.insert(1, Done(None, Failure("no", "result"), 0, 0, 0, 0))
    sent = b"".join(map(framed, outcomes))
    for piece in (1, 7, 8, 9, 1000, len(sent) - 1, len(sent)):
        came: list[Done] = []

        def finished(_: Lane, dones: list[Done], came: list[Done] = came) -> None:
            came.extend(dones)

        process = ProcessLane(finished, print, 0)
        for at in range(0, len(sent), piece):
            process.data_received(sent[at : at + piece])
        assert came == outcomes


class Deaf:
    """What is reported to it is of no interest."""

    def finished(self, outcomes: list[tuple[str, Done]], seconds: float) -> None:
        pass

    def lost(self, tasks: list[str], tried: int, *, blamed: bool = True) -> None:
        pass

    def dispatch(self) -> None:
        pass


@pytest.mark.parametrize(
    ("count", "story", "placed"),
    [
        # g: a good task comes, s: a suspected one; on which lane it is, - for none. f: lane 0 finishes one.
        (1, "ggg", "00-"),
        (1, "gsg", "00-"),  # behind it comes nobody
        (1, "sfg", "0f0"),
        (2, "gggg", "0101"),
        (2, "sg", "01"),
        (2, "ssg", "0-1"),  # the last that is free of them stays so, and a good one passes
        (2, "sggg", "011-"),  # nobody comes behind a suspected one
        (2, "gsgg", "010-"),
        (2, "sfs", "0f0"),
        (3, "sss", "01-"),
    ],
)
async def test_a_lane_is_always_free_of_suspected_tasks(
    silent: list[Silent], count: int, story: str, placed: str
) -> None:
    lanes: LanePool[str] = LanePool(Silent, count, 0, Metrics(), Recycling(), Deaf())
    await lanes.start(None, try_out=False)
    seen = ""
    for number, event in enumerate(story):
        if event == "f":
            silent[0].finishes()
            seen += event
            continue
        opening = lanes.available(2, suspected=event == "s")
        if opening is not None:
            lanes.send(opening, f"task {number}", (str, (number,)), 0.0)
        at = [str(lane) for lane, one in enumerate(silent) if number in one.sent]
        seen += at[0] if at else "-"
    assert seen == placed
    await lanes.stop(0)


@pytest.mark.parametrize(("done", "tried"), [(0, 0), (1, 1)])
async def test_who_runs_when_a_worker_is_killed_for_another_has_been_tried(
    silent: list[Silent],
    done: int,
    tried: int,  # what the table says
) -> None:
    lost: list[tuple[list[str], int, bool]] = []

    class Observer(Deaf):
        def lost(self, tasks: list[str], tried: int, *, blamed: bool = True) -> None:
            lost.append((tasks, tried, blamed))

    lanes = LanePool(Silent, 1, 0, Metrics(), Recycling(), Observer())
    await lanes.start(None, try_out=False)
    worker = lanes.available(2)
    assert worker is not None
    for name in ("first", "second"):
        lanes.send(worker, name, (str, (name,)), 0.0)
    assert not lanes.expire("second")
    assert lanes.expire("first")
    assert lanes.available(3) is None, "nothing more comes to a worker that is killed"
    if done:  # a moment before
        silent[0].finishes()
    silent[0].dies()
    assert lost == [(["first", "second"][done:], tried, False)]
    await lanes.stop(1)


async def test_a_worker_that_cannot_be_replaced_costs_the_others_nothing(fragile: list[Silent]) -> None:
    metrics = Metrics()
    offload = Offload(pool_for("thread", 2, 0, metrics), metrics)
    await offload.start()
    Fragile.broken = True
    fragile[0].dies()
    for starts in (30, 60):  # more than the breaker bears deaths, and than make a pool stuck
        await eventually(lambda starts=starts: len(fragile) >= starts)  # type: ignore[misc]
        assert await offload.submit(str, starts) == str(starts)
        assert offload.healthy
        assert not offload.stuck
    fragile[1].dies()
    assert offload.healthy, "nothing has been tried since the last one was lost"
    await eventually(lambda: not offload.healthy)
    with pytest.raises(RejectedError):
        await offload.submit(str, 1)
    assert not offload.stuck, "it has been short"
    await eventually(lambda: offload.stuck)
    Fragile.broken = False
    await eventually(lambda: offload.healthy)
    assert not offload.stuck
    assert await offload.submit(str, 1) == "1"
    await offload.stop()


async def test_an_open_breaker_is_closed_by_a_lane_that_is_up_and_idle(fragile: list[Silent]) -> None:
    lanes: LanePool[str] = LanePool(Fragile, 2, 0, Metrics(), Recycling(), Deaf())
    await lanes.start((str, ("good",)), try_out=True)
    survivor = fragile[1]
    fragile[0].dies()
    for starts in range(3, 3 + 2 * LIMIT_PER_WORKER):
        await eventually(lambda starts=starts: len(fragile) == starts and lanes.up == 2)  # type: ignore[misc]
        Fragile.broken = starts == 2 + 2 * LIMIT_PER_WORKER
        assert lanes.healthy
        fragile[-1].dies()
    assert not lanes.healthy
    assert lanes.available(1) is None
    await eventually(lambda: lanes.healthy)
    assert survivor.sent == ["good"], "no request: the known-good call"
    assert lanes.up == 1
    opening = lanes.available(1)
    assert opening is not None
    assert opening.state.lane is survivor
    await lanes.stop(0)


async def test_a_lane_that_does_not_survive_the_probe_is_replaced(
    fragile: list[Silent], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: LanePool[str] = LanePool(Fragile, 2, 0, Metrics(), Recycling(), Deaf())
    await lanes.start((str, ("good",)), try_out=True)
    survivor = fragile[1]

    async def dies(self: Fragile, packed: Any) -> Done:
        assert not self.sent, "it is asked once"
        self.sent.append(packed[1][0])
        raise BrokenExecutor

    fragile[0].dies()
    for starts in range(3, 3 + 2 * LIMIT_PER_WORKER):
        await eventually(lambda starts=starts: len(fragile) == starts and lanes.up == 2)  # type: ignore[misc]
        if starts == 2 + 2 * LIMIT_PER_WORKER:
            monkeypatch.setattr(Fragile, "ask", dies)
        fragile[-1].dies()
    await eventually(lambda: survivor.sent)
    await eventually(lambda: len(fragile) > 10 + 2 * LIMIT_PER_WORKER, "fresh ones are tried, too")
    assert not lanes.healthy
    assert lanes.up == 0
    monkeypatch.setattr(Fragile, "ask", Silent.ask)
    await eventually(lambda: lanes.healthy and lanes.up == 2)
    await lanes.stop(0)


async def test_who_comes_behind_a_task_whose_worker_we_killed_is_not_quarantined(
    silent: list[Silent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(function: Any, args: tuple[Any, ...], /) -> Any:
        return pickle.dumps((function, args))

    def send(self: Silent, packed: Any, submitted: float, until: float = 0) -> None:  # noqa: ARG001
        self.sent.append(pickle.loads(packed)[1][0])

    monkeypatch.setattr(Silent, "pack", staticmethod(pack))
    monkeypatch.setattr(Silent, "send", send)
    metrics = Metrics()
    offload = Offload(
        pool_for("thread", 1, 0, metrics), metrics, Admission(1, seconds=0.005, longest=0.005), attempts=1
    )
    await offload.start()
    for kills in range(KILLS):
        late = asyncio.create_task(offload.submit(str, f"late {kills}", deadline=0.05))
        (innocent,) = await submitted(offload, "innocent")
        with pytest.raises(ExpiredError):
            await late
        silent[-1].finishes()  # its outcome was on its way when the worker was killed for it
        silent[-1].dies()
        with pytest.raises(WorkerLostError):  # it may have begun, and was to run once
            await innocent
        await eventually(lambda kills=kills: len(silent) == kills + 2)  # type: ignore[misc]
    (innocent,) = await submitted(offload, "innocent")
    await eventually(lambda: silent[-1].sent == ["innocent"] or innocent.done())
    assert not innocent.done(), "it is held"
    silent[-1].finishes()
    await innocent
    await offload.stop()
