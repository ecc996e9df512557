"""All workers: which are up, what each has been handed, and their replacement.

Knows lanes (lane.py) and when to give up on them (admission.Breaker). Knows nothing of queues or
deadlines: what is handed over is opaque, and comes back finished or, if its worker died, unfinished.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from metrics.instruments import Metrics
from service.admission import Breaker
from service.background import in_background
from service.lane import Lane, Strategy, make
from service.runner import Done, Failure, Packed

log = structlog.get_logger("offloop.workers")
T = TypeVar("T")

START_SECONDS: Final = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""


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
    overdue: bool = False  # killed because what it ran had passed its deadline
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
        self._lanes = [make(strategy, nice, self._finished, self._died) for _ in range(count)]
        self._metrics = metrics
        self._recycling = recycling
        self._tell_finished = finished
        self._tell_lost = lost
        self._tell_free = free
        self._breaker = Breaker(count)
        self._up: dict[Lane, Worker[T]] = {}
        self._where: dict[T, Worker[T]] = {}
        self._warm: Packed | None = None
        self._replacing: set[asyncio.Task[None]] = set()
        self._stopping = False

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
        return sum(
            1 for worker in list(self._up.values()) if worker.held
        )  # a copy: the admin thread asks, too

    @property
    def healthy(self) -> bool:
        """Whether workers stay up."""
        return self._breaker.closed

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
        failure = None
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*(lane.start(packed) for lane in self._lanes))
            if try_out:
                failure = (await self._lanes[0].ask(packed)).failure
        self._up = {lane: Worker(lane, deque()) for lane in self._lanes}
        return failure

    async def stop(self, seconds: float) -> int:
        """Let workers finish what they have within `seconds`; then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        for task in self._replacing:
            task.cancel()
        for lane in self._lanes:
            lane.forget()
        # In the background: joining a worker blocks, and the loop still has answers to write.
        ends = [in_background("worker-stop", lane.shut_down) for lane in self._lanes]
        stopped = asyncio.ensure_future(asyncio.gather(*ends, *self._replacing, return_exceptions=True))
        cut_off = 0
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
        if self._where:
            self._tell_lost(list(self._where), False)
        return cut_off

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
        worker.overdue = True
        worker.lane.kill()
        return True

    def _finished(self, lane: Lane, outcomes: list[Done]) -> None:
        worker = self._up[lane]
        now = time.monotonic()
        seconds, worker.since = now - worker.since, now
        finished = [(worker.held.popleft(), done) for done in outcomes]
        for item, _ in finished:
            del self._where[item]
        worker.served += len(finished)
        if worker.served >= self._recycling.tasks or outcomes[-1].peak_bytes > self._recycling.peak_bytes:
            worker.retiring = True
        if self._breaker.succeeded():
            log.info("workers stay up again")
        self._tell_finished(finished, seconds)
        if worker.retiring and not worker.held and not self._stopping:
            self._replace(lane, "recycled")
        self._tell_free()

    # Losing and replacing them.

    def _died(self, lane: Lane) -> None:
        worker = self._up[lane]
        reason = "deadline" if worker.overdue else "crashed"
        log.warning("worker lost", reason=reason, tasks=len(worker.held))
        if worker.held and not worker.overdue:
            self._count_death()
        for item in worker.held:
            del self._where[item]
        self._replace(lane, reason)
        self._tell_lost(list(worker.held), not worker.overdue)

    def _count_death(self) -> None:
        if self._breaker.died(time.monotonic()):
            log.error("workers die faster than they can be replaced: only probes enter from here on")

    def _replace(self, lane: Lane, reason: str) -> None:
        del self._up[lane]
        self._metrics.restarts[reason].inc()
        lane.give_up()
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
        self._up[lane] = Worker(lane, deque())
        self._tell_free()
