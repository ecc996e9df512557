"""Puts the parts together and takes them down in order: the composition root.

Knows every part and no detail of any. `Service` is what the command, the tests and any other
entrance run; `serve` adds signals and the exit code.

Up: admin endpoint, workers, application, listener. Down in the reverse order, so that no part loses
one it still needs, and metrics stay readable to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import math
import os
import signal
from contextlib import AsyncExitStack
from typing import cast

import structlog
from aiohttp import web

from metrics.admin import Admin
from metrics.instruments import Metrics
from service import __version__, app
from service import tls as encryption
from service.accept import AcceptLoop, listen
from service.admission import Admission
from service.background import in_background
from service.binding import Binding
from service.connection import Reception, Tls
from service.deadlines import Stage
from service.loading import StartError, load_application, load_work
from service.offload import Offload, WorkError, WorkerStartError
from service.protocol import LEAVE_SECONDS
from service.refusal import Refusal
from service.settings import Settings
from service.tcp import backlog
from service.tokens import Tokens, derive, open_files, possible
from service.work import body
from service.workers import Recycling

log = structlog.get_logger("offloop.server")

LAG_INTERVAL_SECONDS = 0.1
ARRIVAL_SECONDS = 1.0
"""How long a drain waits for a request that may be on its way: longer than a round trip round the
world and a lost packet's first retransmission (200 ms), shorter than anybody's patience with a deploy."""

FULL_COLLECTION_AFTER = 100
"""Collections of the middle generation between two full ones; Python's default is 10."""

EXIT_CLEAN, EXIT_DRAIN_DEADLINE, EXIT_CANNOT_START, EXIT_LISTENER_BROKEN = 0, 1, 2, 3


class Service:
    """One running service: `start()`, then `addresses` and `metrics`, then `drain()`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.broken = asyncio.Event()
        self._state = "starting"
        self._stack = AsyncExitStack()
        self._deadline = 0.0
        self._abandoned = 0

    async def start(self) -> None:
        """Bring every part up and begin to accept.

        Raises:
            StartError: something could not be started; what was already up has been taken down.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        self._state = "serving"

    @property
    def addresses(self) -> tuple[str, str]:
        """Base URLs of the service and of its admin endpoint."""
        return self._address, self._admin_address

    def ready(self) -> tuple[bool, str]:
        """Readiness and its reason; safe from any thread."""
        if self._state == "serving" and not self._offload.healthy:
            return False, "workers keep dying"
        return self._state == "serving", self._state

    async def drain(self) -> int:
        """Stop accepting, finish what is running, stop the workers.

        Returns:
            Connections and tasks that had to be abandoned at the deadline; 0 is a clean end.
        """
        self._state = "draining"
        self._deadline = asyncio.get_running_loop().time() + self.settings.drain_timeout
        await self._stack.aclose()
        return self._abandoned

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, metrics = self.settings, self.metrics
        metrics.info(version=__version__, offload=settings.offload, loop=settings.loop)
        tls = _encryption(settings)
        # In the background, so that a signal is heard meanwhile.
        work, cost = await in_background("calibration", load_work, settings)

        try:
            admin = Admin(
                settings.admin_host, settings.admin_port, metrics.registry, lambda: (True, "ok"), self.ready
            )
        except (OSError, UnicodeError) as error:
            raise _cannot_bind("admin", settings.admin_host, settings.admin_port, error) from error
        stack.callback(admin.close)

        offload = await self._start_offload(stack, work, cost)
        offloader = app.Offloader(offload, settings.deadline, metrics)
        served = load_application(settings, offloader) if work is None else app.data_app(offloader, work)
        runner = web.AppRunner(
            app.complete(served, self.ready),
            shutdown_timeout=0.1,
            handler_cancellation=True,  # a client that has gone must not keep its place in the queue
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)

        try:
            listener = listen(settings.host, settings.port, settings.backlog)
        except (OSError, UnicodeError) as error:
            raise _cannot_bind("service", settings.host, settings.port, error) from error
        stack.callback(listener.close)  # if the rest of the start fails; the accept loop closes it first
        self.tokens = Tokens(self._max_connections())
        metrics.connections_limit.set_function(lambda: self.tokens.limit)
        reception = Reception(
            cast("web.Server", runner.server),  # set by setup()
            self.tokens,
            {
                Stage.HEAD: settings.header_timeout,
                Stage.BODY: settings.body_timeout,
                Stage.WRITE: settings.write_timeout,
                Stage.IDLE: settings.idle_timeout,
                Stage.LEAVE: LEAVE_SECONDS,
            },
            tls,
            metrics,
            Refusal(offloader.always, offloader),
        )
        stack.callback(reception.close)
        accepting = AcceptLoop(
            asyncio.get_running_loop(),
            listener,
            batch=settings.accept_batch,
            tokens=self.tokens,
            take=reception.take,
            make_room=reception.make_room,
            broken=lambda _: self.broken.set(),
            possible=self._possible_connections,
            metrics=metrics,
        )
        metrics.watch_backlog(lambda: backlog(listener))
        stack.push_async_callback(self._stop_accepting, accepting, reception)

        lag = asyncio.create_task(_watch_lag(metrics))
        stack.callback(lag.cancel)
        self._address = _url(listener.getsockname(), "https" if tls else "http")
        self._admin_address = _url(admin.address)
        accepting.start()
        log.info(
            "ready",
            address=self._address,
            admin=self._admin_address,
            offload=settings.offload,
            workers=offload.count,
        )

    def _max_connections(self) -> int:
        """The limit as set, or as the open files allow once all other parts are up."""
        try:
            possible, why = derive(*open_files())
        except OSError as error:
            raise StartError(f"cannot count the open files: {error.strerror}") from error
        chosen = self.settings.max_connections
        if chosen is None:
            log.info("connection limit", max_connections=possible, derived=why)
            return possible
        if chosen > possible:
            log.warning(
                "connection limit above what the open files allow",
                max_connections=chosen,
                possible=possible,
                derived=why,
            )
        return chosen

    def _possible_connections(self) -> int:
        limit, in_use = open_files()
        return possible(limit, in_use - self.tokens.taken)

    async def _start_offload(
        self, stack: AsyncExitStack, work: Binding | None, cost: float | None
    ) -> Offload:
        settings = self.settings
        what = f"the workers for {settings.work}" if work else "the workers"
        workers = 1 if settings.offload == "inline" else settings.workers
        mib = settings.worker_max_memory
        recycling = Recycling(settings.worker_max_tasks or math.inf, mib * 2**20 if mib else math.inf)
        try:
            offload = Offload(
                settings.offload,
                workers,
                settings.worker_nice,
                self.metrics,
                Admission(workers, settings.queue_wait, cost),
                settings.task_attempts,
                recycling,
            )
            stack.push_async_callback(self._stop_offload, offload)
            if work is None:
                await offload.start()
            else:
                trial = work.trial(units=1)
                await offload.start(body, work.function, trial or {}, try_out=trial is not None)
        except WorkError as error:
            raise StartError(f"the work function {settings.work} fails on a worker: {error}") from error
        except (WorkerStartError, OSError) as error:
            raise StartError(f"cannot start {what}: {error}") from error
        self._offload = offload
        return offload

    async def _stop_accepting(self, accepting: AcceptLoop, reception: Reception) -> None:
        clock = asyncio.get_running_loop().time
        grace = min(ARRIVAL_SECONDS, self.settings.drain_timeout)
        reception.drain(grace)  # what is idle first: in a shortage that frees the descriptors to accept with
        await asyncio.sleep(0)
        taken, left = accepting.close()
        await reception.settled(max(0.0, min(grace, self._deadline - clock())))
        reception.drain(grace)
        active = self.metrics.connections.snapshot().active
        log.info("draining", active=active, from_queue=taken, left_in_queue=left)
        # Polling, because an event would cost every connection something and this costs one drain.
        while (active := self.metrics.connections.snapshot().active) and clock() < self._deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._abandoned += active + left

    async def _stop_offload(self, offload: Offload) -> None:
        # A start that failed has no deadline yet, and nothing worth waiting for.
        rest = max(0.1, self._deadline - asyncio.get_running_loop().time())
        self._abandoned += await offload.stop(rest)


