"""A lane is one worker and the channel to it. The interface, and the two lanes within this process.

A lane is handed tasks, reports what became of them in the same order, and reports once if its worker is
lost. It packs functions and arguments for its worker, and it alone kills it. It knows nothing of queues,
admission or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from service.background import in_background
from service.offload.worker_main import Done, Packed, run

Finished = Callable[["Lane", list[Done]], Any]
Lost = Callable[["Lane"], Any]


class Lane(ABC):
    """One worker: `start()`, then `send()`, until it reports that it is lost, or `stop()`.

    Args:
        finished: called with the outcomes of tasks in the order in which they were sent; with several if
            they came together.
        lost: called if the worker dies before `stop()`, for whatever reason and whatever it did at that time.
        nice: added to the niceness of a worker that is a process, so that accepting and answering stay
            responsive while every core computes.
        most_result: bytes that a result may have on its way from a worker that is a process.
    """

    kind: ClassVar[str]
    """One word for messages: what the worker is."""

    def __init__(self, finished: Finished, lost: Lost, nice: int, most_result: float = math.inf) -> None:
        self._finished = finished
        self._lost = lost
        self._nice = nice
        self._most_result = most_result
        self._asked: asyncio.Future[Done] | None = None

    @staticmethod
    def pack(function: Callable[..., Any], args: tuple[Any, ...], /) -> Packed:
        """Function and arguments as they travel to the worker: as they are, unless it is a process.

        Raises:
            Exception: they cannot travel.
        """
        return function, args

    @staticmethod
    def unpack(result: Any, /) -> Any:
        """The worker's result as the function returned it."""
        return result

    @abstractmethod
    async def start(self, packed: Packed | None) -> None:
        """Start the worker, which imports what `packed` needs.

        Raises:
            Exception: it could not be started, or it cannot import the work. `kill()` and `stop()` it then.
        """

    @abstractmethod
    def send(self, packed: Packed, submitted: float, until: float = math.inf) -> None:
        """Hand a task over, to be run unless its turn comes later than `until`. If the worker dies before the
        task is done, `lost` follows."""

    @abstractmethod
    def kill(self) -> bool:
        """Kill the worker whatever it does; False if that cannot be done: a thread cannot be killed."""

    @abstractmethod
    async def stop(self) -> None:
        """Let the worker finish what it has, and wait until it has ended; also for one that is dead."""

    async def ask(self, packed: Packed) -> Done:
        """Hand over a task and wait for its outcome; only while the lane has nothing else to do."""
        self._asked = asyncio.get_running_loop().create_future()
        try:
            self.send(packed, time.monotonic())
            return await self._asked
        finally:
            self._asked = None

    def _finish(self, outcomes: list[Done]) -> None:
        if self._asked is None:
            self._finished(self, outcomes)
        elif not self._asked.done():
            self._asked.set_result(outcomes[0])


class InlineLane(Lane):
    """The worker is the event loop itself: it runs each task at once and stands still meanwhile."""

    kind = "inline"

    async def start(self, packed: Packed | None) -> None:
        """See `Lane`."""

    def send(self, packed: Packed, submitted: float, until: float = math.inf) -> None:
        """See `Lane`."""
        self._finish([run(packed, submitted, until)])

    def kill(self) -> bool:
        """See `Lane`."""
        return False

    async def stop(self) -> None:
        """See `Lane`."""


class ThreadLane(Lane):
    """The worker is a thread."""

    kind = "thread"

    def __init__(self, finished: Finished, lost: Lost, nice: int, most_result: float = math.inf) -> None:
        super().__init__(finished, lost, nice, most_result)
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="work")

    async def start(self, packed: Packed | None) -> None:  # noqa: ARG002  # it is imported already
        """See `Lane`."""
        await asyncio.wrap_future(self._executor.submit(int))  # a thread that cannot start fails here

    def send(self, packed: Packed, submitted: float, until: float = math.inf) -> None:
        """See `Lane`."""
        self._executor.submit(run, packed, submitted, until).add_done_callback(self._done)

    def kill(self) -> bool:
        """See `Lane`."""
        return False

    async def stop(self) -> None:
        """See `Lane`."""
        await in_background("worker-stop", self._executor.shutdown)

    def _done(self, future: Future[Done]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the outcome has no recipient any more
            self._loop.call_soon_threadsafe(self._finish, [future.result()])
