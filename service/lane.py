"""One worker and the call it is busy with: where work runs, and where processes live and die.

Knows executors, processes and signals; the only module that starts or kills a worker. Knows nothing of
queues, admission or HTTP: it is handed calls, tells what became of them, and says when its worker is lost.

Why a `ProcessPoolExecutor(max_workers=1)` for each worker and not one pool for all: one dead worker breaks
a whole pool with everything in it, a pool cannot kill one task, and what it has queued cannot be
cancelled. A lane that dies loses the call it holds and nothing else; what still waits is in our hands.

A call carries one task, or several short ones. Handing a call over costs the IO process 0.4 ms of CPU and
more, in three threads that compete for the GIL: with tasks of 0.5 ms one at a time two lanes did 1,400 a
second, in tens 3,400. And a second call waits in the worker's pipe while the first runs: when the loop is
busy, those threads come to the GIL milliseconds late, and the worker would idle meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Final, Literal, NamedTuple, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
Strategy = Literal["inline", "thread", "process"]
Packed = Any
"""A function and its arguments as they travel: pickled to a process, as they are to a thread."""

PRELOAD: Final = ["service.shield", "service.lane", "service.work"]
PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB on Linux


class Failure(NamedTuple):
    """What a task raised, as text.

    Text, because exceptions do not travel well: one that cannot be unpickled breaks a whole process
    pool, a SystemExit would end the service and a StopIteration leaves an asyncio future waiting for
    ever. None of that may be in the power of a single request.
    """

    summary: str
    details: str


class Done(NamedTuple):
    """What became of one task, told by its worker; the times in seconds."""

    result: Any
    failure: Failure | None
    waited: float  # from submitted to started
    took: float  # from started to finished
    cpu: float  # of the worker's thread; other threads of the worker do not count


class Report(NamedTuple):
    """The outcome of a call, and the most memory its worker ever used, in bytes."""

    done: list[Done]
    peak_bytes: int


def failure_of(error: BaseException) -> Failure:
    """The exception and its traceback as text."""
    return Failure(
        traceback.format_exception_only(error)[-1].strip(), "".join(traceback.format_exception(error))
    )


def run(tasks: Sequence[tuple[Packed, float]]) -> Report:
    """Run a call on the worker: each of its tasks and when it was submitted, one after the other.

    CLOCK_MONOTONIC is one clock for all processes of a machine, so a worker can tell how long ago
    the IO process submitted.
    """
    done = []
    for packed, submitted in tasks:
        started, before = time.monotonic(), time.thread_time()
        result, failure = None, None
        try:
            if isinstance(packed, bytes):
                function, args = pickle.loads(packed)
                result = pickle.dumps(function(*args), pickle.HIGHEST_PROTOCOL)
            else:
                function, args = packed
                result = function(*args)
        except BaseException as error:
            failure = failure_of(error)
        cpu, took = time.thread_time() - before, time.monotonic() - started
        done.append(Done(result, failure, max(started - submitted, 0.0), took, cpu))
    return Report(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT)


class InlineExecutor(Executor):
    """Runs each call at once on the caller's thread: the loop stands still meanwhile."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` now; the future that comes back is done."""
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _prepare_worker(nice: int) -> None:
    """First call in a new worker process.

    Ctrl-C goes to the whole process group, and systemd sends SIGTERM to the whole control group, but
    ending is the parent's decision: it lets running requests finish. And a worker must not outlive a
    parent that was killed: neither fork, spawn nor forkserver see to that, and PR_SET_PDEATHSIG does
    nothing under forkserver, whose children have another parent. A thread that waits for the
    parent's sentinel works everywhere and takes about 10 ms.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(nice)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def worker_process(nice: int) -> ProcessPoolExecutor:
    """One worker, from a fork server: no copy of our threads, sockets or locks reaches it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_worker, initargs=(nice,))


def _warm(packed: bytes | None) -> int:
    """Import what the work needs, so that no request waits for it; return the worker's pid."""
    if packed is not None:
        pickle.loads(packed)
    return os.getpid()


class Lane:
    """One worker. `start()`, then `send()`, until `lost` is called or `shut_down()`.

    Args:
        nice: added to the worker's niceness, so that accepting and answering stay responsive while
            every core computes.
        lost: called once for each worker that died, however and whatever it did at that time.
    """

    def __init__(self, strategy: Strategy, nice: int, lost: Callable[[Lane], Any]) -> None:
        self._strategy = strategy
        self._nice = nice
        self._lost = lost
        self._executor: Executor = InlineExecutor()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._sentinel = -1
        self.served = 0
        """Tasks that this worker has finished."""

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Packed:
        """Function and arguments as they travel to the worker; here and not in the executor's thread,
        so that what cannot travel is the mistake of one task and not of its call.

        Raises:
            Exception: they cannot be pickled.
        """
        if self._strategy != "process":
            return function, args
        return pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)

    def unpack(self, result: Any) -> Any:
        """The result as the function returned it."""
        return pickle.loads(result) if self._strategy == "process" else result

    async def start(self, packed: Packed | None) -> None:
        """Start a worker, which imports what `packed` needs; replaces one that was lost.

        Raises:
            Exception: no worker could be started, or it cannot import the work.
        """
        self.served = 0
        if self._strategy == "inline":
            return
        if self._strategy == "thread":
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="work")
            await asyncio.wrap_future(self._executor.submit(int))  # a thread that cannot start fails here
            return
        self._executor = worker_process(self._nice)
        pid = await asyncio.wrap_future(self._executor.submit(_warm, packed))
        self._process = next((one for one in multiprocessing.active_children() if one.pid == pid), None)
        if self._process is None:
            raise BrokenExecutor("the worker died as soon as it was up")
        # A pool says that its worker died when it is next asked for something. We want to know at once.
        self._sentinel = os.dup(self._process.sentinel)  # our own: the pool closes its as it likes
        asyncio.get_running_loop().add_reader(self._sentinel, self._on_death)

    def send(self, tasks: Sequence[tuple[Packed, float]]) -> Future[Report]:
        """Hand a call over.

        Raises:
            BrokenExecutor: the worker is dead.
        """
        return self._executor.submit(run, tasks)

    def kill(self) -> None:
        """End the worker whatever it does; `lost` follows. A thread cannot be ended, and is not."""
        if self._process is not None:
            self._process.kill()

    def give_up(self) -> None:
        """Let go of the worker without waiting for it."""
        self._unwatch()
        self._process = None
        self._executor.shutdown(wait=False)

    def shut_down(self) -> None:
        """Wait for the present call, then for the worker's end. Blocks."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._process = None

    def forget(self) -> None:
        """From here on the worker's end is no loss."""
        self._unwatch()

    def _on_death(self) -> None:
        self._unwatch()
        self._lost(self)

    def _unwatch(self) -> None:
        if self._sentinel >= 0:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                asyncio.get_running_loop().remove_reader(self._sentinel)
            os.close(self._sentinel)
            self._sentinel = -1
