"""Stops the parts of a service: within one deadline, and with a count of what that cut off.

Knows how each part is stopped, and leaves their order to the exit stack (parts.py).
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from service.offload.offload import Offload
from service.web.drain import Drain

log = structlog.get_logger("offloop.server")

LEAST_SECONDS = 0.1
"""What a part gets even after the deadline: enough to cancel what runs."""


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
        self.abandoned += await drain.run(self._deadline)

    async def application(self, runner: web.AppRunner) -> None:
        """Let the application clean up; what it raises goes to the log."""
        try:
            await asyncio.wait_for(runner.cleanup(), self._remaining())
        except TimeoutError:
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
