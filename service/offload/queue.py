"""The offload: admission, a queue of our own, and workers that run what is in it, through futures.

Knows tasks, their order, deadlines and outcomes. Keeps no worker alive itself (pool.py) and decides about
no number itself (admission.py). Knows nothing of HTTP: handlers see `submit`, an answer, or one of a few
named failures.

First in, first out. With the wait bounded at the entrance, whoever is in the queue is still wanted when
his turn comes, and the order that is fair is also the one that wastes nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from metrics.instruments import Metrics, TaskOutcome
from service.offload.admission import Admission
from service.offload.executor_pool import ExecutorPool
from service.offload.lane import Strategy, pack, unpack
from service.offload.lane_pool import Recycling, Workers
from service.offload.pool import Crew, Told
from service.offload.worker_main import Done, Packed, failure_of

T = TypeVar("T")

LOOK_AGAIN_SECONDS: Final = 0.1
"""A task may pass its deadline while its worker runs another: it is looked for again after this long."""

ATTEMPTS: Final = 2
"""How often a task is tried if its worker dies under it. A task that has killed two is no accident."""


class OffloadError(Exception):
    """The work has no result; the subclass says why."""


class RejectedError(OffloadError):
    """Admission refused the request; nothing was started. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"no room; try again in {retry_after} s")
        self.retry_after = retry_after


class ExpiredError(OffloadError):
    """The deadline passed before the work was done."""


class UnwantedError(OffloadError):
    """Nobody waited for the work any more when its turn came; it was not started."""


class WorkerLostError(OffloadError):
    """The worker died under the task, as often as it may."""


class WorkerStartError(OffloadError):
    """A worker could not be started at all."""


class WorkError(OffloadError):
    """The work raised. Carries the type, message and traceback as text; see `runner.Failure`."""

    def __init__(self, summary: str, details: str) -> None:
        super().__init__(summary, details)
        self.summary = summary
        self.details = details

    def __str__(self) -> str:
        """The exception's type and message."""
        return self.summary


@dataclass(slots=True, eq=False)
class Task:
    """One function call that somebody waits for."""

    packed: Packed
    submitted: float
    outcome: asyncio.Future[Any]
    is_wanted: Callable[[], bool] | None
    timer: asyncio.TimerHandle | None = None
    kills: int = 0  # times that it may have been the end of a worker
    handed_over: bool = False  # a worker has it