async def serve(settings: Settings) -> int:
    """Run until SIGTERM, SIGINT or a broken listener; return the exit code.

    Raises:
        StartError: the service could not start.
    """
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # before anything slow or bound
        running.add_signal_handler(number, stop.set)
    service = Service(settings)
    signalled = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(service.start())
    await asyncio.wait({signalled, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        log.info("stopped", reason="signal during start")
        return EXIT_CLEAN
    starting.result()
    _collect_less()

    broken = asyncio.create_task(service.broken.wait())
    await asyncio.wait({signalled, broken}, return_when=asyncio.FIRST_COMPLETED)
    for wait in (signalled, broken):
        wait.cancel()

    abandoned = await service.drain()
    book = service.metrics.connections.snapshot()
    log.info("stopped", accepted=book.accepted, completed=sum(book.completed.values()), abandoned=abandoned)
    if service.broken.is_set():
        return EXIT_LISTENER_BROKEN
    return EXIT_DRAIN_DEADLINE if abandoned else EXIT_CLEAN


def _collect_less() -> None:
    """Keep the garbage collector's full passes, which stop the loop, short and rare.

    A pass takes 50 to 80 ms with 1,000 connections. What exists after the start lives as long as the
    process: frozen, it is not walked through again. And full passes come a tenth as often; what they would
    have found, cycles that have survived two younger passes, is some 500,000 objects at most by then.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION_AFTER)


def _cannot_bind(what: str, host: str, port: int, error: OSError | UnicodeError) -> StartError:
    known = errno.errorcode.get(getattr(error, "errno", None) or 0)  # a resolver's errors are none of these
    name, reason = (
        (known, os.strerror(getattr(error, "errno", 0))) if known else (type(error).__name__, str(error))
    )
    return StartError(f"cannot bind the {what} address {_url((host, port))}: {name} ({reason})")


def _encryption(settings: Settings) -> Tls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        made = encryption.context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except encryption.TlsError as error:
        raise StartError(str(error)) from error
    return Tls(made, settings.tls_handshake_timeout)


def _url(address: tuple[str, int], scheme: str = "http") -> str:
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def _watch_lag(metrics: Metrics) -> None:
    """Measure how late a timer fires: what every client waits for a turn of this loop."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_SECONDS
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
