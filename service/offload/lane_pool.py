"""Workers that are lanes: which are up, what each has been handed, and their replacement.

Knows lanes (lane.py), and what all crews have in common (pool.py). One worker that dies costs the task that
it runs and nothing else, so each is told apart: it can be killed for a deadline, and recycled.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.lane import Lane, LaneStrategy, make
from service.offload.pool import Crew, Told
from service.offload.worker_main import Done, Packed

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker is replaced although it is well: after so many tasks, or above so many bytes."""

    tasks: float = math.inf
    peak_bytes: float = math.inf


@dataclass(slots=True, eq=False)
class Worker(Generic[T]):
    """A lane that is up, and what it has: the first of `held` runs, the others wait in its socket."""

    lane: Lane
    held: deque[T]
    served: int = 0
    since: float = 0.0  # when the first of `held` became the first
    overdue: T | None = None  # why it was killed: this had passed its deadline
    retiring: bool = False  # to be replaced when it has nothing left


class Workers(Crew[T, Lane]):
    """Keeps `count` lanes up."""

    def __init__(
        self,
        strategy: LaneStrategy,
        count: int,
        nice: int,
        metrics: Metrics,
        recycling: Recycling,
        told: Told[T],
    ) -> None:
        # A thread's memory is the service's own: a fresh one would have as much.
        most_bytes = recycling.peak_bytes if strategy == "process" else math.inf
        super().__init__(count, 1, metrics, told, most_bytes)
        self._strategy = strategy
        self._nice = nice
        self._most_tasks = recycling.tasks
        self._up: dict[Lane, Worker[T]] = {}
        self._where: dict[T, Worker[T]] = {}

    @property
    def up(self) -> int:
        """See `Crew`."""
        return len(self._up)

    @property
    def held(self) -> int:
        """See `Crew`."""
        return len(self._where)

    @property
    def running(self) -> int:
        """See `Crew`. One for each busy worker."""
        # A copy, because the admin thread asks, too.
        return sum(1 for worker in list(self._up.values()) if worker.held)

    def available(self, most: int, *, suspected: bool = False) -> Worker[T] | None:  # noqa: ARG002  # a death costs one task
        """The worker with the least to do, if that is less than `most`."""
        best = None
        for worker in self._up.values():
            if len(worker.held) < most and not worker.retiring:
                best, most = worker, len(worker.held)
        return best

    def send(self, place: Worker[T], item: T, packed: Packed, submitted: float) -> None:
        """See `Crew`."""
        if not place.held:
            place.since = time.monotonic()
        place.held.append(item)
        self._where[item] = place
        place.lane.send(packed, submitted)

    def end(self, item: T) -> bool:
        """Kill the worker that runs `item`; False if none does yet."""
        worker = self._where.get(item)
        if worker is None or worker.held[0] is not item:
            return False
        worker.overdue = item
        worker.lane.kill()
        return True

    def _finished(self, lane: Lane, outcomes: list[Done]) -> None:
        worker = self._up.get(lane)
        if worker is None:  # the end of a start that nobody waits for any more
            return
        now = time.monotonic()
        finished = [(worker.held.popleft(), done) for done in outcomes]
        for item, _ in finished:
            del self._where[item]
        seconds, worker.since = now - worker.since, now
        worker.served += len(finished)
        if worker.served >= self._most_tasks or outcomes[-1].peak_bytes > self._most_bytes:
            worker.retiring = True
        self._succeeded()
        self._told.finished(finished, seconds)
        if worker.retiring and not worker.held and not self._stopping:
            del self._up[lane]
            self._replace(lane, RestartReason.RECYCLED)
        self._told.free()

    def _died(self, lane: Lane) -> None:
        worker = self._up.get(lane)
        if worker is None:  # in a start that nobody waits for any more
            return
        overdue = worker.overdue is not None and worker.held and worker.held[0] is worker.overdue
        reason = RestartReason.DEADLINE if worker.overdue is not None else RestartReason.CRASHED
        log.warning("worker lost", reason=reason.value, tasks=len(worker.held))
        # One that dies at work, or without having done any, may be one of many.
        if reason is RestartReason.CRASHED and (worker.held or not worker.served):
            self._count_death()
        for item in worker.held:
            del self._where[item]
        del self._up[lane]
        self._replace(lane, reason)
        self._told.lost(list(worker.held), 0 if overdue else 1)

    def _make(self) -> Lane:
        return make(self._strategy, self._nice, self._finished, self._died)

    def _came_up(self, unit: Lane) -> None:
        self._up[unit] = Worker(unit, deque())

    def _has_work(self, unit: Lane) -> bool:
        return unit in self._up and bool(self._up[unit].held)

    def _take_all(self) -> list[T]:
        cut_off = list(self._where)
        self._where.clear()
        return cut_off
