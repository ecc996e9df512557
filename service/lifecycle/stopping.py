"""Stops the parts of a service: within one deadline, and with a count of what that cut off.

Knows how each part is stopped, and leaves their order to the exit stack (parts.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from aiohttp import web

from service.offload.offload import Offload
from service.web.drain import Drain

log = structlog.get_logger("offloop.server")

LEAST_SECONDS = 0.1
"""What a part gets even after the deadline: enough to cancel what runs."""


class CutOffError(Exception):
    """The deadline has passed."""


class Runner(web.AppRunner):
    """aiohttp's runner, which sends on_shutdown once: in the drain, and not in `cleanup()` again.

    After a start that failed there is no drain, and `cleanup()` sends it.
    """

    _has_told = False

    async def shutdown(self) -> None:
        """Send the application and those below it their on_shutdown, if they have not had it."""
        if not self._has_told:
            self._has_told = True
            await super().shutdown()


class Stopping:
    """One stop of one service. Without `begin()`, after a start that failed, nothing is worth waiting for."""

    def __init__(self) -> None:
        self.abandoned = 0
        """Connections, tasks and clean-ups that the deadline has cut off."""
        self._deadline = 0.0  # of the event loop's clock

    def begin(self, seconds: float) -> None:
        """Let the deadline be so many seconds from now."""
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def connections(self, drain: Drain) -> None:
        """Close the listener and drain the connections."""
        left = await drain.run(self._deadline)  # which may count abandoned ones of its own meanwhile
        self.abandoned += left

    async def tell_application(self, runner: Runner) -> None:
        """Send on_shutdown. If that fails or is cut off, some clients may not have heard of the end."""
        try:
            await _within(self._remaining(), runner.shutdown())
        except CutOffError:
            log.warning("on_shutdown of the application cut off")
            self.abandoned += 1
        except Exception:
            log.exception("on_shutdown of the application failed")
            self.abandoned += 1

    async def application(self, runner: Runner) -> None:
        """Let the application clean up; what it raises goes to the log."""
        try:
            await _within(self._remaining(), runner.cleanup())
        except CutOffError:
            log.warning("clean-up of the application cut off")
            self.abandoned += 1
        except Exception:
            log.exception("clean-up of the application failed")

    async def workers(self, offload: Offload) -> None:
        """Stop the workers once what they run has finished; what waits in the offload queue is dropped."""
        cut_off = await offload.stop(self._remaining())
        self.abandoned += cut_off
        log.info("workers stopped", cut_off=cut_off)

    def _remaining(self) -> float:
        return max(LEAST_SECONDS, self._deadline - asyncio.get_running_loop().time())


async def _within(seconds: float, call: Coroutine[Any, Any, object]) -> None:
    """Await a call of the application's, in a task of its own, so that it cannot end or keep this one.

    Raises:
        CutOffError: it took longer. It has been cancelled, and may still run if it does not heed that.
        RuntimeError: it has let a CancelledError out, which would read as an order to us.
    """
    task = asyncio.create_task(call)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=LEAST_SECONDS)
        raise CutOffError
    if task.cancelled():
        raise RuntimeError("it has let a CancelledError out")
    task.result()
