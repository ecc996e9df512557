"""A pool of lanes: which are up, what is in flight on each, and when one is replaced.

Knows lanes (lane.py), and what both pools do alike (supervised_pool.py). A worker that dies costs the task
it runs and nothing else, because the pool tells workers apart: each can be killed for a deadline, and
recycled.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.lane import Lane
from service.offload.pool import PoolObserver
from service.offload.supervised_pool import SupervisedPool
from service.offload.worker_main import Done, Packed

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a healthy worker is replaced: after so many tasks, or if it ever used so much memory."""

    tasks: float = math.inf
    peak_bytes: float = math.inf


@dataclass(slots=True, eq=False)
class LaneState(Generic[T]):
    """A lane that is up, and what is in flight on it: the first task runs, the others wait in its channel."""

    lane: Lane
    in_flight: deque[T]
    served: int = 0
    since: float = 0.0  # when the task that runs became the first
    overdue: T | None = None  # the task that its worker was killed for
    apart: bool = False  # the last in flight is suspected, or it is being probed: nothing comes after that
    retiring: bool = False  # to be replaced once nothing is in flight


class Opening(NamedTuple, Generic[T]):
    """Where a task may go, and whether nothing else may go there meanwhile."""

    state: LaneState[T]
    apart: bool


class LanePool(SupervisedPool[T, Lane]):
    """Keeps `count` lanes of one kind up. See `pool.Pool`.

    A suspected task is the last on its lane, so nothing waits behind it when the worker dies, and one lane is
    always free of them. Where there is only one lane, a suspected task keeps its turn: to let it wait for all
    others would cost the innocent their answers, and a culprit is held after its next kill (quarantine.py).

    Args:
        lane: the kind.
        nice, most_result: see `Lane`.
    """

    def __init__(
        self,
        lane: type[Lane],
        count: int,
        nice: int,
        metrics: Metrics,
        recycling: Recycling,
        observer: PoolObserver[T],
        most_result: float = math.inf,
    ) -> None:
        super().__init__(count, 1, metrics, observer, recycling.peak_bytes)
        self.kind = lane.kind
        self.pack = lane.pack
        self.unpack = lane.unpack
        self._lane = lane
        self._nice = nice
        self._most_result = most_result
        self._most_tasks = recycling.tasks
        self._up: dict[Lane, LaneState[T]] = {}
        self._where: dict[T, LaneState[T]] = {}
        self._busy: set[Lane] = set()  # lanes with something in flight
        self._overdue: set[T] = set()  # on lanes that cannot be killed

    passing = True

    @property
    def up(self) -> int:
        """See `Pool`."""
        return len(self._up)

    @property
    def in_flight(self) -> int:
        """See `Pool`."""
        return len(self._where)

    @property
    def running(self) -> int:
        """See `Pool`. One for each busy worker."""
        return len(self._busy)

    @property
    def overdue(self) -> int:
        """See `Pool`."""
        return len(self._overdue)

    def available(self, most: int, *, suspected: bool = False) -> Opening[T] | None:
        """The lane with the least in flight, if that is less than `most`."""
        if not self._breaker.closed:
            return None
        best, free = None, 0  # lanes without a suspected task
        for state in self._up.values():
            if state.apart or state.retiring or state.overdue is not None:
                continue
            free += 1
            if len(state.in_flight) < most:
                best, most = state, len(state.in_flight)
        if best is None or (suspected and self.count > 1 and free == 1):
            return None
        return Opening(best, suspected)

    def send(
        self, opening: Opening[T], task: T, packed: Packed, submitted: float, until: float = math.inf
    ) -> None:
        """See `Pool`."""
        state = opening.state
        if not state.in_flight:
            state.since = time.monotonic()
            self._busy.add(state.lane)
        state.apart = opening.apart
        state.in_flight.append(task)
        self._where[task] = state
        state.lane.send(packed, submitted, until)

    def expire(self, task: T) -> bool:
        """Kill the worker that runs `task`; False if `task` does not run yet."""
        state = self._where.get(task)
        if state is None or state.in_flight[0] is not task:
            return False
        if state.lane.kill():
            state.overdue = task
        else:
            self._overdue.add(task)
        return True

    def _finished(self, lane: Lane, outcomes: list[Done]) -> None:
        state = self._up.get(lane)
        if state is None:  # its start was given up
            return
        now = time.monotonic()
        finished = [(state.in_flight.popleft(), done) for done in outcomes]
        for task, _ in finished:
            del self._where[task]
            self._overdue.discard(task)
        if not state.in_flight:
            self._busy.discard(lane)
        seconds, state.since = now - state.since, now
        state.apart = state.apart and bool(state.in_flight)
        state.served += len(finished)
        if state.served >= self._most_tasks or outcomes[-1].peak_bytes > self._most_bytes:
            state.retiring = True
        self._succeeded()
        self._observer.finished(finished, seconds)
        if state.retiring and not state.in_flight and not self._stopping:
            del self._up[lane]
            self._replace(lane, RestartReason.RECYCLED)
        self._observer.dispatch()

    def _died(self, lane: Lane) -> None:
        state = self._up.get(lane)
        if state is None:  # its start was given up
            return
        killed = state.overdue is not None
        reason = RestartReason.DEADLINE if killed else RestartReason.CRASHED
        log.warning("worker lost", reason=reason.value, tasks=len(state.in_flight))
        # A worker that dies at work, or before it has done any, may be one of many.
        if reason is RestartReason.CRASHED and (state.in_flight or not state.served):
            self._count_death()
        for task in state.in_flight:
            del self._where[task]
        del self._up[lane]
        self._busy.discard(lane)
        self._replace(lane, reason)
        # The one that we killed it for may have ended just before, its outcome on the way: then the worker
        # may have begun the next, which must not run twice if it is to run once. But that killed nothing.
        tried = 0 if killed and state.overdue in state.in_flight else 1
        self._observer.lost(list(state.in_flight), tried, blamed=not killed)

    def _make(self) -> Lane:
        return self._lane(self._finished, self._died, self._nice, self._most_result)

    def _came_up(self, member: Lane) -> None:
        self._up[member] = LaneState(member, deque())

    async def _ask_idle(self) -> None:
        """See `SupervisedPool`."""
        idle = (state for state in self._up.values() if not state.in_flight and not state.apart)
        if (state := next(idle, None)) is None:
            return
        state.apart = True
        try:
            await self._try_out(state.lane)
        except Exception:
            log.warning("worker lost", reason=RestartReason.CRASHED.value, tasks=0)
            del self._up[state.lane]
            state.lane.kill()
            self._replace(state.lane, RestartReason.CRASHED)
        else:
            state.apart = False
            self._observer.dispatch()

    def _has_work(self, member: Lane) -> bool:
        return member in self._up and bool(self._up[member].in_flight)

    def _take_all(self) -> list[T]:
        cut_off = list(self._where)
        self._where.clear()
        self._busy.clear()
        self._overdue.clear()
        return cut_off
