"""What both pools do alike: bring workers up, replace those that die, give up on them, stop them.

Knows members, and when to give up on them (admission.Breaker). A member is what starts, dies and stops as
one: a lane (lane.py), or an executor with all its workers (stock_executor.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from metrics.instruments import Metrics, RestartReason
from service.offload.admission import LAST_PROBE_SECONDS, LIMIT_PER_WORKER, Breaker, pause_after
from service.offload.pool import PoolObserver
from service.offload.worker_main import Done, Failure, Packed

log = structlog.get_logger("offloop.workers")

START_SECONDS: Final = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""

FAILED_STARTS: Final = 5
"""So many attempts in a row to start a member, with pauses between them, are more than an accident."""

STOP_SECONDS: Final = 5.0
"""How long a worker with nothing left to do may take to stop before it is killed: work may leave threads."""


class Member(Protocol):
    """What starts, dies and stops as one: see `lane.Lane`."""

    async def start(self, packed: Packed | None) -> None: ...  # noqa: D102  # `Lane` says it
    async def ask(self, packed: Packed) -> Done: ...  # noqa: D102
    def kill(self) -> bool: ...  # noqa: D102
    async def stop(self) -> None: ...  # noqa: D102


T = TypeVar("T")
M = TypeVar("M", bound=Member)


class SupervisedPool(ABC, Generic[T, M]):
    """Keeps members up. See `pool.Pool` for what is public here.

    Args:
        members: how many there are.
        workers_each: how many workers each member has.
        most_bytes: the memory that a fresh worker may use.
    """

    _longest_pause = LAST_PROBE_SECONDS
    """Seconds between two attempts to start a member, at most."""

    def __init__(
        self,
        members: int,
        workers_each: int,
        metrics: Metrics,
        observer: PoolObserver[T],
        most_bytes: float = math.inf,
    ) -> None:
        self.count = members * workers_each
        self._size = members
        self._workers_each = workers_each
        self._metrics = metrics
        self._observer = observer
        self._most_bytes = most_bytes
        self._breaker = Breaker(members)
        self._failed_starts = 0  # in a row, since the last member was lost
        self._failure = ""  # of the last of them: what kind of error
        self._stopping = False
        self._members: set[M] = set()  # all that have not ended, up or not
        self._warm: Packed | None = None
        self._good: Packed | None = None  # a call that workers are known to survive
        self._bringing: set[asyncio.Task[None]] = set()
        self._retiring: dict[M, asyncio.Task[None]] = {}
        self._context = contextvars.copy_context()

    # What the queue sees.

    @property
    @abstractmethod
    def up(self) -> int:
        """See `Pool`."""

    @property
    def healthy(self) -> bool:
        """See `Pool`. With none up, starts that fail are borne for as long as deaths are."""
        return self._breaker.closed and (self.up > 0 or self._failed_starts <= LIMIT_PER_WORKER * self._size)

    @property
    def trouble(self) -> str:
        """See `Pool`. Only the kind of an error, because any client may ask: the log has all of it."""
        if not self._breaker.closed:
            return "workers keep dying"
        return f"no worker can be started{self._failure and ': '}{self._failure}"

    @property
    def stuck(self) -> bool:
        """See `Pool`."""
        return self.up == 0 and self._failed_starts >= FAILED_STARTS * self._size

    def retry_after(self, now: float) -> int | None:
        """See `Pool`. Where none is up and none can be started, any time is as good as another."""
        return None if self.healthy else self._breaker.retry_after(now) or 1

    async def start(self, packed: Packed | None, *, try_out: bool) -> Failure | None:
        """See `Pool`."""
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
        self._good = packed
        if done.failure is None and done.peak_bytes > self._most_bytes:
            raise ValueError(f"a fresh worker uses {done.peak_bytes / 2**20:.0f} MiB, above the limit")
        return done.failure

    async def stop(self, seconds: float) -> int:
        """See `Pool`."""
        self._stopping = True
        for task in self._bringing:
            task.cancel()
        await asyncio.gather(*self._bringing, return_exceptions=True)
        for member in self._members - self._retiring.keys():
            self._retire(member, seconds if self._has_work(member) else min(seconds, STOP_SECONDS))
        await asyncio.gather(*self._retiring.values())
        cut_off = self._take_all()
        self._observer.lost(cut_off, 0)
        return len(cut_off)

    # What a kind of pool adds.

    pack: Callable[[Callable[..., Any], tuple[Any, ...]], Packed]

    @abstractmethod
    def _make(self) -> M:
        """A member, not yet started."""

    @abstractmethod
    def _came_up(self, member: M) -> None:
        """It has started."""

    async def _ask_idle(self) -> None:
        """The breaker is open: if a member is up and idle, `_try_out` that."""

    @abstractmethod
    def _has_work(self, member: M) -> bool:
        """Whether it has anything to finish."""

    @abstractmethod
    def _take_all(self) -> list[T]:
        """The tasks that are left once every member has stopped, oldest first; the pool forgets them."""

    # Losing and replacing members.

    def _succeeded(self, *, probe: bool = False) -> None:
        if self._breaker.succeeded(probe=probe):
            log.info("workers stay up again")

    def _count_death(self) -> None:
        if self._breaker.died(time.monotonic()):
            log.error("workers die faster than they can be replaced: only probes enter from here on")

    def _replace(self, member: M, reason: RestartReason) -> None:
        self._metrics.restarts[reason].inc(self._workers_each)
        self._failed_starts = 0
        if not self._stopping:
            self._retire(member, STOP_SECONDS)
            # A worker outlives the request during which another is lost: it must not log under its ids.
            task = asyncio.get_running_loop().create_task(self._bring_up(), context=self._context)
            self._bringing.add(task)
            task.add_done_callback(self._bringing.discard)

    async def _bring_up(self) -> None:
        pause = 0.0
        for failures in itertools.count(1):
            await asyncio.sleep(pause if self._breaker.closed else max(pause, self._breaker.pause))
            if not self._breaker.closed:
                await self._ask_idle()  # first: a fresh one may never come, and this is quicker
            try:
                await self._start()
                break
            except Exception as error:
                log.error("worker cannot be started", error=repr(error))  # noqa: TRY400  # a line is enough
                self._failed_starts += 1
                self._failure = type(error).__name__
                pause = min(pause_after(failures), self._longest_pause)
        self._observer.dispatch()

    async def _start(self) -> M:
        member = self._make()
        self._members.add(member)
        try:
            async with asyncio.timeout(START_SECONDS):
                await member.start(self._warm)
            if not self._breaker.closed:
                await self._try_out(member)
        except BaseException:
            member.kill()
            self._retire(member, STOP_SECONDS)
            raise
        self._failed_starts, self._failure = 0, ""
        self._came_up(member)
        return member

    async def _try_out(self, member: M) -> None:
        """Probe whether workers stay up again: hand the known-good call to one that has nothing else to do.

        Raises:
            Exception: it has not survived that, or not finished it in time. That is a death.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await member.ask(self._good if self._good is not None else self.pack(os.getpid, ()))
        except Exception:
            self._count_death()
            raise
        self._succeeded(probe=True)

    def _retire(self, member: M, seconds: float) -> None:
        """Stop a member in the background; kill it if it has not ended after `seconds`."""

        async def retire() -> None:
            stopping = asyncio.ensure_future(member.stop())
            done, _ = await asyncio.wait({stopping}, timeout=None if seconds == math.inf else seconds)
            if not done and member.kill():
                await asyncio.wait({stopping}, timeout=STOP_SECONDS)
            stopping.cancel()
            self._members.discard(member)
            del self._retiring[member]

        self._retiring[member] = asyncio.get_running_loop().create_task(retire())
