"""Which sockets are ready, and since when they can have been.

Knows how late its own look at them may be. Touches one selector. Never touches a socket. The clocks
are handed in.

The time between the readiness of a socket and our look at it passes for the server's. It cannot be
measured, but bounded, and a run whose bound is too large says nothing (judgement.py).
"""

import select
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the loop reads instead of asking the system; all in seconds."""

    wall: Callable[[], float]  # monotonic
    cpu: Callable[[], float]  # CPU time of this process
    core_wait: Callable[[], float]  # how long this thread was ready to run and had no core


class Readiness:
    """A selector that notes how late it may be: `since` holds for all that `wait` last returned."""

    def __init__(self, clocks: Clocks) -> None:
        self.selector = selectors.DefaultSelector()
        self._clocks = clocks
        self._epoll = [self.selector.fileno()]
        self._last_look = self.since = clocks.wall()
        self._core_wait = clocks.core_wait()

    def wait(self, until: float) -> Sequence[Any]:
        """Wait until a socket is ready, or until a moment; return the data of those that are.

        A socket that is ready before we wait may have been so since the last look at them all. One that
        ends the wait has just become ready, unless we were woken and had no core: the kernel counts how
        long (proc(5), schedstat). What a hypervisor takes meanwhile nobody tells us.
        """
        # epoll_wait(2) counts in milliseconds, as long as a whole answer may take on loopback.
        # select(2) on the one descriptor of the epoll itself waits to the microsecond (epoll(7), Q3).
        begun = self._clocks.wall()
        if select.select(self._epoll, [], [], 0)[0]:
            self.since, self._last_look = self._last_look, begun
        else:
            ready = until > begun and select.select(self._epoll, [], [], until - begun)[0]
            now, core_wait = self._clocks.wall(), self._clocks.core_wait()
            self.since = max(now - (core_wait - self._core_wait), begun)
            self._last_look, self._core_wait = now, core_wait
            if not ready:
                return ()
        return [key.data for key, _ in self.selector.select(0)]

    def close(self) -> None:
        """Let go of the selector; the last call."""
        self.selector.close()
