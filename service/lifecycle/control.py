"""What the operator tells a running service: to stop, or to read its settings anew.

Filled by an entrance from its signals, heard by `serve`. Knows that a second stop is no longer patient.
Installs no signal handler and ends no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from service.lifecycle.states import Event

ONE_STOP_SECONDS = 0.005
"""Two stops this close together are one. timeout(1) signals its child and then its whole group, to which the
child belongs; nobody presses a key twice so fast."""


class Control:
    """Given in a signal handler at any moment, also before there is a loop; heard by tasks.

    Args:
        force: called at a second stop. It is called from the signal handler itself, and not by the loop:
            what shall be forced may be a loop that is blocked.
        clock: monotonic seconds.
    """

    def __init__(self, force: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._force = force
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._why = Event.TERMINATE
        self._since: float | None = None
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    def stop(self, why: Event) -> None:
        """Stop: `Event.TERMINATE` gives notice first, `Event.INTERRUPT` does not."""
        if self._since is None:
            self._why, self._since = why, self._clock()
            self._give(self._stop)
        elif self._clock() - self._since > ONE_STOP_SECONDS:
            self._force()

    def reload(self) -> None:
        """Read the settings and certificates anew."""
        self._give(self._reload)

    async def stopped(self) -> Event:
        """Wait until the service shall stop; says why."""
        self._loop = asyncio.get_running_loop()
        await self._stop.wait()
        return self._why

    async def reloaded(self) -> None:
        """Wait until the settings shall be read anew; several orders before that are one."""
        self._loop = asyncio.get_running_loop()
        await self._reload.wait()
        self._reload.clear()

    def _give(self, order: asyncio.Event) -> None:
        if self._loop is None:  # nobody waits yet, so there is nobody to wake
            order.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
                self._loop.call_soon_threadsafe(order.set)  # wakes a loop that sleeps, too