class Offload:
    """Runs functions where `strategy` says, and tells the metrics what became of each.

    Args:
        workers: how many tasks may run at the same time; inline has one, the loop itself.
        nice: added to the workers' niceness.
        admission: who may enter; by default everybody.
        attempts: how often a task is tried if its worker dies; 1 for work that must not run twice.
    """

    def __init__(
        self,
        strategy: Strategy,
        workers: int,
        nice: int,
        metrics: Metrics,
        admission: Admission | None = None,
        attempts: int = ATTEMPTS,
        recycling: Recycling | None = None,
    ) -> None:
        self.count = count = 1 if strategy == "inline" else workers
        self._strategy = strategy
        self._metrics = metrics
        self._admission = admission or Admission(count)
        self._attempts = attempts
        told: Told[Task] = Told(finished=self._finished, lost=self._lost, free=self._dispatch)
        self._workers: Crew[Task, Any]
        if strategy == "executor":
            self._workers = ExecutorPool(count, nice, metrics, told)
        else:
            self._workers = Workers(strategy, count, nice, metrics, recycling or Recycling(), told)
        self._queue: OrderedDict[Task, None] = OrderedDict()
        self._expected = 0  # let through at the door, not yet here
        self._stopping = False
        metrics.offload_workers.set(count)
        metrics.offload_limit.set_function(self._admission.most_waiting)
        metrics.offload_depth.set_function(lambda: self.waiting)
        metrics.offload_running.set_function(lambda: self.running)

    @property
    def running(self) -> int:
        """Tasks that a worker is running."""
        return self._workers.running

    @property
    def waiting(self) -> int:
        """Tasks submitted and not yet running, whether a worker has them already or none."""
        return len(self._queue) + self._workers.held - self._workers.running

    @property
    def healthy(self) -> bool:
        """Whether requests have a chance."""
        return self._workers.healthy

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
            packed = None if function is None else pack(self._strategy, function, args)
            failure = await self._workers.start(packed, try_out=try_out and function is not None)
        except Exception as error:
            raise WorkerStartError(f"no {self._strategy} worker could be started: {error!r}") from error
        if failure is not None:
            raise WorkError(*failure)

    async def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        deadline: float = math.inf,
        is_wanted: Callable[[], bool] | None = None,
    ) -> T:
        """Run `function(*args)` on a worker and return its result.

        Args:
            deadline: seconds from now after which the caller has no use for the result.
            is_wanted: asked just before the work is handed to a worker; False: it is not.

        Raises:
            RejectedError: admission refused; ExpiredError: the deadline passed; UnwantedError: see
            `is_wanted`; WorkerLostError: workers died; WorkError: `function` raised.
        """
        now = time.monotonic()
        self._expected = max(0, self._expected - 1)
        retry_after = 1 if self._stopping else self._refusal(now, deadline)
        if retry_after is None:
            retry_after = self._workers.refusal()
        if retry_after is not None:
            self.reject()
            raise RejectedError(retry_after)
        loop = asyncio.get_running_loop()
        try:
            packed = pack(self._strategy, function, args)
        except Exception as error:
            self._metrics.tasks[TaskOutcome.FAILED].inc()
            raise WorkError(*failure_of(error)) from None
        task = Task(packed, now, loop.create_future(), is_wanted)
        if deadline < math.inf:
            task.timer = loop.call_later(deadline, self._expire, task)
        self._queue[task] = None
        self._dispatch()
        try:
            result: T = await task.outcome
        except asyncio.CancelledError:
            if task.outcome.cancelled():  # else it was counted a moment before its caller left
                self._metrics.tasks[TaskOutcome.CANCELLED].inc()
                self._drop(task)
            raise
        return result

    async def stop(self, seconds: float = math.inf) -> int:
        """Stop the workers; what they have may finish within `seconds`, then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        while self._queue:
            self._lost([self._queue.popitem()[0]], 0)
        return await self._workers.stop(seconds)

    # Entering and leaving the queue.

    def is_queueing(self) -> bool:
        """Whether anything waits that no worker has yet. If not, nobody is refused for the wait."""
        if not self._queue:
            self._expected = 0  # whoever was expected and never came is forgotten
        return bool(self._queue)

    def refusal(self, deadline: float = math.inf) -> int | None:
        """What admission would say to a request that came now: None, or the seconds of `RejectedError`."""
        return self._refusal(time.monotonic(), deadline, self._expected)

    def expect(self) -> None:
        """A request that `refusal` would admit is on its way.

        It counts from now on. Else all that come in one instant would be let in for one place, and all
        but one of them refused at the end of the long way.
        """
        self._expected += 1

    def reject(self) -> None:
        """Count a request that was refused at the door, by what `refusal` said."""
        self._metrics.tasks[TaskOutcome.REJECTED].inc()

    def _refusal(self, now: float, deadline: float, expected: int = 0) -> int | None:
        first = next(iter(self._queue), None)
        running = self._workers.running
        return self._admission.refusal(
            waiting=expected + len(self._queue) + self._workers.held - running,
            running=running,
            up=self._workers.up,
            oldest=now - first.submitted if first is not None else 0.0,
            deadline=deadline,
        )

    def _expire(self, task: Task) -> None:
        """The deadline: nobody waits any longer, and a worker of its own that is at it is ended."""
        self._settle(task, TaskOutcome.EXPIRED, ExpiredError("the deadline passed"))
        self._queue.pop(task, None)
        if task.handed_over and not self._workers.end(task):
            task.timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._expire, task)

    def _drop(self, task: Task) -> None:
        """Its caller has left. On a worker it still has its deadline: nothing runs for ever."""
        if not task.handed_over:
            self._queue.pop(task, None)
            self._forget_deadline(task)

    def _settle(self, task: Task, outcome: TaskOutcome, error: Exception) -> None:
        if not task.outcome.done():
            self._metrics.tasks[outcome].inc()
            task.outcome.set_exception(error)

    def _forget_deadline(self, task: Task) -> None:
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None

    # To the workers and back.

    def _dispatch(self) -> None:
        while self._queue and not self._stopping:
            task = next(iter(self._queue))
            place = self._workers.available(self._admission.tasks_per_worker(), suspected=task.kills > 0)
            if place is None:
                return
            del self._queue[task]
            if task.is_wanted is not None and not task.is_wanted():
                self._forget_deadline(task)
                self._settle(task, TaskOutcome.CANCELLED, UnwantedError("its client has left"))
                continue
            task.handed_over = True
            self._workers.send(place, task, task.packed, task.submitted)

    def _finished(self, outcomes: list[tuple[Task, Done]], seconds: float) -> None:
        self._admission.observe(seconds, sum(done.took for _, done in outcomes), len(outcomes))
        for task, done in outcomes:
            self._finish(task, done)

    def _finish(self, task: Task, done: Done) -> None:
        # What a task cost counts whether or not anybody still waited for it: the cores were busy.
        self._metrics.queue_wait.observe(done.waited)
        self._metrics.task_cpu.observe(done.cpu)
        self._forget_deadline(task)
        if task.outcome.done():
            return
        failure, result = done.failure, None
        if failure is None:
            try:
                result = unpack(self._strategy, done.result)
            except Exception as error:
                failure = failure_of(error)
        if failure is None:
            self._metrics.tasks[TaskOutcome.COMPLETED].inc()
            task.outcome.set_result(result)
        else:
            self._settle(task, TaskOutcome.FAILED, WorkError(*failure))

    def _lost(self, tasks: list[Task], suspects: int) -> None:
        """No worker has them any more; of the first `suspects` one may have died."""
        for number, task in reversed(list(enumerate(tasks))):
            task.handed_over = False
            task.kills += number < suspects
            if not self._stopping and not task.outcome.done() and task.kills < self._attempts:
                self._queue[task] = None
                self._queue.move_to_end(task, last=False)
                continue
            self._forget_deadline(task)
            why = "the workers stop" if self._stopping else f"workers died under it, {task.kills} times"
            self._settle(
                task, TaskOutcome.KILLED if task.kills else TaskOutcome.CANCELLED, WorkerLostError(why)
            )
        self._dispatch()
