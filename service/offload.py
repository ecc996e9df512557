"""The offload: admission, a queue of our own, and lanes that run what is in it, through futures.

Knows tasks, their order, deadlines and outcomes. Starts no process itself (lane.py) and decides about no
number itself (admission.py). Knows nothing of HTTP: handlers see `submit`, an answer, or one of a few
named failures.

First in, first out. With the wait bounded at the entrance, whoever is in the queue is still wanted when
his turn comes, and the order that is fair is also the one that wastes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from metrics.instruments import Metrics
from service.admission import Admission, Breaker
from service.background import in_background
from service.lane import Done, Lane, Packed, Report, Strategy, failure_of

log = structlog.get_logger("offloop.offload")
T = TypeVar("T")

LOOK_AGAIN_SECONDS: Final = 0.1
"""A task that passes its deadline in a call ahead is not running yet; is it, after this long?"""

START_SECONDS: Final = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""

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
    """The work raised. Carries the type, message and traceback as text; see `lane.Failure`."""

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
    kills: int = 0  # workers that died while they had this task
    alone: bool = False  # shares no call any more: one like it may have killed a worker
    call: Call | None = None  # while a worker has it


@dataclass(slots=True, eq=False)
class Call:
    """Tasks that were handed to one lane together."""

    lane: Lane
    tasks: list[Task]
    sent: float
    overdue: bool = False  # its worker was killed because a task passed its deadline


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker is replaced although it is well: after so many tasks, or above so many bytes."""

    tasks: float = math.inf
    peak_bytes: float = math.inf


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
        self.workers = 1 if strategy == "inline" else workers
        self._strategy = strategy
        self._metrics = metrics
        self._admission = admission or Admission(self.workers)
        self._breaker = Breaker(self.workers)
        self._attempts = attempts
        self._recycling = recycling or Recycling()
        self._lanes = [Lane(strategy, nice, self._worker_died) for _ in range(self.workers)]
        self._calls: dict[Lane, deque[Call]] = {}  # of the workers that are up; the first of each runs
        self._freed: dict[Lane, float] = {}  # when a lane last finished a call
        self._queue: OrderedDict[Task, None] = OrderedDict()
        self._warm: Packed | None = None
        self._replacing: set[asyncio.Task[None]] = set()
        self._retiring: set[Lane] = set()  # to be replaced when their calls are done
        self._handed_over = 0  # tasks that lanes have
        self._stopping = False
        metrics.offload_workers.set(self.workers)
        metrics.offload_limit.set_function(self._admission.most_waiting)
        metrics.offload_depth.set_function(lambda: self.waiting)
        metrics.offload_running.set_function(lambda: self.running)

    @property
    def running(self) -> int:
        """Tasks that a worker is running: one for each busy lane."""
        return sum(map(bool, list(self._calls.values())))  # a copy: the admin thread asks, too

    @property
    def waiting(self) -> int:
        """Tasks submitted and not yet running, whether a lane has them already or none."""
        return len(self._queue) + self._handed_over - self.running

    @property
    def healthy(self) -> bool:
        """Whether workers stay up."""
        return self._breaker.closed

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
            if function is not None:
                self._warm = self._lanes[0].pack(function, args)
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(lane.start(self._warm) for lane in self._lanes))
                if self._warm is not None and try_out:
                    await self._try_out(self._lanes[0], self._warm)
        except WorkError:
            raise
        except Exception as error:
            raise WorkerStartError(f"no {self._strategy} worker could be started: {error!r}") from error
        self._calls = {lane: deque() for lane in self._lanes}

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
            is_wanted: asked once, just before the work would start; False: it is not started.

        Raises:
            RejectedError: admission refused; ExpiredError: the deadline passed; UnwantedError: see
            `is_wanted`; WorkerLostError: workers died; WorkError: `function` raised.
        """
        now = time.monotonic()
        retry_after = self._refusal(now, deadline)
        if retry_after is None:
            retry_after = self._breaker.refusal(now)
        if retry_after is not None:
            self.reject()
            raise RejectedError(retry_after)
        loop = asyncio.get_running_loop()
        try:
            packed = self._lanes[0].pack(function, args)
        except Exception as error:
            self._metrics.tasks["failed"].inc()
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
                self._metrics.tasks["cancelled"].inc()
                self._drop(task)
            raise
        return result

    async def stop(self, seconds: float = math.inf) -> int:
        """Stop the workers; what they run may finish within `seconds`, then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        for task in self._replacing:
            task.cancel()
        while self._queue:
            self._settle(self._queue.popitem()[0], "cancelled", WorkerLostError("the workers stop"))
        for lane in self._lanes:
            lane.forget()
        # In the background: joining a worker blocks, and the loop still has answers to write.
        ends = [in_background("offload-stop", lane.shut_down) for lane in self._lanes]
        stopped = asyncio.ensure_future(asyncio.gather(*ends, *self._replacing, return_exceptions=True))
        try:
            await asyncio.wait_for(asyncio.shield(stopped), None if seconds == math.inf else seconds)
        except TimeoutError:
            cut_off = self.running
            log.warning("workers stopped at the deadline", tasks=cut_off)
            for lane in self._lanes:
                lane.kill()
            if self._strategy == "process":
                await stopped
            else:
                stopped.cancel()
            return cut_off
        return 0

    # Entering and leaving the queue.

    def refusal(self, deadline: float = math.inf) -> int | None:
        """What a request would hear that came now: None, or the seconds of `RejectedError`.

        Asked for every connection, so an empty queue is answered at once: nobody is refused then.
        """
        return self._refusal(time.monotonic(), deadline) if self._queue else None

    def reject(self) -> None:
        """Count a request that was refused at the door, by what `refusal` said."""
        self._metrics.tasks["rejected"].inc()

    def _refusal(self, now: float, deadline: float) -> int | None:
        first = next(iter(self._queue), None)
        return self._admission.refusal(
            waiting=self.waiting,
            running=self.running,
            up=len(self._calls),
            oldest=now - first.submitted if first is not None else 0.0,
            deadline=deadline,
        )

    def _expire(self, task: Task) -> None:
        """The deadline: nobody waits any longer, and a worker that is at it is ended."""
        self._settle(task, "expired", ExpiredError("the deadline passed"))
        self._queue.pop(task, None)
        call = task.call
        if call is None:
            return
        if self._calls[call.lane][0] is call:
            call.overdue = True
            call.lane.kill()
        else:
            loop = asyncio.get_running_loop()
            task.timer = loop.call_later(LOOK_AGAIN_SECONDS, self._expire, task)

    def _drop(self, task: Task) -> None:
        """Its caller has left. On a worker it still has its deadline: nothing runs for ever."""
        if task.call is None:
            self._queue.pop(task, None)
            self._forget_deadline(task)

    def _settle(self, task: Task, outcome: str, error: Exception) -> None:
        if not task.outcome.done():
            self._metrics.tasks[outcome].inc()
            task.outcome.set_exception(error)

    def _forget_deadline(self, task: Task) -> None:
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None

    # To the lanes and back.

    def _dispatch(self) -> None:
        while self._queue and not self._stopping:
            lane = min(
                (lane for lane in self._calls if lane not in self._retiring), key=self._load, default=None
            )
            if lane is None or self._load(lane) >= self._admission.calls_per_worker():
                return
            tasks = self._next_tasks()
            if tasks:
                self._send(lane, tasks)

    def _load(self, lane: Lane) -> int:
        return len(self._calls[lane])

    def _next_tasks(self) -> list[Task]:
        """The tasks of the next call, from the head of the queue."""
        most = self._admission.tasks_per_call(len(self._queue), len(self._calls))
        tasks: list[Task] = []
        while self._queue and len(tasks) < most:
            task = next(iter(self._queue))
            if task.alone and tasks:
                break
            del self._queue[task]
            if task.is_wanted is not None and not task.is_wanted():
                self._forget_deadline(task)
                self._settle(task, "cancelled", UnwantedError("its client has left"))
                continue
            tasks.append(task)
            if task.alone:
                break
        return tasks

    def _send(self, lane: Lane, tasks: list[Task]) -> None:
        call = Call(lane, tasks, time.monotonic())
        for task in tasks:
            task.call = call
        self._calls[lane].append(call)
        self._handed_over += len(tasks)
        try:
            future = lane.send([(task.packed, task.submitted) for task in tasks])
        except (BrokenExecutor, RuntimeError):  # it died idle, a moment ago: `_worker_died` follows
            lane.kill()
            return
        if future.done():  # inline: answered at once, or the accept loop takes further connections meanwhile
            self._returned(call, future)
            return
        loop = asyncio.get_running_loop()

        def done(future: Future[Report]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(self._returned, call, future)

        future.add_done_callback(done)

    def _returned(self, call: Call, future: Future[Report]) -> None:
        lane = call.lane
        calls = self._calls.get(lane)
        if calls is None or call not in calls or future.cancelled():
            return  # its worker was lost, and the tasks are on their way again
        error = future.exception()
        if isinstance(error, BrokenExecutor) and not self._stopping:
            lane.kill()  # if it is not dead yet; `_worker_died` follows
            return
        calls.remove(call)
        self._handed_over -= len(call.tasks)
        if isinstance(error, BrokenExecutor):
            for task in call.tasks:
                self._settle(task, "killed", WorkerLostError("the workers stop"))
            return
        lane.served += len(call.tasks)
        now = time.monotonic()
        if error is None:
            report = future.result()
            dones, peak = report.done, report.peak_bytes
            busy = now - max(call.sent, self._freed.get(lane, 0.0))
            self._admission.observe(busy, sum(done.took for done in dones), len(dones))
            if self._breaker.succeeded():
                log.info("workers stay up again")
        else:  # a result that cannot be read: the executor's failure, and not the work's
            dones, peak = [Done(None, failure_of(error), 0.0, 0.0, 0.0)] * len(call.tasks), 0
        for task, done in zip(call.tasks, dones, strict=True):
            self._finish(task, done, lane)
        self._freed[lane] = now
        if lane.served >= self._recycling.tasks or peak > self._recycling.peak_bytes:
            self._retiring.add(lane)
        if lane in self._retiring and not calls:
            del self._calls[lane]
            self._replace(lane, "recycled")
        self._dispatch()

    def _finish(self, task: Task, done: Done, lane: Lane) -> None:
        # What a task cost counts whether or not anybody still waited for it: the cores were busy.
        self._metrics.queue_wait.observe(done.waited)
        self._metrics.task_cpu.observe(done.cpu)
        task.call = None
        self._forget_deadline(task)
        if task.outcome.done():
            return
        failure, result = done.failure, None
        if failure is None:
            try:
                result = lane.unpack(done.result)
            except Exception as error:
                failure = failure_of(error)
        if failure is None:
            self._metrics.tasks["completed"].inc()
            task.outcome.set_result(result)
        else:
            self._settle(task, "failed", WorkError(*failure))

    # Losing workers and replacing them.

    def _worker_died(self, lane: Lane) -> None:
        calls = self._calls.pop(lane, deque())
        first = calls[0] if calls else None
        reason = "deadline" if first is not None and first.overdue else "crashed"
        if first is not None and reason == "crashed":
            self._count_death()
        for call in reversed(calls):
            self._handed_over -= len(call.tasks)
            for task in reversed(call.tasks):
                self._send_again(task, blame=call is first and reason == "crashed")
        log.warning("worker lost", reason=reason, tasks=sum(len(call.tasks) for call in calls))
        self._replace(lane, reason)
        self._dispatch()

    def _send_again(self, task: Task, *, blame: bool) -> None:
        task.call = None
        if task.outcome.done():
            self._forget_deadline(task)
            return
        if blame:
            task.kills += 1
            task.alone = True  # who of them killed the worker is not known: next time there is no doubt
        if task.kills < self._attempts:
            self._queue[task] = None
            self._queue.move_to_end(task, last=False)
        else:
            self._forget_deadline(task)
            self._settle(task, "killed", WorkerLostError(f"it has ended {task.kills} workers"))

    def _count_death(self) -> None:
        if self._breaker.died(time.monotonic()):
            log.error("workers die faster than they can be replaced: only probes enter from here on")

    def _replace(self, lane: Lane, reason: str) -> None:
        self._metrics.restarts[reason].inc()
        lane.give_up()
        self._retiring.discard(lane)
        if not self._stopping:
            task = asyncio.get_running_loop().create_task(self._bring_up(lane))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)

    async def _bring_up(self, lane: Lane) -> None:
        while True:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await lane.start(self._warm)
                break
            except Exception as error:
                log.error("worker cannot be started", error=repr(error))  # noqa: TRY400  # a line is enough
                lane.give_up()
                self._count_death()
            await asyncio.sleep(self._breaker.pause)
        self._calls[lane] = deque()
        self._dispatch()

    async def _try_out(self, lane: Lane, packed: Packed) -> None:
        future = lane.send([(packed, time.monotonic())])
        report = future.result() if future.done() else await asyncio.wrap_future(future)
        if (failure := report.done[0].failure) is not None:
            raise WorkError(*failure)
