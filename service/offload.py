"""Where work runs: admission, then a worker, through futures.

Knows executors and the metrics of work; the only module that starts processes. Knows nothing of
HTTP: handlers see `submit`, an answer, or one of three named failures.

One interface for three strategies, because an `Executor` is one already: `inline` runs the call on
the loop's own thread (the problem), `thread` in a thread pool (helps only where the work releases the
GIL), `process` in a `ProcessPoolExecutor`, one worker per core.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar

import structlog

from metrics.instruments import Metrics
from service.background import in_background

log = structlog.get_logger("offloop.offload")
T = TypeVar("T")
P = ParamSpec("P")
Strategy = Literal["inline", "thread", "process"]
Admit = Callable[[int, int], bool]
"""Decides whether a request may enter, from (tasks waiting, tasks running)."""

START_SECONDS = 30.0
"""A worker that is not up after this long will not come up: importing the work takes milliseconds."""


class OffloadError(Exception):
    """The work has no result; the subclass says why."""


class RejectedError(OffloadError):
    """Admission refused the request; nothing was started."""


class ExpiredError(OffloadError):
    """The deadline passed before the work was done."""


class WorkerLostError(OffloadError):
    """The worker died while the work was queued or running."""


class WorkerStartError(OffloadError):
    """A worker could not be started at all."""


class WorkError(OffloadError):
    """The work raised. Carries the type, message and traceback as text, whatever the exception was.

    Text, because exceptions do not travel well: one that cannot be unpickled breaks a whole process
    pool, a SystemExit would end the service and a StopIteration leaves an asyncio future waiting for
    ever. None of that may be in the power of a single request.
    """

    def __init__(self, summary: str, details: str) -> None:
        super().__init__(summary, details)
        self.summary = summary
        self.details = details

    def __str__(self) -> str:
        """The exception's type and message."""
        return self.summary


def let_everything_in(waiting: int, running: int) -> bool:  # noqa: ARG001  # the shape of `Admit`
    """The admission of an unbounded queue: what most services do, and what the experiment measures."""
    return True


def timed(function: Callable[..., T], submitted: float, *args: Any) -> tuple[T, float, float]:
    """Run on the worker; return the result, the seconds it waited and the CPU seconds it took.

    CLOCK_MONOTONIC is one clock for all processes of a machine, so a worker can tell how long ago
    the IO process submitted. CPU is this thread's own: other threads of the worker do not count.

    Raises:
        WorkError: `function` raised, whatever it was.
    """
    waited = time.monotonic() - submitted
    before = time.thread_time()
    try:
        result = function(*args)
    except BaseException as error:
        summary = traceback.format_exception_only(error)[-1].strip()
        raise WorkError(summary, traceback.format_exc()) from None
    return result, max(waited, 0.0), time.thread_time() - before


class InlineExecutor(Executor):
    """Runs each call at once on the caller's thread: the loop stands still meanwhile."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` now; the future that comes back is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
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


def process_pool(workers: int, nice: int) -> ProcessPoolExecutor:
    """A pool whose workers come from a fork server: no copy of our threads, sockets or locks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["service.shield", "service.offload", "service.work"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=(nice,))


def _kill_workers() -> None:
    """End every worker process of ours at once; the pool they belong to is given up."""
    for worker in multiprocessing.active_children():
        worker.kill()


