"""The queue: order, deadlines and attempts of tasks, and what became of each.

Keeps no worker alive itself (pool.py) and decides about no number itself (admission.py). It observes its
pool: workers with room are handed tasks, outcomes settle them, and tasks of a dead worker are tried again.

The most urgent first (classes.py), and within a class first in, first out. With the wait bounded at the
entrance, a task in the queue is still wanted when its turn comes, and the order that is fair is also the one
that wastes nothing. A class waits for its own and for more urgent ones alone. One that is less urgent is
passed, again and again: so whoever is passed leaves before it has waited for nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from metrics.instruments import Metrics, TaskOutcome
from service.offload.admission import Admission
from service.offload.classes import Classes, Place
from service.offload.errors import (
    ExpiredError,
    QuarantinedError,
    RejectedError,
    UnwantedError,
    WorkerLostError,
)
from service.offload.outcomes import Outcomes
from service.offload.pool import Pool, PoolObserver
from service.offload.quarantine import HELD_SECONDS, KILLS, Quarantine, Standing
from service.offload.room import Room
from service.offload.task import Rank, Task
from service.offload.worker_main import LATE, Done

log = structlog.get_logger("offloop.workers")

EARLY_SECONDS: Final = 0.002
"""By so much a timer may come too early: uvloop rounds the delay to a millisecond, and libuv counts it from a
clock that it has rounded down to one."""

LOOK_AGAIN_SECONDS: Final = 0.1
"""A task may pass its deadline while its worker runs another: it is looked at again after this long."""


class TaskQueue:
    """Tasks that wait, in order, and the pool that runs them. See `pool.PoolObserver`.

    Args:
        make_pool: makes the pool that this queue observes (strategies.py).
        admission: is told what tasks take; by default it admits every one.
        attempts: how often a task is tried if its worker dies.
    """

    def __init__(
        self,
        make_pool: Callable[[PoolObserver[Task]], Pool[Task]],
        metrics: Metrics,
        admission: Admission | None,
        attempts: int,
    ) -> None:
        self.pool = make_pool(self)
        self.admission = admission or Admission(self.pool.count)
        self.outcomes = Outcomes(metrics, self.pool.unpack)
        self.closed = False
        self._metrics = metrics
        self._attempts = attempts
        self._classes = Classes(lambda one: metrics.watch_waiting(one.urgency, lambda: len(one.tasks)))
        self._quarantine = Quarantine(max(KILLS, attempts))
        self.room = Room(self._classes, self.pool, self.admission, self._counts)

    def __len__(self) -> int:
        """Tasks that no worker has yet."""
        return len(self._classes)

    def standing(self, task: Task) -> Standing:
        """What is known of a task.

        Where others pass suspected ones, only tasks that have been on a dead worker are: where all requests
        are the same call, one accident would else keep all of them from the last worker.
        """
        if not self._quarantine.calls:
            return Standing.GOOD
        known = self._quarantine.standing(task.name, time.monotonic())
        passed_by = known is Standing.SUSPECTED and self.pool.passing
        return Standing.GOOD if passed_by and not task.kills else known

    def _counts(self, task: Task) -> bool:
        # Others pass a suspected task, so that it waits for long says nothing about them.
        return not self.pool.passing or self.standing(task) is Standing.GOOD

    # What callers do.

    def put(self, task: Task) -> None:
        """Append a task to its class; it is handed over as soon as a worker has room.

        If the queue is too long with it, one that is less urgent leaves (room.py).
        """
        self._classes.add(task)
        self.dispatch()
        if not task.outcome.done() and (found := self.room.leaving(task.rank.urgency)) is not None:
            other, retry_after = found
            self._classes.remove(other)
            other.forget_deadline()
            self.outcomes.settle(other, TaskOutcome.REJECTED, RejectedError(retry_after))

    def expect(self, rank: Rank) -> Place:
        """See `Offload.expect`."""
        return Place(self._classes.of(rank.urgency), rank.client)

    def expire(self, task: Task) -> None:
        """The deadline has passed: the caller gets an error. A task that has started keeps its worker until
        it ends, or its limit has passed as well: then the pool may kill the worker."""
        self.outcomes.settle(task, TaskOutcome.EXPIRED, ExpiredError("the deadline passed"))
        self._classes.remove(task)
        if not task.in_flight:
            return
        left = task.limit - time.monotonic()
        is_over = left <= EARLY_SECONDS
        if is_over and self.pool.expire(task):
            return
        if left < math.inf:
            again = LOOK_AGAIN_SECONDS if is_over else left
            task.timer = asyncio.get_running_loop().call_later(again, self.expire, task)

    def drop(self, task: Task) -> None:
        """The caller has left. On a worker the task keeps its limit, so that it cannot run for ever."""
        if task.outcome.cancelled():  # else it was counted a moment before its caller left
            self._metrics.task(TaskOutcome.CANCELLED, task.rank.urgency)
            if not task.in_flight:
                self._classes.remove(task)
                task.forget_deadline()

    def close(self) -> None:
        """Hand over no more, and fail what waits."""
        self.closed = True
        for task in list(self._classes):
            self._classes.remove(task)
            self.lost([task], 0)

    # What the pool reports.

    def dispatch(self) -> None:
        """See `PoolObserver`."""
        while self._classes and not self.closed and (chosen := self._next()) is not None:
            task, opening = chosen
            self._classes.remove(task)
            if opening is None:
                self._refuse_held(task)
                continue
            if task.is_wanted is not None and not task.is_wanted():
                task.forget_deadline()
                self.outcomes.settle(task, TaskOutcome.CANCELLED, UnwantedError("its client has left"))
                continue
            task.in_flight, task.sent = True, time.monotonic()
            # The timer may already have told the caller that it is late.
            self.pool.send(opening, task, task.packed, task.submitted, task.until - EARLY_SECONDS)

    def finished(self, outcomes: list[tuple[Task, Done]], seconds: float) -> None:
        """See `PoolObserver`."""
        if ran := [done.took for _, done in outcomes if done.failure != LATE]:
            self.admission.observe(seconds, sum(ran), len(ran))
        now = time.monotonic()
        for task, done in outcomes:
            task.in_flight = False
            self._classes.kept_busy(task, seconds / len(outcomes), now)
            if self._counts(task):
                self._classes.of(task.rank.urgency).missed(
                    min(done.waited - task.expected, self.admission.most_margin), now
                )
            if done.failure == LATE:
                task.forget_deadline()
                self.outcomes.settle(task, TaskOutcome.EXPIRED, ExpiredError(done.failure.summary))
                continue
            if self._quarantine.calls:
                self._quarantine.finished(task.name)
            # What a task cost counts even if its caller has left: the cores were busy.
            self._metrics.queue_wait.observe(done.waited)
            self._metrics.task_cpu.observe(done.cpu)
            if done.failure is None:
                self.outcomes.returned(task, done.result)
            else:
                self.outcomes.failed(task, done.failure)

    def lost(self, tasks: list[Task], tried: int, *, blamed: bool = True) -> None:
        """See `PoolObserver`. Each goes back to the head of its class, unless it has used up its attempts."""
        now = time.monotonic()
        for number, task in reversed(list(enumerate(tasks))):
            # What a worker was killed for, which blames nobody, may not count as tried, and yet kept it busy.
            if number < tried or (number == 0 and not blamed):
                self._classes.kept_busy(task, now - task.sent, now)
            task.in_flight, task.expected = False, math.inf
            if number < tried:
                task.kills += 1
                if blamed:
                    self._blame(task)
            if not self.closed and not task.outcome.done() and task.kills < self._attempts:
                self._classes.add(task, first=True)
                continue
            task.forget_deadline()
            why = "the workers stop" if self.closed else f"workers died under it, {task.kills} times"
            self.outcomes.settle(
                task, TaskOutcome.KILLED if task.kills else TaskOutcome.CANCELLED, WorkerLostError(why)
            )
        self.dispatch()

    def _next(self) -> tuple[Task, Any] | None:
        """The task whose turn it is, and where it goes, None if it is not to run. None: nobody's turn."""
        most = self.admission.tasks_per_worker()
        passed = False
        for task in self._classes:
            standing = self.standing(task)
            if standing is Standing.HELD:
                return task, None
            suspected = standing is Standing.SUSPECTED
            if suspected and passed:
                continue
            opening = self.pool.available(most, suspected=suspected)
            if opening is not None:
                return task, opening
            if not suspected or not self.pool.passing:
                return None
            passed = True
        return None

    def _refuse_held(self, task: Task) -> None:
        task.forget_deadline()
        self.outcomes.settle(task, TaskOutcome.QUARANTINED, QuarantinedError("the same call killed workers"))

    def _blame(self, task: Task) -> None:
        """A worker died, and `task` may have killed it."""
        call = task.name
        if call and self._quarantine.killed(call, sent=task.sent, now=time.monotonic()):
            log.error("call quarantined", call=call.hex(), seconds=HELD_SECONDS, kills=task.kills)
            # At once, and not when their turn comes: behind a class that is always busy they would stay, and
            # each request that asks who is first would look at all of them.
            for other in [one for one in self._classes if one.name == call]:
                self._classes.remove(other)
                self._refuse_held(other)
