"""A service from start to exit code: what every entrance calls, the command as well as gunicorn's worker.

Knows the control that an operator has, and the order of events. Knows no signal and no part of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable

import structlog

from metrics.instruments import Metrics
from service.config.settings import Settings
from service.lifecycle.control import Control
from service.lifecycle.service import Service
from service.lifecycle.states import EXIT_CLEAN, EXIT_DRAIN_DEADLINE, EXIT_LISTENER_BROKEN, Event

log = structlog.get_logger("offloop.serve")

HEARTBEAT_SECONDS = 1.0

FULL_COLLECTION_AFTER = 100
"""Collections of the middle generation between two full ones; Python's default is 10."""


async def serve(
    settings: Settings,
    control: Control,
    *,
    reread: Callable[[], Settings] | None = None,
    listener: socket.socket | None = None,
    metrics: Metrics | None = None,
    admin: bool = True,
    heartbeat: Callable[[bool, str], object] | None = None,
) -> int:
    """Run until an order to stop or a broken listener; return the exit code.

    Args:
        reread: reads the settings again, at an order to reload; what it raises refuses the new ones.
        listener: a listening socket that others hold, too; without one, it binds its own.
        metrics: instruments to use; without them, it makes its own.
        admin: whether to serve the admin endpoint; not, if somebody else publishes `metrics`.
        heartbeat: called once a second for as long as the loop turns, with readiness and its reason.

    Raises:
        StartError: the service could not start.
    """
    service = Service(settings, metrics=metrics, listener=listener, admin=admin)
    stopped = asyncio.create_task(control.stopped())
    starting = asyncio.create_task(service.start())
    await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        service.life.move(stopped.result())
        log.info("stopped", reason="signal during start")
        return EXIT_CLEAN
    try:
        starting.result()
    except Exception:
        service.life.move(Event.CANNOT_START)
        raise
    _collect_less()
    beating = asyncio.create_task(_beat(service, heartbeat)) if heartbeat else None

    reloading = asyncio.create_task(_reload_when_ordered(service, control, reread))
    broken = asyncio.create_task(service.broken.wait())
    await asyncio.wait({stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
    for waiting in (stopped, broken, reloading):
        waiting.cancel()
    why = Event.BROKEN if broken.done() else stopped.result()
    if why is Event.TERMINATE:
        await service.notice()
    abandoned = await service.drain(why)
    if beating is not None:
        beating.cancel()
    book = service.metrics.connections.snapshot()
    log.info("stopped", accepted=book.accepted, completed=sum(book.completed.values()), abandoned=abandoned)
    if service.broken.is_set():
        return EXIT_LISTENER_BROKEN
    return EXIT_DRAIN_DEADLINE if abandoned else EXIT_CLEAN


async def _beat(service: Service, heartbeat: Callable[[bool, str], object]) -> None:
    while True:
        heartbeat(*service.ready())
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _reload_when_ordered(
    service: Service, control: Control, reread: Callable[[], Settings] | None
) -> None:
    while True:
        await control.reloaded()
        try:
            await service.reload(reread() if reread else service.settings)
        except ValueError as error:
            log.error("reload refused", reason=str(error))  # noqa: TRY400  # the sentences are enough
        except Exception:  # whatever it was, the next order must be heard
            log.exception("reload failed")


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
