"""Puts the parts together and takes them down in order: the composition root.

Knows every part and no detail of any. `Service` is what `serve` and the tests run.

Up: admin endpoint, workers, application, listener. Down in the reverse order, so that no part loses
one it still needs, and metrics stay readable to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
from contextlib import AsyncExitStack
from typing import cast

import structlog
from aiohttp import web

from metrics.admin import Admin
from metrics.instruments import Metrics
from service import __version__
from service.app import data
from service.app.loading import StartError, load_application, load_work
from service.app.middleware import complete
from service.app.offloader import Offloader
from service.app.query import Binding
from service.background import in_background
from service.config.settings import Settings
from service.lifecycle.loop_monitor import LoopWatch
from service.lifecycle.states import Event, Life, State
from service.net import tls as encryption
from service.net.accept_loop import AcceptLoop, Callbacks
from service.net.connection_limit import ConnectionLimit, open_files
from service.net.listener import listen
from service.net.shortage import ReserveDescriptors, Shortage
from service.net.tcp import backlog
from service.offload.admission import Admission
from service.offload.errors import WorkError, WorkerStartError
from service.offload.lane_pool import Recycling
from service.offload.offload import Offload
from service.offload.strategies import pool_for
from service.web.connection import HandOver, Tls
from service.web.deadlines import ARRIVE_SECONDS, LEAVE_SECONDS, Stage
from service.web.drain import Drain
from service.web.early_reject import EarlyReject
from service.web.supervisor import Supervisor
from service.work import body

log = structlog.get_logger("offloop.server")

TLS = frozenset({"tls_cert", "tls_key", "tls_client_ca"})
RELOADABLE = TLS | {"max_connections"}


class Service:
    """One running service: `start()`, then `addresses` and `metrics`, then `drain()`.

    Args:
        metrics: instruments to use; without them, it makes its own.
        listener: a listening socket that others hold, too; without one, it opens what the settings say.
            It is closed in the end.
        admin: whether to serve the admin endpoint.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        listener: socket.socket | None = None,
        admin: bool = True,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.life = Life()
        self.broken = asyncio.Event()
        self._listener = listener
        self._has_admin = admin
        self._admin_address = ""
        self._watch = LoopWatch(settings.loop_stall, self.metrics)
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
        self.life.move(Event.UP)

    @property
    def addresses(self) -> tuple[str, str]:
        """Base URLs of the service and of its admin endpoint; empty, if it has none."""
        return self._address, self._admin_address

    def ready(self) -> tuple[bool, str]:
        """Readiness and its reason; safe from any thread."""
        if self.life.ready and not self._offload.healthy:
            return False, "workers keep dying"
        return self.life.ready, self.life.state.value

    def alive(self) -> tuple[bool, str]:
        """Liveness and its reason; safe from any thread."""
        if self.life.watched and (seconds := self._watch.stalled()) is not None:
            return False, f"the event loop has not turned for {seconds:.1f} s"
        return True, "ok"

    async def reload(self, settings: Settings) -> None:
        """Take over what may change while running: the certificates' files and the connection limit.

        What cannot be used is refused, and the log says why; the old stays. Connections that are
        encrypted already keep their certificate, and connections above a lower limit stay.
        """
        changed = {name for name, value in settings if value != getattr(self.settings, name)}
        takes = RELOADABLE
        if (self.settings.tls_cert is None) is not (settings.tls_cert is None):
            takes -= TLS  # who connects to this port expects the one or the other
        if changed - takes:
            log.warning("settings need a restart", settings=sorted(changed - takes))
        after = self._with(settings, takes)
        try:
            self._hand_over.tls = await in_background("certificates", _encryption, after)
        except StartError as error:
            log.error("certificates refused", reason=str(error), now="the old ones")  # noqa: TRY400
            after = self._with(settings, takes - TLS)
        self.settings = after
        with contextlib.suppress(OSError):  # the open files cannot be counted now: the old limit stays
            self.connection_limit.set(after.max_connections)
        log.info(
            "reloaded",
            max_connections=self.connection_limit.limit,
            tls_cert=str(self.settings.tls_cert or "none"),
        )

    def _with(self, settings: Settings, names: frozenset[str]) -> Settings:
        """The present settings, but these from others."""
        return self.settings.model_copy(update={name: getattr(settings, name) for name in names})

    async def notice(self) -> None:
        """Serve on for `drain_notice` seconds, but say that it will not for long.

        Balancers see that it is not ready and look elsewhere, and every answer ends its connection: who
        keeps one would otherwise find it closed just when it sends the next request.
        """
        self.life.move(Event.TERMINATE)
        seconds = self.settings.drain_notice
        if seconds:
            self._supervisor.close_after_responses()
            log.info("notice", seconds=seconds, active=self.metrics.connections.snapshot().active)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.broken.wait(), seconds)
        self.life.move(Event.BROKEN if self.broken.is_set() else Event.NOTICE_OVER)

    async def drain(self, why: Event = Event.INTERRUPT) -> int:
        """Stop accepting, finish what is running, stop the workers.

        Returns:
            Connections and tasks that had to be abandoned at the deadline; 0 is a clean end.
        """
        if self.life.state is State.SERVING:  # and not come here by way of a notice
            self.life.move(why)
        self._deadline = asyncio.get_running_loop().time() + self.settings.drain_timeout
        await self._stack.aclose()
        self.life.move(Event.LATE if self._abandoned else Event.ENDED)
        return self._abandoned

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, metrics = self.settings, self.metrics
        metrics.info(version=__version__, offload=settings.offload, loop=settings.loop)
        tls = _encryption(settings)
        # In the background, so that a signal is heard meanwhile.
        work, cost = await in_background("calibration", load_work, settings)

        if self._has_admin:
            self._start_admin(stack)
        offload = await self._start_offload(stack, work, cost)
        offloader = Offloader(offload, settings.deadline)
        served = load_application(settings, offloader) if work is None else data.data_app(offloader, work)
        runner = web.AppRunner(
            complete(served, self.ready, settings.request_log),
            shutdown_timeout=0.1,
            handler_cancellation=True,  # a client that has gone must not keep its place in the queue
        )
        try:
            await runner.setup()
        except Exception as error:
            raise StartError(f"the application does not start: {type(error).__name__}: {error}") from error
        stack.push_async_callback(self._clean_up, runner)

        listener = self._listener or self._listen()
        stack.callback(listener.close)  # if the rest of the start fails; the accept loop closes it first
        reserve = ReserveDescriptors()  # before the open files are counted: it is some of them
        try:
            self.connection_limit = ConnectionLimit(settings.max_connections, open_files)
        except OSError as error:
            raise StartError(f"cannot count the open files: {error.strerror}") from error
        metrics.connections_limit.set_function(lambda: self.connection_limit.limit)
        self._supervisor = supervisor = Supervisor(
            cast("web.Server", runner.server),  # set by setup()
            self.connection_limit,
            {
                Stage.HEAD: settings.header_timeout,
                Stage.BODY: settings.body_timeout,
                Stage.WRITE: settings.write_timeout,
                Stage.IDLE: settings.idle_timeout,
                Stage.ARRIVE: min(ARRIVE_SECONDS, settings.drain_timeout / 2),
                Stage.LEAVE: LEAVE_SECONDS,
            },
            metrics,
        )
        stack.callback(supervisor.close)
        early_reject = EarlyReject(offloader.always, offload, settings.deadline, metrics)
        self._hand_over = HandOver(supervisor, tls, metrics, early_reject)
        self._accepting = accepting = AcceptLoop(
            listener,
            settings.accept_batch,
            self.connection_limit,
            Shortage(self.connection_limit, reserve, metrics),
            Callbacks(self._hand_over.take, supervisor.evict_idle, broken=lambda _: self.broken.set()),
            metrics,
        )
        metrics.watch_backlog(lambda: backlog(listener))
        stack.push_async_callback(self._end_connections, listener)

        self._watch.start()
        stack.callback(self._watch.close)
        self._address = _url(listener.getsockname(), "https" if tls else "http")
        accepting.start()
        log.info(
            "ready",
            address=self._address,
            admin=self._admin_address,
            offload=settings.offload,
            workers=offload.count,
        )

    def _start_admin(self, stack: AsyncExitStack) -> None:
        host, port = self.settings.admin_host, self.settings.admin_port
        try:
            admin = Admin(host, port, self.metrics.registry, self.alive, self.ready)
        except (OSError, UnicodeError) as error:
            raise _cannot_bind("admin", host, port, error) from error
        stack.callback(admin.close)
        self._admin_address = _url(admin.address)

    def _listen(self) -> socket.socket:
        settings = self.settings
        try:
            return listen(settings.host, settings.port, settings.backlog)
        except (OSError, UnicodeError) as error:
            raise _cannot_bind("service", settings.host, settings.port, error) from error

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
                pool_for(settings.offload, workers, settings.worker_nice, self.metrics, recycling),
                self.metrics,
                Admission(workers, settings.queue_wait, cost, settings.deadline),
                settings.task_attempts,
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

    async def _end_connections(self, listener: socket.socket) -> None:
        drain = Drain(
            listener,
            self._accepting,
            self._hand_over,
            self._supervisor,
            self.metrics.connections,
            is_shared=self._listener is not None,
        )
        self._abandoned += await drain.run(self._deadline)

    async def _clean_up(self, runner: web.AppRunner) -> None:
        """Let the application clean up, for as long as the drain may take."""
        rest = max(0.1, self._deadline - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(runner.cleanup(), rest)
        except TimeoutError:
            log.warning("clean-up of the application cut off")
            self._abandoned += 1
        except Exception:
            log.exception("clean-up of the application failed")

    async def _stop_offload(self, offload: Offload) -> None:
        # A start that failed has no deadline yet, and nothing worth waiting for.
        rest = max(0.1, self._deadline - asyncio.get_running_loop().time())
        cut_off = await offload.stop(rest)
        self._abandoned += cut_off
        log.info("workers stopped", cut_off=cut_off)


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
