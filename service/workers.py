"""All workers: which are up, what each has been handed, and their replacement.

Knows lanes (lane.py) and when to give up on them (admission.Breaker). Knows nothing of queues or
deadlines: what is handed over is opaque, and comes back finished or, if its worker died, unfinished.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from metrics.instruments import Metrics
from service.admission import Breaker
from service.lane import Lane, Strategy, make
from service.runner import Done, Failure, Packed

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")

START_SECONDS: Final = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""

END_SECONDS: Final = 5.0
"""How long a worker with nothing left to do may take to end before it is killed: work may leave threads."""


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


class Workers(Generic[T]):
    """Keeps `count` workers up.

    Args:
        finished: told what came out of tasks of one worker, and how many seconds they kept it from the next.
        lost: told what a dead worker had, in order, and whether it died of the first of them.
        free: called when a worker may be handed something.
    """

    def __init__(
        self,
        strategy: Strategy,
        count: int,
        nice: int,
        metrics: Metrics,
        recycling: Recycling,
        *,
        finished: Callable[[list[tuple[T, Done]], float], Any],
        lost: Callable[[list[T], bool], Any],
        free: Callable[[], Any],
    ) -> None:
        self._strategy = strategy
        self._count = count
        self._nice = nice
        self._metrics = metrics
        self._recycling = recycling
        self._tell_finished = finished
        self._tell_lost = lost
        self._tell_free = free
        self._breaker = Breaker(count)
        self._lanes: set[Lane] = set()  # all that have not ended, up or not
        self._up: dict[Lane, Worker[T]] = {}
        self._where: dict[T, Worker[T]] = {}
        self._warm: Packed | None = None
        self._bringing: set[asyncio.Task[None]] = set()
        self._retiring: dict[Lane, asyncio.Task[None]] = {}
        self._stopping = False
        self._context = contextvars.copy_context()

    @property
    def up(self) -> int:
        """Workers that are up."""
        return len(self._up)

    @property
    def held(self) -> int:
        """Tasks that workers have, running or not."""
        return len(self._where)

    @property
    def running(self) -> int:
        """Tasks that run: one for each busy worker."""
        # A copy, because the admin thread asks, too.
        return sum(1 for worker in list(self._up.values()) if worker.held)

    @property
    def healthy(self) -> bool:
        """Whether requests have a chance: workers stay up, or it is time to see whether they do."""
        return self._breaker.closed or (bool(self._up) and self._breaker.is_due(time.monotonic()))

    def refusal(self) -> int | None:
        """None if a request may enter, else in how many seconds a worker will be tried again."""
        return self._breaker.refusal(time.monotonic())

    async def start(self, packed: Packed | None, *, try_out: bool) -> Failure | None:
        """Start every worker before the first request needs it.

        Args:
            packed: what they are to import.
            try_out: run it once; the failure of that comes back.

        Raises:
            Exception: a worker could not be started, or cannot import the work.
        """
        self._warm = packed
        try:
            async with asyncio.timeout(START_SECONDS):
                async with asyncio.TaskGroup() as group:  # if one fails, the others need not go on
                    starts = [group.create_task(self._start()) for _ in range(self._count)]
                if not try_out:
                    return None
                done = await starts[0].result().ask(packed)
        except TimeoutError:
            raise TimeoutError(f"not up after {START_SECONDS:g} s") from None
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if done.failure is None and done.peak_bytes > self._most_bytes():
            raise ValueError(f"a fresh worker uses {done.peak_bytes / 2**20:.0f} MiB, above the limit")
        return done.failure

    async def stop(self, seconds: float) -> int:
        """Let workers finish what they have within `seconds`; then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        for task in self._bringing:
            task.cancel()
        await asyncio.gather(*self._bringing, return_exceptions=True)
        working = [worker.lane for worker in self._up.values() if worker.held]
        for lane in self._lanes - self._retiring.keys():
            self._retire(lane, seconds if lane in working else min(seconds, END_SECONDS))
        await asyncio.gather(*self._retiring.values())
        cut_off = list(self._where)
        self._where.clear()
        self._tell_lost(cut_off, False)
        return len(cut_off)

    # What they are handed.

    def available(self, most: int) -> Worker[T] | None:
        """The worker with the least to do, if that is less than `most`."""
        best = None
        for worker in self._up.values():
            if len(worker.held) < most and not worker.retiring:
                best, most = worker, len(worker.held)
        return best

    def send(self, worker: Worker[T], item: T, packed: Packed, submitted: float) -> None:
        """Hand `item` to a worker."""
        if not worker.held:
            worker.since = time.monotonic()
        worker.held.append(item)
        self._where[item] = worker
        worker.lane.send(packed, submitted)

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
        if worker.served >= self._recycling.tasks or outcomes[-1].peak_bytes > self._most_bytes():
            worker.retiring = True
        if self._breaker.succeeded():
            log.info("workers stay up again")
        self._tell_finished(finished, seconds)
        if worker.retiring and not worker.held and not self._stopping:
            self._replace(lane, "recycled")
        self._tell_free()

    def _most_bytes(self) -> float:
        # A thread's memory is the service's own: a fresh one would have as much.
        return self._recycling.peak_bytes if self._strategy == "process" else math.inf

    # Losing and replacing them.

    def _died(self, lane: Lane) -> None:
        worker = self._up.get(lane)
        if worker is None:  # in a start that nobody waits for any more
            return
        overdue = worker.overdue is not None and worker.held and worker.held[0] is worker.overdue
        reason = "deadline" if worker.overdue is not None else "crashed"
        log.warning("worker lost", reason=reason, tasks=len(worker.held))
        # One that dies at work, or without having done any, may be one of many.
        if reason == "crashed" and (worker.held or not worker.served):
            self._count_death()
        for item in worker.held:
            del self._where[item]
        self._replace(lane, reason)
        self._tell_lost(list(worker.held), not overdue)

    def _count_death(self) -> None:
        if self._breaker.died(time.monotonic()):
            log.error("workers die faster than they can be replaced: only probes enter from here on")

    def _replace(self, lane: Lane, reason: str) -> None:
        del self._up[lane]
        self._metrics.restarts[reason].inc()
        if not self._stopping:
            self._retire(lane, END_SECONDS)
            # A worker outlives the request that it replaces another for: it must not log under its ids.
            task = asyncio.get_running_loop().create_task(self._bring_up(), context=self._context)
            self._bringing.add(task)
            task.add_done_callback(self._bringing.discard)

    async def _bring_up(self) -> None:
        pause = 0.0 if self._breaker.closed else self._breaker.pause
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._start()
                break
            except Exception as error:
                log.error("worker cannot be started", error=repr(error))  # noqa: TRY400  # a line is enough
                self._count_death()
                pause = self._breaker.pause
        self._tell_free()

    async def _start(self) -> Lane:
        lane = make(self._strategy, self._nice, self._finished, self._died)
        self._lanes.add(lane)
        try:
            await lane.start(self._warm)
        except BaseException:
            lane.kill()
            self._retire(lane, END_SECONDS)
            raise
        self._up[lane] = Worker(lane, deque())
        return lane

    def _retire(self, lane: Lane, seconds: float) -> None:
        """See a lane to its end in the background."""

        async def end() -> None:
            ending = asyncio.ensure_future(lane.end())
            done, _ = await asyncio.wait({ending}, timeout=None if seconds == math.inf else seconds)
            if not done:
                lane.kill()
                if self._strategy == "process":
                    await asyncio.wait({ending}, timeout=END_SECONDS)
            ending.cancel()
            self._lanes.discard(lane)
            del self._retiring[lane]

        self._retiring[lane] = asyncio.get_running_loop().create_task(end())
