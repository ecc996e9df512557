"""A pool in one `concurrent.futures` executor: what is in it, and a fresh one when it breaks.

Knows `submit`, futures and `BrokenExecutor`, and what both pools do alike (supervised_pool.py). The
executor that it is given is the stock one (stock_executor.py), or any that a factory makes (any_executor.py).

What an executor has been handed cannot be taken back. So no more is handed over than its workers can do in a
moment, and the rest waits in our queue, where it can be refused, expire and be dropped.

An executor cannot kill one task. A deadline answers the client, but the task keeps its worker until it ends
by itself, and a task that never ends has taken a worker for good.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.pool import PoolObserver
from service.offload.supervised_pool import Member, SupervisedPool
from service.offload.worker_main import Done, Packed, failure_of

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")

AWAY_SECONDS: Final = 1.0
"""A local executor is replaced sooner: what takes longer is an engine that is away, perhaps for long."""

RETRY_SECONDS: Final = 2.0
"""How often an engine that is away is looked for, at most: nobody should wait long once it is back."""

HANG_SECONDS: Final = 10.0
"""So long after every place is overdue nothing is expected any more. Not at once: a client may ask for a
deadline of milliseconds, and must not say whether the service is ready."""


class Executor(Member, Protocol):
    """What the pool needs of an executor. All its workers are up, or all are dead.

    Args:
        count: its workers.
        nice, most_result: see `lane.Lane`.
        died: called with the executor, and perhaps with why, if it breaks before `stop()`.
    """

    def __init__(
        self, count: int, nice: int, died: Callable[..., Any], most_result: float = math.inf
    ) -> None: ...

    @staticmethod
    def pack(function: Callable[..., Any], args: tuple[Any, ...], /) -> Packed: ...  # noqa: D102  # `Lane` says it

    @staticmethod
    def unpack(result: Any, /) -> Any: ...  # noqa: D102

    def submit(self, packed: Packed, submitted: float, until: float, /) -> asyncio.Future[Done]:
        """Hand a task over, to be run unless its turn comes later than `until`; the future has what became
        of it, or a `BrokenExecutor`.

        Raises:
            BrokenExecutor: the executor is broken already.
        """


class Opening(NamedTuple):
    """Where a task may go, and whether nothing else may go there meanwhile."""

    executor: Executor
    alone: bool


class ExecutorPool(SupervisedPool[T, Executor]):
    """Keeps one executor with `count` workers up. See `pool.Pool`.

    Which task a worker runs cannot be seen, but executors start tasks in the order in which they got them:
    the first `count` that are not done run, the others are ahead of their turn.

    Whose fault is it when a worker dies? The executor does not say; any task that was in it may have run.
    So each counts it as one of its attempts: work that must not run twice does not (`--task-attempts 1`).
    But a task that kills its worker every time would take its neighbours along, which would come with it
    again and again. So what was in a broken executor is tried again alone, one after the other: only the
    culprit is there when the next one breaks. For as long as that takes other workers idle, which is the
    price of sparing the innocent; `--offload process` pays none, for there the culprit is known. A task
    past its deadline holds the others up no longer: it may never end.

    Args:
        executor: the kind.
        nice, most_result: see `Executor`.
        elsewhere: it may be on other machines. Then it can be away for long: requests are refused meanwhile,
            it is looked for every few seconds, and to start this service anew would not help.
    """

    kind = "executor"
    passing = False  # it must be empty before a suspected task can come

    def __init__(
        self,
        executor: type[Executor],
        count: int,
        nice: int,
        metrics: Metrics,
        observer: PoolObserver[T],
        most_result: float = math.inf,
        *,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(1, count, metrics, observer)
        self.pack = executor.pack
        self.unpack = executor.unpack
        self._kind = executor
        self._nice = nice
        self._most_result = most_result
        self._executor: Executor | None = None
        self._running: dict[T, float] = {}  # since when
        self._ahead: dict[T, None] = {}
        self._overdue: set[T] = set()  # of these, those past their deadline
        self._broken: set[T] = set()  # of these, those that the executor has given up
        self._unsent: list[T] = []  # came after it broke
        self._alone = False
        self._has_served = False
        self._elsewhere = elsewhere
        self._away_since = math.inf
        self._full_since = 0.0  # of overdue tasks
        if elsewhere:
            self._longest_pause = RETRY_SECONDS

    @property
    def up(self) -> int:
        """See `Pool`."""
        return 0 if self._executor is None else self.count

    @property
    def in_flight(self) -> int:
        """See `Pool`."""
        return len(self._running) + len(self._ahead) + len(self._unsent)

    @property
    def running(self) -> int:
        """See `Pool`."""
        return len(self._running)

    @property
    def overdue(self) -> int:
        """See `Pool`."""
        return len(self._overdue)

    @property
    def healthy(self) -> bool:
        """See `Pool`."""
        if not self._elsewhere:
            return super().healthy
        if self.hangs:
            return False
        away = self._failed_starts > 0 or time.monotonic() - self._away_since > AWAY_SECONDS
        return self._breaker.closed and (self.up > 0 or not away)

    @property
    def hangs(self) -> bool:
        """Whether every place has long been taken by a task past its deadline: an engine without workers."""
        return len(self._overdue) >= self.count and time.monotonic() - self._full_since >= HANG_SECONDS

    @property
    def trouble(self) -> str:
        """See `Pool`."""
        return "all workers are overdue" if self._elsewhere and self.hangs else super().trouble

    @property
    def stuck(self) -> bool:
        """See `Pool`."""
        return super().stuck and not self._elsewhere

    def available(self, most: int, *, suspected: bool) -> Opening | None:
        """See `Pool`."""
        if self._executor is None or self._broken or not self._breaker.closed:
            return None
        if self.in_flight >= most * self.count:
            return None
        if (suspected or self._alone) and self.in_flight > len(self._overdue):
            return None
        return Opening(self._executor, suspected)

    def send(
        self, opening: Opening, task: T, packed: Packed, submitted: float, until: float = math.inf
    ) -> None:
        """See `Pool`."""
        try:
            future = opening.executor.submit(packed, submitted, until)
        except BrokenExecutor as error:
            self._unsent.append(task)
            self._broke(opening.executor, str(error))
            return
        self._alone = opening.alone
        if len(self._running) < self.count:
            self._running[task] = time.monotonic()
        else:
            self._ahead[task] = None
        future.add_done_callback(functools.partial(self._done, opening.executor, task))

    def expire(self, task: T) -> bool:
        """Nothing is killed for a deadline, so there is no need to call again."""
        self._overdue.add(task)
        if len(self._overdue) == self.count:
            self._full_since = time.monotonic()
        self._observer.dispatch()  # if it was to be alone, it is no longer
        return True

    def _done(self, executor: Executor, task: T, future: asyncio.Future[Done]) -> None:
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            self._broken.add(task)
            self._broke(executor, str(error))
            return
        now = time.monotonic()
        self._overdue.discard(task)
        since = self._running.pop(task, None)
        if since is None:  # an executor that keeps no order
            self._ahead.pop(task)
            since = now
        elif self._ahead:
            following = next(iter(self._ahead))
            del self._ahead[following]
            self._running[following] = now
        done = future.result() if error is None else Done(None, failure_of(error), 0.0, now - since, 0.0, 0)
        self._has_served = True
        self._succeeded()
        self._observer.finished([(task, done)], now - since)
        self._observer.dispatch()

    def _broke(self, executor: Executor, why: str = "a worker has died") -> None:
        """The executor is broken; its tasks are lost once it has given up all of them."""
        if self._stopping:  # it was killed for that, or is of no use any more
            executor.kill()
            return
        if executor is self._executor:  # else that is known, or it has not even started
            self._executor = None
            self._away_since = time.monotonic()
            executor.kill()
            log.warning("executor broken", error=why, workers=self.count, tasks=self.in_flight)
            if self.in_flight > len(self._unsent) or not self._has_served:
                self._count_death()
            self._replace(executor, RestartReason.CRASHED)
        if len(self._broken) + len(self._unsent) == self.in_flight:
            tried = len(self._broken)
            self._alone = False
            self._observer.lost(self._take_all(), tried)

    def _make(self) -> Executor:
        return self._kind(self.count, self._nice, self._broke, self._most_result)

    def _came_up(self, member: Executor) -> None:
        self._executor, self._has_served, self._away_since = member, False, math.inf

    def _has_work(self, member: Executor) -> bool:
        return member is self._executor and self.in_flight > 0

    def _take_all(self) -> list[T]:
        cut_off = [*self._running, *self._ahead, *self._unsent]
        for tasks in (self._running, self._ahead, self._overdue, self._broken, self._unsent):
            tasks.clear()
        return cut_off
