"""One `ProcessPoolExecutor` as it comes, from its start to its stop: all its workers are up, or all are dead.

Knows multiprocessing and the executor's public names. Knows nothing of queues or deadlines: it is handed
tasks, and each has a future.

Why we watch the workers although the executor does: it waits for ever for the rest of a result whose worker
was killed in the middle of it, and meanwhile hands out no other result; it does not see that a worker dies
before the first result has come; and it does not report one that dies idle. We kill all others when one has
died. Then what the executor waits for has ended, too, and it says that it is broken.
"""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

from service.background import in_background
from service.offload.fork_server import forkserver_context, from_fork_server
from service.offload.unpickling import Pickled
from service.offload.worker_main import Done, Packed, arrive, kill_group, prepare_for_executor, run_apart


class Context(ForkServerContext):
    """Makes what the fork server's context makes, for one executor, and remembers it.

    An executor kills nothing before Python 3.14 and does not show its processes, but makes them with the
    context that it is given. So these are its own and no others, which `multiprocessing.active_children()`
    could not tell; and unlike bare pids they are known before they run, and never those of other processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[ForkServerProcess] = []
        self.results: SimpleQueue[Any] | None = None

    @property
    def started(self) -> list[ForkServerProcess]:
        """Those that could be started."""
        return [process for process in self.processes if process.pid is not None]

    def kill_groups(self) -> None:
        """Kill all workers that have settled, and what workers have left behind."""
        for process in self.processes:
            if process.pid is not None:
                kill_group(process.pid)

    def Process(self, *args: Any, **kwargs: Any) -> ForkServerProcess:  # type: ignore[override]  # noqa: N802  # a function may stand where a class is called
        """A process, not yet started."""
        self.processes.append(ForkServerProcess(*args, **kwargs))
        return self.processes[-1]

    def SimpleQueue(self) -> SimpleQueue[Any]:  # noqa: N802  # multiprocessing's name
        """The one in which results travel."""
        self.results = super().SimpleQueue()
        return self.results

    def leave_writing_to_workers(self) -> None:
        """Once all workers have it, close our own end for writing: when they have died, reading ends."""
        assert self.results is not None
        # No public name closes one end. Should this one ever go, the test of a killed writer fails.
        self.results._writer.close()  # type: ignore[attr-defined]  # typeshed has public names alone


class StockExecutor(Pickled):
    """An executor of `count` workers, `nice` above our own niceness: `start()`, `submit()`, `stop()`.

    One worker that dies breaks it: every future that is not done then has a `BrokenExecutor`.

    Args:
        died: called if a worker dies before `stop()`.
        most_result: see `lane.Lane`.
    """

    def __init__(
        self,
        count: int,
        nice: int,
        died: Callable[..., Any],
        most_result: float = math.inf,
    ) -> None:
        self._count = count
        self._nice = nice
        self._most_result = most_result
        self._died = died
        self._context = Context()
        self._starting: asyncio.Future[list[Future[Done]]] | None = None
        self._executor: ProcessPoolExecutor | None = None

    async def start(self, packed: Packed | None) -> None:
        """Bring up all workers, each of which imports what `packed` needs.

        An executor starts a worker when a task comes and none is idle. So there is a task for each that is
        not over before all have theirs (`worker_main.arrive`).

        Raises:
            Exception: one could not be started, or cannot import the work. `kill()` and `stop()` it then.
        """
        ours, theirs = socket.socketpair()
        arriving: list[asyncio.Future[Done]] = []
        barrier = None
        try:
            starting = from_fork_server(functools.partial(self._start_processes, packed, theirs))
            self._starting = asyncio.ensure_future(starting)
            # Shielded, because the thread goes on even if this is cancelled.
            arriving += map(asyncio.wrap_future, await asyncio.shield(self._starting))
            self._context.leave_writing_to_workers()
            for process in self._context.started:
                asyncio.get_running_loop().add_reader(process.sentinel, self._one_died)
            here, barrier = await asyncio.open_unix_connection(sock=ours)
            await self._all_here(here, arriving)
            barrier.close()
            for done in await asyncio.gather(*arriving):
                if done.failure is not None:
                    raise BrokenExecutor(done.failure.summary)
        finally:
            for future in arriving:
                future.cancel()  # if it is too late for that, the outcome is of no interest
            if barrier is None:
                ours.close()
            else:
                barrier.close()

    def _start_processes(self, packed: Packed | None, theirs: socket.socket) -> list[Future[Done]]:
        with theirs:
            self._executor = ProcessPoolExecutor(
                self._count,
                mp_context=forkserver_context(self._context),
                initializer=prepare_for_executor,
                initargs=(theirs, self._most_result),
            )
            first = self.pack(arrive, (packed, self._nice))
            return [self._executor.submit(run_apart, first, time.monotonic()) for _ in range(self._count)]

    async def _all_here(self, here: asyncio.StreamReader, arriving: list[asyncio.Future[Done]]) -> None:
        """Wait until every worker has arrived, or one cannot any more."""
        all_here = asyncio.ensure_future(here.readexactly(self._count))
        either: set[asyncio.Future[Any]] = {all_here, *arriving}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_here.cancel()

    def submit(self, packed: Packed, submitted: float, until: float = math.inf) -> asyncio.Future[Done]:
        """Hand a task over, to be run unless its turn comes later than `until`; the future has what became
        of it.

        Raises:
            BrokenExecutor: the executor is broken already.
        """
        assert self._executor is not None
        return asyncio.wrap_future(self._executor.submit(run_apart, packed, submitted, until))

    async def ask(self, packed: Packed) -> Done:
        """See `lane.Lane`."""
        return await self.submit(packed, time.monotonic())

    def kill(self) -> bool:
        """Kill all workers, whatever they do; what they have is broken.

        The executor would send them SIGTERM, which they ignore, and wait for them for ever.
        """
        self._context.kill_groups()
        for process in self._context.started:
            process.kill()  # it may not have settled yet
        return True

    async def stop(self) -> None:
        """Let the workers finish what they have, and wait until they have ended; also if it is broken."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        self._watch_no_more()
        if self._executor is not None:
            await in_background("pool-stop", self._executor.shutdown)  # joining blocks
        self._context.kill_groups()  # the workers have ended; what they have left behind has not
        self._context.processes.clear()  # each holds a descriptor

    def _one_died(self) -> None:
        self._watch_no_more()
        self.kill()
        self._died(self)

    def _watch_no_more(self) -> None:
        for process in self._context.started:
            asyncio.get_running_loop().remove_reader(process.sentinel)
