"""The lane whose worker is a process: how it is started, fed and killed.

Knows executors, processes, signals and pickles. All worker processes are started and killed here, but those
of a stock executor (stock_executor.py).

Why a `ProcessPoolExecutor(max_workers=1)` for each worker and not one executor for all: one dead worker
breaks a whole executor with everything in it, an executor cannot kill one task, and what it has queued
cannot be cancelled. A lane that dies loses the task it runs and nothing else; what still waits stays in our
hands.

Why tasks do not go through `submit` one by one: a ProcessPoolExecutor hands a task over through three
threads that compete with the loop for the GIL. So each executor runs one call, `worker_main.serve`, for as
long as its worker lives, and tasks and outcomes travel over a socket that the loop itself writes and reads.
What that saves: `make hand-over`, docs/proofs.md.
"""

from __future__ import annotations

import asyncio
import functools
import math
import pickle
import socket
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any, Final

from service.background import in_background
from service.offload.fork_server import forkserver_context, from_fork_server
from service.offload.lane import Finished, Lane, Lost
from service.offload.unpickling import Pickled
from service.offload.worker_main import (
    OUTCOME,
    TASK,
    Done,
    Packed,
    end_with_parent,
    kill_group,
    lower,
    prepare,
    serve,
    warm,
)

MOST_OUTCOME: Final = 2**20
"""Bytes of an outcome without its result, whose failure has two texts of `worker_main.MOST_TEXT` at most."""


class ProcessLane(Pickled, Lane, asyncio.Protocol):
    """The worker is a process of its own."""

    kind = "process"

    def __init__(self, finished: Finished, lost: Lost, nice: int, most_result: float = math.inf) -> None:
        super().__init__(finished, lost, nice, most_result)
        self._starting: asyncio.Future[None] | None = None
        self._executor: ProcessPoolExecutor | None = None
        self._transport: asyncio.Transport | None = None
        self._pid: int | None = None
        self._unread = bytearray()
        self._closed = asyncio.Event()
        self._stopping = False

    async def start(self, packed: Packed | None) -> None:
        """See `Lane`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            starting = from_fork_server(functools.partial(self._start_process, theirs))
            self._starting = asyncio.ensure_future(starting)
            await asyncio.shield(self._starting)  # the thread goes on even if this is cancelled
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._pid = await self._result(end_with_parent)
        if packed is not None:
            await self._result(warm, packed)
        await self._result(lower, self._nice)

    def _start_process(self, theirs: socket.socket) -> None:
        with theirs:
            self._executor = worker_process(theirs, self._most_result)
            self._executor.submit(serve)  # starts the process; it has `theirs` from here on

    def send(self, packed: Packed, submitted: float, until: float = math.inf) -> None:
        """See `Lane`."""
        assert self._transport is not None
        self._transport.writelines((TASK.pack(len(packed), submitted, until), packed))

    def kill(self) -> bool:
        """See `Lane`."""
        if self._pid is not None:
            kill_group(self._pid)
        elif self._transport is not None:
            self._transport.abort()  # it has not even begun, and sees that by itself
        return True

    async def stop(self) -> None:
        """See `Lane`."""
        self._stopping = True
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._transport is not None:
            if not self._closed.is_set():
                self._transport.write_eof()
            await self._closed.wait()
        if self._executor is not None:
            await in_background("worker-stop", self._executor.shutdown)  # joining blocks
        if self._pid is not None:
            kill_group(self._pid)  # the worker has ended; what it has left behind has not

    def data_received(self, data: bytes) -> None:
        """Outcomes, or a part of one."""
        self._unread += data
        outcomes = []
        at = 0
        while (begin := at + OUTCOME.size) <= len(self._unread):
            outcome, result = OUTCOME.unpack_from(self._unread, at)
            is_possible = outcome <= MOST_OUTCOME and result <= self._most_result
            middle, end = begin + outcome, begin + outcome + result
            if is_possible and len(self._unread) < end:
                break
            done = self._read(begin, middle, end) if is_possible else None
            if done is None:
                # The work has written to a descriptor that is not its own: what follows cannot be read.
                assert self._transport is not None
                self._transport.abort()
                break
            outcomes.append(done)
            at = end
        del self._unread[:at]
        if outcomes:
            self._finish(outcomes)

    def _read(self, begin: int, middle: int, end: int) -> Done | None:
        """The outcome that begins there, and its result from `middle` on; None if there is none."""
        with memoryview(self._unread) as unread:  # a slice of the bytes themselves would be a copy more
            try:
                return Done(bytes(unread[middle:end]) or None, *pickle.loads(unread[begin:middle]))
            except Exception:
                return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # that it closed is enough
        """The worker's side is closed: the worker is dead, or its work has closed what is not its own."""
        self._closed.set()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(BrokenExecutor("the worker died as soon as it was up"))
        elif not self._stopping:
            self.kill()
            self._lost(self)

    async def _result(self, function: Callable[..., Any], *args: Any) -> Any:
        done = await self.ask(self.pack(function, args))
        if done.failure is not None:
            raise BrokenExecutor(done.failure.summary)
        return self.unpack(done.result)


def worker_process(channel: socket.socket, most_result: float = math.inf) -> ProcessPoolExecutor:
    """An executor with one worker, which `submit` starts."""
    return ProcessPoolExecutor(
        1, mp_context=forkserver_context(), initializer=prepare, initargs=(channel, most_result)
    )
