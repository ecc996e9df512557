"""A crew of workers as the offload sees it, and what every crew does alike: start, replace, end.

Knows units, each a worker of its own (lane.py) or a whole pool (stock_executor.py), and when to give up
on them (admission.Breaker). Knows nothing of queues or deadlines: what is handed over is opaque, and
comes back finished or, if its worker died, unfinished.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.admission import Breaker
from service.offload.worker_main import Done, Failure, Packed

log = structlog.get_logger("offloop.workers")

START_SECONDS: Final = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""

END_SECONDS: Final = 5.0
"""How long a worker with nothing left to do may take to end before it is killed: work may leave threads."""


class Unit(Protocol):
    """What starts, dies and ends as one: see `lane.Lane`."""

    async def start(self, packed: Packed | None) -> None: ...  # noqa: D102  # `Lane` says it
    async def ask(self, packed: Packed) -> Done: ...  # noqa: D102
    def kill(self) -> bool: ...  # noqa: D102
    async def end(self) -> None: ...  # noqa: D102


T = TypeVar("T")
U = TypeVar("U", bound=Unit)


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """Who is told what.

    finished: what came out of tasks of one worker, and how many seconds they kept it from the next.
    lost: what dead workers had, in order, and how many of the first may have been the cause.
    free: a worker may be handed something.
    """

    finished: Callable[[list[tuple[T, Done]], float], Any]
    lost: Callable[[list[T], int], Any]
    free: Callable[[], Any]


class Crew(ABC, Generic[T, U]):
    """Keeps units up.

    Args:
        size: how many units there are.
        workers: how many workers each of them has.
        most_bytes: what a fresh worker may use.
    """

    def __init__(
        self, size: int, workers: int, metrics: Metrics, told: Told[T], most_bytes: float = math.inf
    ) -> None:
        self._size = size
        self._workers_each = workers
        self._metrics = metrics
        self._told = told
        self._most_bytes = most_bytes
        self._breaker = Breaker(size)
        self._stopping = False
        self._units: set[U] = set()  # all that have not ended, up or not
        self._warm: Packed | None = None
        self._bringing: set[asyncio.Task[None]] = set()
        self._retiring: dict[U, asyncio.Task[None]] = {}
        self._context = contextvars.copy_context()

    # What the offload asks and says.

    @property
    @abstractmethod
    def up(self) -> int:
        """Workers that are up."""

    @property
    @abstractmethod
    def held(self) -> int:
        """Tasks that workers have, running or not."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Tasks that run; safe from any thread."""

    @property
    def healthy(self) -> bool:
        """Whether requests have a chance: workers stay up, or it is time to see whether they do."""
        return self._breaker.closed or (self.up > 0 and self._breaker.is_due(time.monotonic()))

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
                    starts = [group.create_task(self._start()) for _ in range(self._size)]
                if not try_out:
                    return None
                done = await starts[0].result().ask(packed)
        except TimeoutError:
            raise TimeoutError(f"not up after {START_SECONDS:g} s") from None
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if done.failure is None and done.peak_bytes > self._most_bytes:
            raise ValueError(f"a fresh worker uses {done.peak_bytes / 2**20:.0f} MiB, above the limit")
        return done.failure

    @abstractmethod
    def available(self, most: int, *, suspected: bool) -> Any:
        """Where the next task may go; None if every worker has `most`.

        Args:
            suspected: the task was under way before when a worker died.
        """

    @abstractmethod
    def send(self, place: Any, item: T, packed: Packed, submitted: float) -> None:
        """Hand `item` over to what `available` has returned."""

    @abstractmethod
    def end(self, item: T) -> bool:
        """The deadline of `item` has passed. False: come again, its turn is yet to come."""

    async def stop(self, seconds: float) -> int:
        """Let workers finish what they have within `seconds`; then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        for task in self._bringing:
            task.cancel()
        await asyncio.gather(*self._bringing, return_exceptions=True)
        for unit in self._units - self._retiring.keys():
            self._retire(unit, seconds if self._has_work(unit) else min(seconds, END_SECONDS))
        await asyncio.gather(*self._retiring.values())
        cut_off = self._take_all()
        self._told.lost(cut_off, 0)
        return len(cut_off)

    # What a kind of crew adds.

    @abstractmethod
    def _make(self) -> U:
        """A unit, not yet started."""

    @abstractmethod
    def _came_up(self, unit: U) -> None:
        """It has started."""

    @abstractmethod
    def _has_work(self, unit: U) -> bool:
        """Whether it has anything to finish."""

    @abstractmethod
    def _take_all(self) -> list[T]:
        """What no unit will finish any more, in order; nobody has it from now on."""

    # Losing and replacing them.

    def _succeeded(self) -> None:
        if self._breaker.succeeded():
            log.info("workers stay up again")

    def _count_death(self) -> None:
        if self._breaker.died(time.monotonic()):
            log.error("workers die faster than they can be replaced: only probes enter from here on")

    def _replace(self, unit: U, reason: RestartReason) -> None:
        self._metrics.restarts[reason].inc(self._workers_each)
        if not self._stopping:
            self._retire(unit, END_SECONDS)
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
        self._told.free()

    async def _start(self) -> U:
        unit = self._make()
        self._units.add(unit)
        try:
            await unit.start(self._warm)
        except BaseException:
            unit.kill()
            self._retire(unit, END_SECONDS)
            raise
        self._came_up(unit)
        return unit

    def _retire(self, unit: U, seconds: float) -> None:
        """See a unit to its end in the background."""

        async def end() -> None:
            ending = asyncio.ensure_future(unit.end())
            done, _ = await asyncio.wait({ending}, timeout=None if seconds == math.inf else seconds)
            if not done and unit.kill():
                await asyncio.wait({ending}, timeout=END_SECONDS)
            ending.cancel()
            self._units.discard(unit)
            del self._retiring[unit]

        self._retiring[unit] = asyncio.get_running_loop().create_task(end())
