"""Any `concurrent.futures.Executor` that a factory makes: threads, processes, or an engine on other machines.

Knows `submit` and `shutdown`, and nothing else of the executor. Whether it can kill, cancel, or tell what
runs differs from one to the next (docs/engines.md), so none of that is asked of it. A future of Dask, for
one, can always be cancelled, because it never says that it runs: whoever believed that would hand the place
of a task that still runs to the next.

Function, arguments and result travel pickled, to threads too: what works with one executor works with all,
and no engine has to know how to send them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any, ClassVar, Final

from service.background import in_background
from service.offload.executor_pool import Executor
from service.offload.unpickling import Pickled
from service.offload.worker_main import Done, Packed, run_abroad, warm

Factory = Callable[[], Any]
"""Makes an executor. It may take its time: it is called on a thread of its own."""

PULSE_SECONDS: Final = 1.0
"""How often an executor that has nothing to do is tried: many do not say that they have broken before
somebody submits."""

ANSWER_SECONDS: Final = 10.0
"""How long an executor with nothing else to do for us may take to call `os.getpid`."""

PULSE: Final = pickle.dumps((os.getpid, ()), pickle.HIGHEST_PROTOCOL)


class AnyExecutor(Pickled):
    """What the pool needs of an executor (`executor_pool.Executor`), around one that the factory makes.

    It breaks as a whole: whatever is raised that the work has not raised, or a future that is cancelled, is
    the executor's doing. Nothing that is still in it is believed afterwards.
    """

    factory: ClassVar[Factory]

    def __init__(
        self,
        count: int,
        nice: int,  # noqa: ARG002  # it is between an executor and its factory
        died: Callable[..., Any],
        most_result: float = math.inf,
    ) -> None:
        self._count = count
        self._died = died
        self._most_result = most_result
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Future[Any] | None = None
        self._executor: Any = None
        self._in_flight: set[asyncio.Future[Done]] = set()
        self._broken = ""  # why
        self._given_up = False
        self._pulse: asyncio.Task[None] | None = None

    async def start(self, packed: Packed | None) -> None:
        """Let the factory make one, and prove that it works: a worker imports what `packed` needs.

        Raises:
            Exception: the factory has raised, or it cannot do that. `kill()` and `stop()` it then.
        """
        self._making = asyncio.ensure_future(in_background("executor-start", self._make))
        # Shielded, because the thread goes on even if this is cancelled.
        self._executor = await asyncio.shield(self._making)
        done = await self.ask(PULSE if packed is None else self.pack(warm, (packed,)))
        if done.failure is not None:
            raise BrokenExecutor(done.failure.summary)
        self._pulse = asyncio.create_task(self._watch())

    def submit(self, packed: Packed, submitted: float, until: float = math.inf) -> asyncio.Future[Done]:  # noqa: ARG002  # another machine has another clock
        """See `executor_pool.Executor`. What is handed over runs, however late."""
        if self._broken:
            raise BrokenExecutor(self._broken)
        try:
            future = self._executor.submit(run_abroad, packed, self._most_result)
        except Exception as error:
            self._break(repr(error))
            raise BrokenExecutor(self._broken) from error
        outcome: asyncio.Future[Done] = self._loop.create_future()
        self._in_flight.add(outcome)

        def settle() -> None:
            self._in_flight.discard(outcome)
            if outcome.done():  # the executor has broken meanwhile, or the caller was cancelled
                return
            if future.cancelled() or (error := future.exception()) is not None:
                self._in_flight.add(outcome)
                self._break("a task was cancelled" if future.cancelled() else repr(error))
                return
            done: Done = future.result()
            outcome.set_result(done._replace(waited=max(time.monotonic() - submitted - done.took, 0.0)))

        def tell(_: Future[Done]) -> None:  # on a thread of the executor's
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                self._loop.call_soon_threadsafe(settle)

        future.add_done_callback(tell)
        return outcome

    async def ask(self, packed: Packed) -> Done:
        """See `lane.Lane`."""
        return await self.submit(packed, time.monotonic())

    def kill(self) -> bool:
        """Give it up. Its workers are killed if it has `kill_workers`, as the pool of Python 3.14 has; else
        what runs goes on, and there is nothing to wait for: False."""
        kill = getattr(self._executor, "kill_workers", None)
        if not self._given_up:
            self._given_up = True
            if not self._broken:
                self._break("it was given up")
            if self._executor is not None:
                # On a thread, because it may talk to an engine that does not answer.
                end = kill or functools.partial(self._executor.shutdown, wait=False, cancel_futures=True)
                threading.Thread(target=end, name="executor-kill", daemon=True).start()
        return kill is not None

    async def stop(self) -> None:
        """See `lane.Lane`. How long an executor takes for that is bounded by whoever waits."""
        if self._pulse is not None:
            self._pulse.cancel()
        if self._in_flight:  # some cancel what they have not begun, or lose what is on its way back
            await asyncio.wait(self._in_flight)
        if self._making is not None and (self._making.done() or not self._given_up):  # else `_make` ends it
            await asyncio.wait({self._making})
            if not self._making.cancelled() and self._making.exception() is None:
                await in_background("pool-stop", self._making.result().shutdown)

    def _make(self) -> Any:
        made = type(self).factory()
        if not callable(getattr(made, "submit", None)):
            raise TypeError(f"the factory returned {type(made).__name__}, which is no executor")
        if self._given_up:  # perhaps nobody waits for this thread any more
            made.shutdown(wait=False)
            return made
        # Many start their workers in the first `submit`, or one in each of the first: not on the event loop.
        for _ in range(self._count):
            made.submit(run_abroad, PULSE, self._most_result)
        return made

    def _break(self, why: str) -> None:
        """All that is in it is lost, now: an executor that is broken may never say so of each."""
        self._broken = why
        for outcome in self._in_flight:
            if not outcome.done():
                outcome.set_exception(BrokenExecutor(why))
        self._in_flight.clear()

    async def _watch(self) -> None:
        while not self._broken:
            await asyncio.sleep(PULSE_SECONDS)
            if self._in_flight:
                continue
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self.ask(PULSE)
            except Exception as error:
                if not self._broken:
                    self._break(repr(error))
                self._died(self, self._broken)


def kind_of(factory: Factory) -> type[Executor]:
    """The kind of executor that `factory` makes, as the pool takes it."""
    return type("AnyExecutor", (AnyExecutor,), {"factory": staticmethod(factory)})
