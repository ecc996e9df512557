"""Puts the parts of a service together: the composition root.

Knows every part and no detail of any. They come up in this order: admin endpoint, workers, application,
listener. Each pushes how it is stopped onto an exit stack, so they go down in the reverse order: no part
loses one that it still needs, and metrics stay readable to the end.
"""

from __future__ import annotations

import functools
import math
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import cast

import structlog
from aiohttp import web

from metrics.admin import Admin, Probe
from metrics.instruments import Metrics
from service import __version__
from service.app import data
from service.app.loading import StartError, check_routes, load_application, load_executor, load_work
from service.app.middleware import complete
from service.app.offloader import Offloader
from service.app.query import Binding
from service.background import in_background
from service.config.settings import Settings
from service.lifecycle.loop_monitor import LoopMonitor
from service.lifecycle.stopping import Runner, Stopping
from service.net.accept_loop import AcceptLoop, Callbacks
from service.net.addresses import url, why_not_bound
from service.net.client_limit import ClientLimit
from service.net.connection_limit import ConnectionLimit, open_files
from service.net.listener import listen, resolve
from service.net.refusing import Refusing
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
from service.web.priority import Ranks
from service.web.supervisor import Supervisor
from service.work import body

log = structlog.get_logger("offloop.server")


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What the parts are made from.

    listener: a listening socket that other processes hold as well; None: open the one that the settings name.
    admin: whether to serve the admin endpoint.
    tls: how to encrypt connections; None for plain HTTP.
    ready, alive: the answers of its probes.
    broken: called when the listener has failed for good.
    """

    settings: Settings
    metrics: Metrics
    listener: socket.socket | None
    admin: bool
    tls: Tls | None
    ready: Probe
    alive: Probe
    broken: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a service that is up, and where it can be reached.

    address, admin_address: base URLs; the second is empty without an admin endpoint.
    """

    offload: Offload
    connection_limit: ConnectionLimit
    supervisor: Supervisor
    hand_over: HandOver
    loop_monitor: LoopMonitor
    address: str
    admin_address: str


async def assemble(blueprint: Blueprint, stopping: Stopping, stack: AsyncExitStack) -> Parts:
    """Bring every part up, push onto `stack` how `stopping` stops it, and begin to accept.

    Raises:
        StartError: a part could not be started; the stack holds those that are up.
    """
    settings, metrics = blueprint.settings, blueprint.metrics
    metrics.info(version=__version__, offload=settings.offload, loop=settings.loop)
    # On threads, so that the loop hears a signal meanwhile: these wait for a disk, a resolver, the work.
    work, cost = await in_background("calibration", load_work, settings)

    admin_address = await _start_admin(blueprint, stack) if blueprint.admin else ""
    offload = await _start_offload(blueprint, stopping, stack, work, cost)
    ranks = Ranks(
        {one.route: one.urgency for one in settings.route_urgency},
        settings.trust_priority,
        by_client=settings.client_share < 1,
    )
    offloader = Offloader(offload, settings.deadline, settings.trusted_peers, ranks)
    served = load_application(settings, offloader) if work is None else data.data_app(offloader, work)
    check_routes(served, settings, offloader.always)
    runner = Runner(
        complete(served, blueprint.ready, metrics, settings.request_log),
        shutdown_timeout=0.1,
        handler_cancellation=True,  # a client that has gone must not keep its place in the queue
    )
    try:
        await runner.setup()
    except Exception as error:
        raise StartError(f"the application does not start: {type(error).__name__}: {error}") from error
    stack.push_async_callback(stopping.application, runner)

    listener = blueprint.listener or await _listen(settings)
    stack.callback(listener.close)  # if the rest of the start fails; the accept loop closes it first
    # Connections inherit it when they are made: asked for once, and not for each. Those that an inherited
    # listener holds already go without; they end by their deadlines.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    reserve = ReserveDescriptors()  # before the open files are counted: it is some of them
    try:
        connection_limit = ConnectionLimit(settings.max_connections, open_files)
    except OSError as error:
        raise StartError(f"cannot count the open files: {error.strerror}") from error
    metrics.connections_limit.set_function(lambda: connection_limit.limit)
    supervisor = Supervisor(
        cast("web.Server", runner.server),  # set by setup()
        connection_limit,
        {
            Stage.HEAD: settings.header_timeout,
            Stage.BODY: settings.body_timeout,
            Stage.WRITE: settings.write_timeout,
            Stage.IDLE: settings.idle_timeout,
            Stage.ARRIVE: min(ARRIVE_SECONDS, settings.drain_timeout / 2),
            Stage.LEAVE: LEAVE_SECONDS,
        },
        settings.receive_timeout,
        metrics,
    )
    stack.callback(supervisor.close)
    is_shared = blueprint.listener is not None
    refusing = Refusing(listener, is_shared=is_shared)
    early_reject = EarlyReject(offloader.always, offload, settings.deadline, metrics, ranks, refusing.note)
    clients = ClientLimit(settings.max_connections_per_client, connection_limit)
    hand_over = HandOver(supervisor, blueprint.tls, clients, metrics, early_reject)
    accept_loop = AcceptLoop(
        listener,
        settings.accept_batch,
        connection_limit,
        Shortage(connection_limit, reserve, metrics),
        refusing,
        Callbacks(hand_over.take, supervisor.make_room, broken=lambda _: blueprint.broken()),
        metrics,
    )
    metrics.watch_backlog(lambda: backlog(listener))

    drain = Drain(
        listener,
        refusing,
        accept_loop,
        hand_over,
        supervisor,
        metrics.connections,
        is_shared=is_shared,
        tell_application=functools.partial(stopping.tell_application, runner),
    )
    stack.push_async_callback(stopping.connections, drain)

    monitor = LoopMonitor(settings.loop_stall, metrics)
    stack.callback(monitor.close)
    host, port = listener.getsockname()[:2]
    address = url(host, port, "https" if blueprint.tls else "http")
    accept_loop.start()
    log.info(
        "ready",
        address=address,
        admin=admin_address,
        offload=settings.offload,
        workers=offload.count,
    )
    return Parts(offload, connection_limit, supervisor, hand_over, monitor, address, admin_address)


