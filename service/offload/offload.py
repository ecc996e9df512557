"""The offload: what runs a function on a worker, and the gate that asks admission first.

Knows admission (admission.py) and the queue (queue.py). Knows nothing of HTTP: handlers see `submit`, a
result, or one of a few named failures (errors.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from metrics.instruments import Metrics, TaskOutcome
from service.offload.admission import Admission, Before
from service.offload.classes import Place
from service.offload.errors import (
    QuarantinedError,
    RejectedError,
    TooLargeError,
    WorkError,
    WorkerStartError,
)
from service.offload.pool import Pool, PoolObserver
from service.offload.quarantine import Standing
from service.offload.queue import TaskQueue
from service.offload.task import USUAL, Rank, Task
from service.offload.worker_main import failure_of

T = TypeVar("T")

ATTEMPTS: Final = 2
"""How often a task is tried if its worker dies under it. A task that has killed two is no accident."""


REFUSED_SECONDS: Final = 1.0
"""For how long a refusal counts as one of the present; as in net/refusing.py."""

HOLDS_SECONDS: Final = 0.001
"""For how long a no holds: a fraction of what any wait can be told to. To find out what a request has before
it takes a seventh of the CPU time of a refusal, and those that come in one turn of the loop are alike."""


class No(NamedTuple):
    """What a request was told that came then: who comes just after, and has waited for as long, is told the
    same."""

    retry_after: int
    until: float
    rank: Rank
    deadline: float
    waited: float


class Offload:
    """Runs functions on the workers of a pool, and tells the metrics what became of each.

    Args:
        make_pool: makes the pool, for example `strategies.pool_for("process", ...)`.
        admission: which requests are admitted; by default all.
        attempts: how often a task is tried if its worker dies; 1 for work that must not run twice.
        most_bytes: that arguments and results of tasks may have together until their callers have an answer,
            as they travel; those that do not travel count nothing.
    """

    def __init__(
        self,
        make_pool: Callable[[PoolObserver[Task]], Pool[Task]],
        metrics: Metrics,
        admission: Admission | None = None,
        attempts: int = ATTEMPTS,
        most_bytes: float = math.inf,
    ) -> None:
        self._queue = TaskQueue(make_pool, metrics, admission, attempts)
        self._pool = self._queue.pool
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._arguments = 0  # bytes of those whose callers have no answer yet
        self._refused = -math.inf  # when the last request was
        self._no: No | None = None  # the last that the gate has said
        metrics.offload_workers.set(self._pool.count)
        metrics.offload_limit.set_function(self._queue.room.limit)
        metrics.offload_predicted_wait.set_function(self._queue.room.predicted_wait)
        metrics.offload_depth.set_function(lambda: self.waiting)
        metrics.offload_bytes.set_function(lambda: self.bytes)
        metrics.offload_running.set_function(lambda: self.running)
        metrics.offload_overdue.set_function(lambda: self._pool.overdue)

    @property
    def count(self) -> int:
        """Workers when all of them are up."""
        return self._pool.count

    @property
    def running(self) -> int:
        """Tasks that workers run."""
        return self._pool.running

    @property
    def waiting(self) -> int:
        """Tasks submitted and not yet running, whether a worker has them already or none."""
        return self._queue.room.waiting

    @property
    def bytes(self) -> int:
        """Of arguments and large results of tasks whose callers have no answer yet."""
        return self._arguments + self._queue.outcomes.bytes

    @property
    def healthy(self) -> bool:
        """Whether requests have a chance."""
        return self._pool.healthy

    @property
    def trouble(self) -> str:
        """Why it is not healthy."""
        return self._pool.trouble

    @property
    def stuck(self) -> bool:
        """Whether no worker is up, and none could be started for long: a restart may help."""
        return self._pool.stuck

    async def start(
        self, function: Callable[..., Any] | None = None, *args: Any, try_out: bool = True
    ) -> None:
        """Start every worker before the first request needs it; let it import what `function` needs.

        Args:
            try_out: run `function(*args)` once.

        Raises:
            WorkerStartError: a worker could not be started, or cannot run `function` at all (it is
            not picklable, say); WorkError: `function` raised.
        """
        try:
            packed = None if function is None else self._pool.pack(function, args)
            failure = await self._pool.start(packed, try_out=try_out and function is not None)
        except Exception as error:
            raise WorkerStartError(f"no {self._pool.kind} worker could be started: {error!r}") from error
        if failure is not None:
            raise WorkError(*failure)

    async def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        deadline: float = math.inf,
        limit: float = 0.0,
        arrived: float | None = None,
        is_wanted: Callable[[], bool] | None = None,
        place: Place | None = None,
        rank: Rank = USUAL,
    ) -> T:
        """Run `function(*args)` on a worker and return its result.

        Args:
            deadline: seconds from `arrived` after which the caller has no use for the result. A task that has
                not started by then never does.
            limit: seconds from `arrived` after which the task is ended by force if it has started, where that
                can be done; not before the deadline.
            arrived: when the request came, by `time.monotonic()`; None: now.
            is_wanted: asked just before the task is handed to a worker; False: it is not.
            place: the one that `expect` kept for it: it is not refused for the length of the queue.
            rank: where it stands in the queue.

        Raises:
            RejectedError: admission refused, or the task has left the queue for one that is more urgent;
            TooLargeError: the arguments never fit; ExpiredError: the deadline passed; UnwantedError: see
            `is_wanted`; WorkerLostError: workers died; QuarantinedError: the same call has killed workers;
            WorkError: `function` raised.
        """
        now = time.monotonic()
        arrived = now if arrived is None else arrived
        is_promised = place is not None and place.release()
        before = self._queue.room.before(now, rank, with_places=not is_promised)
        retry_after = self._retry_after(
            now, before, rank, deadline=deadline, waited=now - arrived, is_promised=is_promised
        )
        if retry_after is not None:
            self.reject(rank)
            raise RejectedError(retry_after)
        loop = asyncio.get_running_loop()
        try:
            packed = self._pool.pack(function, args)
        except Exception as error:
            self._metrics.task(TaskOutcome.FAILED, rank.urgency)
            raise WorkError(*failure_of(error)) from None
        size = len(packed) if isinstance(packed, bytes) else 0
        if size > self._most_bytes:
            self._metrics.task(TaskOutcome.FAILED, rank.urgency)
            raise TooLargeError(f"the arguments have {size} bytes, {self._most_bytes} are allowed")
        until, limit = arrived + deadline, arrived + max(deadline, limit)
        task = Task(packed, now, loop.create_future(), is_wanted, size, until, limit, rank=rank)
        if self._queue.admission.seconds is not None:
            task.expected = self._queue.admission.wait(before)
        if self._queue.standing(task) is Standing.HELD:
            self._metrics.task(TaskOutcome.QUARANTINED, rank.urgency)
            raise QuarantinedError("the same call killed workers")
        if self.bytes + size > self._most_bytes:
            self.reject(rank)
            raise RejectedError(1)
        if deadline < math.inf:
            task.timer = loop.call_later(arrived + deadline - now, self._queue.expire, task)
        self._arguments += size
        try:
            self._queue.put(task)
            result: T = await task.outcome
        except asyncio.CancelledError:
            self._queue.drop(task)
            raise
        finally:
            self._arguments -= size
        return result

    async def stop(self, seconds: float = math.inf) -> int:
        """Stop the workers; what they have may finish within `seconds`, then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._queue.close()
        return await self._pool.stop(seconds)

    # The gate: what is asked about a request before it is parsed (web/early_reject.py).

    def may_refuse(self) -> bool:
        """Whether any request might be refused at present: as many tasks wait as there are workers, even if
        all of them have been handed ahead; or none is handed over; or one has been refused just now, for
        whatever reason, even if none waits.

        Else, once the loop is late, it would stay so: workers run out of tasks meanwhile, all who come in the
        next turn are let in for that, and all but a few refused after they have been parsed. At 4,000
        requests a second that took the whole loop, and goodput fell to a third for as long as they came.
        """
        if self._queue or self._queue.room.waiting >= self._queue.admission.workers:
            return True
        return not self._pool.healthy or time.monotonic() - self._refused < REFUSED_SECONDS

    def retry_after(
        self, deadline: float = math.inf, arrived: float | None = None, rank: Rank = USUAL
    ) -> int | None:
        """What `submit` would say now: None, or the seconds after which to ask again. For the arguments see
        there."""
        now = time.monotonic()
        waited = 0.0 if arrived is None else now - arrived
        if (no := self._no) is not None:
            if now < no.until and waited >= no.waited and (no.rank, no.deadline) == (rank, deadline):
                return no.retry_after
            self._no = None
        before = self._queue.room.before(now, rank)
        retry_after = self._retry_after(now, before, rank, deadline=deadline, waited=waited)
        if retry_after is not None:
            self._no = No(retry_after, now + HOLDS_SECONDS, rank, deadline, waited)
        return retry_after

    def expect(self, rank: Rank = USUAL) -> Place:
        """A request that would be admitted is on its way: its place is kept until it is released.

        It counts as waiting from now on. Else all that come in one instant would be let through for one
        place, and all but one of them refused after they have been parsed.
        """
        return self._queue.expect(rank)

    def reject(self, rank: Rank = USUAL) -> None:
        """Count a request that is refused."""
        self._refused = time.monotonic()
        self._metrics.task(TaskOutcome.REJECTED, rank.urgency)

    def _retry_after(
        self,
        now: float,
        before: Before,
        rank: Rank,
        *,
        deadline: float,
        waited: float,
        is_promised: bool = False,
    ) -> int | None:
        """What the breaker says, the share of its client, then admission."""
        if self._queue.closed:
            return 1
        retry_after = self._pool.retry_after(now)
        if retry_after is not None:
            return retry_after
        if not is_promised and not self._queue.room.has_share(rank, before.margin):
            return 1
        return self._queue.admission.retry_after(
            before, deadline=deadline, waited=waited, is_promised=is_promised
        )