class Offload:
    """Runs functions where `strategy` says, and tells the metrics what became of each.

    Args:
        workers: how many tasks may run at the same time; inline has one, the loop itself.
        nice: added to the workers' niceness, so that accepting and answering stay responsive while
            every core computes.
        admit: the admission step; by default everything enters.
    """

    def __init__(
        self, strategy: Strategy, workers: int, nice: int, metrics: Metrics, admit: Admit = let_everything_in
    ) -> None:
        self.workers = 1 if strategy == "inline" else workers
        self._strategy = strategy
        self._nice = nice
        self._metrics = metrics
        self._admit = admit
        self._executor = self._new_executor()
        self._in_flight = 0
        self._stopping = False
        metrics.offload_workers.set(self.workers)
        metrics.offload_limit.set(math.inf)
        metrics.offload_depth.set_function(lambda: self.waiting)
        metrics.offload_running.set_function(lambda: self.running)

    @property
    def running(self) -> int:
        """Tasks on a worker: a pool never leaves a worker idle while one waits."""
        return min(self._in_flight, self.workers)

    @property
    def waiting(self) -> int:
        """Tasks submitted and not yet on a worker."""
        return self._in_flight - self.running

    async def start(self, function: Callable[..., Any] | None = None, *args: Any) -> None:
        """Start every worker before the first request needs it, and try `function(*args)` on one.

        Raises:
            WorkerStartError: a worker could not be started, or cannot run `function` at all (it is
            not picklable, say); WorkError: `function` raised.
        """
        # A pool adds a worker only when a submit finds none idle. These calls come faster than a
        # process can start, so each adds one.
        try:
            calls = [asyncio.wrap_future(self._executor.submit(os.getpid)) for _ in range(self.workers)]
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*calls)
                if function is not None:
                    await self._outcome(self._executor.submit(timed, function, time.monotonic(), *args))
        except WorkError:
            raise
        except Exception as error:
            raise WorkerStartError(f"no {self._strategy} worker could be started: {error!r}") from error

    async def submit(self, function: Callable[..., T], *args: Any, deadline: float | None = None) -> T:
        """Run `function(*args)` on a worker and return its result.

        Args:
            deadline: seconds from now after which the caller has no use for the result.

        Raises:
            RejectedError: admission refused; ExpiredError: the deadline passed; WorkerLostError: the
            worker died; WorkError: `function` raised.
        """
        if not self._admit(self.waiting, self.running):
            self._metrics.tasks["rejected"].inc()
            raise RejectedError
        outcome = "failed"
        executor, future = self._executor, None
        self._in_flight += 1
        try:
            future = executor.submit(timed, function, time.monotonic(), *args)
            async with asyncio.timeout(deadline):
                result, _, _ = await self._outcome(future)
            outcome = "completed"
        except BrokenExecutor as error:
            outcome = "killed"
            self._replace(executor)
            raise WorkerLostError("the worker died") from error
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except TimeoutError as error:  # ours: the work's own comes as a WorkError
            outcome = "expired"
            raise ExpiredError("the deadline passed") from error
        finally:
            self._metrics.tasks[outcome].inc()
            self._leave(future)
        return result

    async def stop(self, seconds: float = math.inf) -> int:
        """Stop the workers; what they run may finish within `seconds`, then processes are killed.

        Returns:
            Tasks that were cut off. A thread cannot be killed: it goes on until the process ends.
        """
        self._stopping = True
        shut_down = functools.partial(self._executor.shutdown, wait=True, cancel_futures=True)
        # In the background: joining a pool blocks, and the loop still has answers to write.
        stopped = asyncio.create_task(in_background("offload-stop", shut_down))
        try:
            await asyncio.wait_for(asyncio.shield(stopped), None if seconds == math.inf else seconds)
        except TimeoutError:
            cut_off = self.running
            log.warning("workers stopped at the deadline", tasks=cut_off)
            if self._strategy == "process":
                _kill_workers()
                await stopped
            else:
                stopped.cancel()
            return cut_off
        return 0

    async def _outcome(self, future: Future[tuple[T, float, float]]) -> tuple[T, float, float]:
        """The result of a task. A finished future (inline) is read at once: wrapping it would cost
        loop turns, in which the accept loop takes further connections."""
        return future.result() if future.done() else await asyncio.wrap_future(future)

    def _leave(self, future: Future[Any] | None) -> None:
        """Give the place back when the worker is done with the task, which may be after its caller.

        What the task cost counts whether or not anybody still waited for it: the cores were busy.
        """
        if future is None or future.done():
            self._in_flight -= 1
            if future is not None and not future.cancelled() and future.exception() is None:
                _, waited, cpu = future.result()
                self._metrics.queue_wait.observe(waited)
                self._metrics.task_cpu.observe(cpu)
            return
        loop = asyncio.get_running_loop()

        def left(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody counts any more
                loop.call_soon_threadsafe(self._leave, future)

        future.add_done_callback(left)

    def _replace(self, broken: Executor) -> None:
        """One dead worker breaks a whole ProcessPoolExecutor for good: put a new one in its place.

        Every task it held comes here; only the first finds it still installed.
        """
        if self._executor is broken and not self._stopping:
            log.error("worker died, pool replaced", lost=self._in_flight)
            self._metrics.workers_crashed.inc()
            _kill_workers()  # the pool would end its others with SIGTERM, which they ignore
            self._executor = self._new_executor()
            broken.shutdown(wait=False)

    def _new_executor(self) -> Executor:
        if self._strategy == "inline":
            return InlineExecutor()
        if self._strategy == "thread":
            return ThreadPoolExecutor(self.workers, thread_name_prefix="work")
        return process_pool(self.workers, self._nice)
