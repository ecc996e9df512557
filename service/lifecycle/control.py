"""What an operator orders a running service to do: stop, or read its settings again.

An entrance gives the orders, usually from signal handlers; `serve` waits for them. Knows that a second order
to stop forces. Installs no signal handler and ends no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from service.lifecycle.states import Event

ONE_STOP_SECONDS = 0.005
"""Two orders to stop this close together are one. timeout(1) signals its child and then its whole process
group, to which the child belongs. A person does not press a key twice so fast."""


class Control:
    """Orders on their way from an operator to a service.

    `stop`, `hang_up` and `reload` may be called in a signal handler at any moment, even before there is an
    event loop. `stop_ordered` and `reload_ordered` are awaited by tasks of one loop.

    Args:
        force: called at a second order to stop, which need not be patient. It is called in the signal handler
            itself and not by the event loop: a blocked loop may be what has to be forced.
        clock: monotonic seconds.
    """

    def __init__(self, force: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._force = force
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._why = Event.TERMINATE
        self._stopped_at: float | None = None
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    def stop(self, why: Event) -> None:
        """Order the service to stop, or force it if that was ordered more than `ONE_STOP_SECONDS` ago.

        Args:
            why: `Event.TERMINATE` lets it be a lame duck first (`--drain-notice`), `Event.INTERRUPT` does
                not.
        """
        if self._stopped_at is None:
            self._why, self._stopped_at = why, self._clock()
            self._give(self._stop)
        elif self._clock() - self._stopped_at > ONE_STOP_SECONDS:
            self._force()

    def hang_up(self) -> None:
        """Order the service to stop because its terminal has gone.

        Never forces: the kernel and a shell both send the signal, one after the other.
        """
        if self._stopped_at is None:
            self.stop(Event.INTERRUPT)

    def reload(self) -> None:
        """Order the service to read its settings and certificates again."""
        self._give(self._reload)

    async def stop_ordered(self) -> Event:
        """Wait for the order to stop; returns what the first one gave as its reason."""
        self._loop = asyncio.get_running_loop()
        await self._stop.wait()
        return self._why

    async def reload_ordered(self) -> None:
        """Wait for an order to reload; several that came before are one."""
        self._loop = asyncio.get_running_loop()
        await self._reload.wait()
        self._reload.clear()

    def _give(self, order: asyncio.Event) -> None:
        if self._loop is None:  # no task waits yet, so there is no loop to wake
            order.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has closed: no task is left to obey
                self._loop.call_soon_threadsafe(order.set)  # wakes a loop that sleeps, too