async def _start_admin(blueprint: Blueprint, stack: AsyncExitStack) -> str:
    host, port = blueprint.settings.admin_host, blueprint.settings.admin_port
    try:
        address = await in_background("resolver", resolve, host)
        admin = Admin(address, port, blueprint.metrics.registry, blueprint.alive, blueprint.ready)
    except (OSError, UnicodeError) as error:
        raise _cannot_bind("admin", host, port, error) from error
    stack.callback(admin.close)
    return url(*admin.address)


async def _listen(settings: Settings) -> socket.socket:
    try:
        address = await in_background("resolver", resolve, settings.host)
        return listen(address, settings.port, settings.backlog)
    except (OSError, UnicodeError) as error:
        raise _cannot_bind("service", settings.host, settings.port, error) from error


def _cannot_bind(what: str, host: str, port: int, error: OSError | UnicodeError) -> StartError:
    return StartError(f"cannot bind the {what} address {url(host, port)}: {why_not_bound(error)}")


async def _start_offload(
    blueprint: Blueprint, stopping: Stopping, stack: AsyncExitStack, work: Binding | None, cost: float | None
) -> Offload:
    settings = blueprint.settings
    what = f"the workers for {settings.work}" if work else "the workers"
    workers = 1 if settings.offload == "inline" else settings.workers
    mib = settings.worker_max_memory
    recycling = Recycling(settings.worker_max_tasks or math.inf, mib * 2**20 if mib else math.inf)
    factory = await in_background("executor", load_executor, settings)
    try:
        offload = Offload(
            pool_for(
                settings.offload,
                workers,
                settings.worker_nice,
                blueprint.metrics,
                recycling,
                settings.max_result * 2**20,
                factory,
            ),
            blueprint.metrics,
            Admission(workers, settings.queue_wait, cost, settings.deadline, settings.client_share),
            settings.task_attempts,
            settings.max_queue_bytes,
        )
        stack.push_async_callback(stopping.workers, offload)
        if work is None:
            await offload.start()
        else:
            trial = work.trial(units=1)
            await offload.start(body, work.function, trial or {}, try_out=trial is not None)
    except WorkError as error:
        raise StartError(f"the work function {settings.work} fails on a worker: {error}") from error
    except (WorkerStartError, OSError) as error:
        raise StartError(f"cannot start {what}: {error}") from error
    return offload
