"""One worker: where processes live and die.

Knows executors, processes and signals; all workers start and are killed here, but those of a stock
executor (stock_executor.py). Knows nothing of queues, admission or HTTP: it is handed tasks, says what became
of them in the same order, and when its worker is lost.

Why a `ProcessPoolExecutor(max_workers=1)` for each worker and not one pool for all: one dead worker breaks
a whole pool with everything in it, a pool cannot kill one task, and what it has queued cannot be
cancelled. A lane that dies loses the task it runs and nothing else; what still waits is in our hands.

Why its tasks do not go through `submit` each: a ProcessPoolExecutor hands a task over through three threads
that compete with the loop for the GIL. So each executor runs one call, `runner.serve`, for as long as its
worker lives, and tasks and outcomes travel over a socket that the loop itself writes and reads. What that
saves: `make hand-over`, docs/proofs.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Final, Literal

from service.background import in_background
from service.offload.worker_main import OUTCOME, TASK, Done, Packed, prepare, run, serve, warm

LaneStrategy = Literal["inline", "thread", "process"]
Strategy = Literal[LaneStrategy, "executor"]
PICKLED: Final = frozenset({"process", "executor"})
"""Strategies by which functions, arguments and results leave this process."""

Finished = Callable[["Lane", list[Done]], Any]
Lost = Callable[["Lane"], Any]

PRELOAD: Final = [
    "service.offload.forkserver_signals",
    "concurrent.futures.process",
    "service.offload.worker_main",
    "service.work",
]


class Lane:
    """One worker, from its start to its end. `start()`, then `send()`, until `lost` is called or `end()`.

    This one is the loop itself: it runs each task at once and stands still meanwhile.

    Args:
        finished: called with the outcomes of tasks in the order in which they were sent; with several if
            they came together.
        lost: called if the worker dies before `end()`, however and whatever it did at that time.
    """

    def __init__(self, finished: Finished, lost: Lost) -> None:
        self._finished = finished
        self._lost = lost
        self._asked: asyncio.Future[Done] | None = None

    async def start(self, packed: Packed | None) -> None:
        """Start the worker, which imports what `packed` needs.

        Raises:
            Exception: it could not be started, or it cannot import the work. `kill()` and `end()` it then.
        """

    def send(self, packed: Packed, submitted: float) -> None:
        """Hand a task over. If the worker dies before it is done, `lost` follows."""
        self._finish([run(packed, submitted)])

    async def ask(self, packed: Packed) -> Done:
        """Hand over a task and wait for its outcome, as long as the lane has nothing else to do."""
        self._asked = asyncio.get_running_loop().create_future()
        try:
            self.send(packed, time.monotonic())
            return await self._asked
        finally:
            self._asked = None

    def kill(self) -> bool:
        """End the worker whatever it does; False, if it cannot be ended: a thread cannot."""
        return False

    async def end(self) -> None:
        """Let the worker finish what it has, and wait for its end. Also for one that is dead."""

    def _finish(self, outcomes: list[Done]) -> None:
        if self._asked is None:
            self._finished(self, outcomes)
        elif not self._asked.done():
            self._asked.set_result(outcomes[0])


class ThreadLane(Lane):
    """Runs tasks in a thread."""

    def __init__(self, finished: Finished, lost: Lost) -> None:
        super().__init__(finished, lost)
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="work")

    async def start(self, packed: Packed | None) -> None:  # noqa: ARG002  # it is imported already
        """See `Lane`."""
        await asyncio.wrap_future(self._executor.submit(int))  # a thread that cannot start fails here

    def send(self, packed: Packed, submitted: float) -> None:
        """See `Lane`."""
        self._executor.submit(run, packed, submitted).add_done_callback(self._done)

    async def end(self) -> None:
        """See `Lane`."""
        await in_background("worker-stop", self._executor.shutdown)

    def _done(self, future: Future[Done]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, [future.result()])


class ProcessLane(Lane, asyncio.Protocol):
    """Runs tasks in a process of its own.

    Args:
        nice: added to the worker's niceness, so that accepting and answering stay responsive while
            every core computes.
    """

    def __init__(self, finished: Finished, lost: Lost, nice: int) -> None:
        super().__init__(finished, lost)
        self._nice = nice
        self._executor: ProcessPoolExecutor | None = None
        self._transport: asyncio.Transport | None = None
        self._pid: int | None = None
        self._unread = bytearray()
        self._closed = asyncio.Event()
        self._ending = False

    async def start(self, packed: Packed | None) -> None:
        """See `Lane`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._executor = worker_process(self._nice, theirs)
                self._executor.submit(serve)  # starts the process; it has `theirs` from here on
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._pid = await self._result(os.getpid)
        if packed is not None:
            await self._result(warm, packed)

    def send(self, packed: Packed, submitted: float) -> None:
        """See `Lane`."""
        assert self._transport is not None
        self._transport.writelines((TASK.pack(len(packed), submitted), packed))

    def kill(self) -> bool:
        """See `Lane`."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        elif self._transport is not None:
            self._transport.abort()  # it has not even begun, and sees that by itself
        return True

    async def end(self) -> None:
        """See `Lane`."""
        self._ending = True
        if self._transport is not None:
            if not self._closed.is_set():
                self._transport.write_eof()
            await self._closed.wait()
        if self._executor is not None:
            await in_background("worker-stop", self._executor.shutdown)  # joining blocks

    def data_received(self, data: bytes) -> None:
        """Outcomes, or a part of one."""
        self._unread += data
        outcomes = []
        at = 0
        while len(self._unread) - at >= OUTCOME.size:
            begin = at + OUTCOME.size
            end = begin + OUTCOME.unpack_from(self._unread, at)[0]
            if len(self._unread) < end:
                break
            outcomes.append(pickle.loads(self._unread[begin:end]))
            at = end
        del self._unread[:at]
        if outcomes:
            self._finish(outcomes)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the end is enough
        """The worker has closed its end: it is dead, or its work has closed what is not its own."""
        self._closed.set()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(BrokenExecutor("the worker died as soon as it was up"))
        elif not self._ending:
            self.kill()
            self._lost(self)

    async def _result(self, function: Callable[..., Any], *args: Any) -> Any:
        done = await self.ask(pack("process", function, args))
        if done.failure is not None:
            raise BrokenExecutor(done.failure.summary)
        return pickle.loads(done.result)


def worker_process(nice: int, service: socket.socket) -> ProcessPoolExecutor:
    """One worker, from a fork server: no copy of our threads, sockets or locks reaches it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=(nice, service))


def make(strategy: LaneStrategy, nice: int, finished: Finished, lost: Lost) -> Lane:
    """A lane of this kind, not yet started."""
    if strategy == "process":
        return ProcessLane(finished, lost, nice)
    return ThreadLane(finished, lost) if strategy == "thread" else Lane(finished, lost)


def pack(strategy: Strategy, function: Callable[..., Any], args: tuple[Any, ...]) -> Packed:
    """Function and arguments as they travel to the worker.

    Raises:
        Exception: they cannot be pickled.
    """
    if strategy not in PICKLED:
        return function, args
    return pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)


def unpack(strategy: Strategy, result: Any) -> Any:
    """The result as the function returned it."""
    return pickle.loads(result) if strategy in PICKLED else result
