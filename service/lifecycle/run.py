"""A service from start to exit code: what every entrance awaits, the command as well as gunicorn's worker.

Knows what an operator orders (control.py), and in which order a service starts and stops. Knows no signal
and no part of the service, and changes nothing of the process that it runs in (process.py does).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from service.background import in_background
from service.config.settings import Settings
from service.lifecycle.control import Control
from service.lifecycle.service import Service
from service.lifecycle.states import EXIT_CLEAN, EXIT_DRAIN_DEADLINE, EXIT_LISTENER_BROKEN, Event

log = structlog.get_logger("offloop.serve")

HEARTBEAT_SECONDS = 1.0


async def serve(
    service: Service,
    control: Control,
    *,
    reread: Callable[[], Settings] | None = None,
    started: Callable[[], object] | None = None,
    heartbeat: Callable[[bool, str], object] | None = None,
) -> int:
    """Start the service, run it until it is ordered to stop or its listener breaks, and stop it.

    Args:
        service: not started yet.
        reread: reads the settings again when a reload is ordered; a ValueError refuses the new ones. None: a
            reload reads only the certificates again.
        started: called once, when the service accepts and all that lives as long as it does exists.
        heartbeat: called with readiness and its reason, once a second for as long as the event loop turns.

    Returns:
        The exit code: clean, drain deadline hit, or listener broken (states.py).

    Raises:
        StartError: the service could not start.
    """
    stop_ordered = asyncio.create_task(control.stop_ordered())
    starting = asyncio.create_task(service.start())
    await asyncio.wait({stop_ordered, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        service.life.move(stop_ordered.result())
        log.info("stopped", reason="signal during start")
        return EXIT_CLEAN
    try:
        starting.result()
    except Exception:
        service.life.move(Event.CANNOT_START)
        raise
    if started is not None:
        started()
    beating = asyncio.create_task(_beat(service, heartbeat)) if heartbeat else None
    reloading = asyncio.create_task(_reload_when_ordered(service, control, reread))
    broken = asyncio.create_task(service.broken.wait())
    await asyncio.wait({stop_ordered, broken}, return_when=asyncio.FIRST_COMPLETED)
    for waiting in (stop_ordered, broken, reloading):
        waiting.cancel()
    why = Event.BROKEN if broken.done() else stop_ordered.result()
    if why is Event.TERMINATE:
        await service.lame_duck()
    abandoned = await service.stop(why)
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
        await control.reload_ordered()
        try:
            # On a thread, as a disk that does not answer must not stop the loop.
            await service.reload(await in_background("settings", reread) if reread else service.settings)
        except ValueError as error:
            log.error("reload refused", reason=str(error))  # noqa: TRY400  # the sentences are enough
        except Exception:  # whatever it was, the next order must be obeyed
            log.exception("reload failed")
