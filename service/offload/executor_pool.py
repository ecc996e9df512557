"""Workers behind a `concurrent.futures` executor: what is in it, and a fresh one when it breaks.

Knows `submit`, futures and `BrokenExecutor`, and what all crews have in common (pool.py). Knows one kind of
executor by name (stock_executor.py), and of that only `submit` and what `crew.Unit` has.

What an executor has been handed cannot be taken back. So no more is handed over than its workers can do in a
moment, and the rest waits with us, where it can be refused, expire and be forgotten.

What it cannot do: end one task. A deadline answers the client, but the task keeps its place until it ends by
itself, and a task that never ends has taken a worker for good.
"""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import BrokenExecutor
from typing import NamedTuple, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.pool import Crew, Told
from service.offload.stock_executor import StockPool
from service.offload.worker_main import Done, Packed, failure_of

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")


class Place(NamedTuple):
    """Where a task may go, and whether nothing else may go there meanwhile."""

    pool: StockPool
    alone: bool


class ExecutorPool(Crew[T, StockPool]):
    """Keeps one executor with `count` workers up.

    Which task a worker runs is nowhere to be seen, but executors start tasks in the order in which they got
    them: the first `count` that are not done run, the others are ahead.

    Whose fault is it when a worker dies? The executor does not say; any task that was in it may have run.
    So each counts it as one of its attempts: work that must not run twice does not (`--task-attempts 1`).
    But a task that kills its worker every time would then take its neighbours along, who come with it again
    and again. So what was in a broken executor is tried again alone, one after the other: only the culprit
    is there when the next one breaks. For as long as that takes other workers idle, which is the price of
    not killing the innocent; `--offload process` pays none, for there the culprit is known. One that is past
    its deadline is waited for no longer: it may never end.
    """

    def __init__(self, count: int, nice: int, metrics: Metrics, told: Told[T]) -> None:
        super().__init__(1, count, metrics, told)
        self._count = count
        self._nice = nice
        self._pool: StockPool | None = None
        self._running: dict[T, float] = {}  # since when
        self._ahead: dict[T, None] = {}
        self._overdue: set[T] = set()  # of these, those past their deadline
        self._broken: set[T] = set()  # of these, those that the executor has let fall
        self._unsent: list[T] = []  # came after it broke
        self._alone = False
        self._has_served = False

    @property
    def up(self) -> int:
        """See `Crew`."""
        return 0 if self._pool is None else self._count

    @property
    def held(self) -> int:
        """See `Crew`."""
        return len(self._running) + len(self._ahead) + len(self._unsent)

    @property
    def running(self) -> int:
        """See `Crew`."""
        return len(self._running)

    def available(self, most: int, *, suspected: bool) -> Place | None:
        """See `Crew`."""
        if self._pool is None or self._broken:
            return None
        if self.held >= most * self._count:
            return None
        if (suspected or self._alone) and self.held > len(self._overdue):
            return None
        return Place(self._pool, suspected)

    def send(self, place: Place, item: T, packed: Packed, submitted: float) -> None:
        """See `Crew`."""
        try:
            future = place.pool.submit(packed, submitted)
        except BrokenExecutor:
            self._unsent.append(item)
            self._broke(place.pool)
            return
        self._alone = place.alone
        if len(self._running) < self._count:
            self._running[item] = time.monotonic()
        else:
            self._ahead[item] = None
        future.add_done_callback(functools.partial(self._done, place.pool, item))

    def end(self, item: T) -> bool:
        """Nothing is ended for a deadline, so there is no need to come again."""
        self._overdue.add(item)
        self._told.free()  # if it was to be alone, it is no longer
        return True

    def _done(self, pool: StockPool, item: T, future: asyncio.Future[Done]) -> None:
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            self._broken.add(item)
            self._broke(pool)
            return
        now = time.monotonic()
        self._overdue.discard(item)
        since = self._running.pop(item, None)
        if since is None:  # an executor that keeps no order
            self._ahead.pop(item)
            since = now
        elif self._ahead:
            following = next(iter(self._ahead))
            del self._ahead[following]
            self._running[following] = now
        done = future.result() if error is None else Done(None, failure_of(error), 0.0, now - since, 0.0, 0)
        self._has_served = True
        self._succeeded()
        self._told.finished([(item, done)], now - since)
        self._told.free()

    def _broke(self, pool: StockPool) -> None:
        """The executor is broken; once it has let fall all that it had, they are lost."""
        if self._stopping:  # it was killed for that, or is of no use any more
            pool.kill()
            return
        if pool is self._pool:  # else that is known, or it has not even started
            self._pool = None
            pool.kill()
            log.warning("executor broken", workers=self._count, tasks=self.held)
            if self.held > len(self._unsent) or not self._has_served:
                self._count_death()
            self._replace(pool, RestartReason.CRASHED)
        if len(self._broken) + len(self._unsent) == self.held:
            suspects = len(self._broken)
            self._alone = False
            self._told.lost(self._take_all(), suspects)

    def _make(self) -> StockPool:
        return StockPool(self._count, self._nice, self._broke)

    def _came_up(self, unit: StockPool) -> None:
        self._pool, self._has_served = unit, False

    def _has_work(self, unit: StockPool) -> bool:
        return unit is self._pool and self.held > 0

    def _take_all(self) -> list[T]:
        cut_off = [*self._running, *self._ahead, *self._unsent]
        for had in (self._running, self._ahead, self._overdue, self._broken, self._unsent):
            had.clear()
        return cut_off
