"""Which sockets are ready, and since when they can have been.

Knows how late its own look at them may be. Touches one epoll. Never touches a socket. The clocks are
handed in.

The time between the readiness of a socket and our look at it passes for the server's. It cannot be
measured, but bounded, and a run whose bound is too large says nothing (judgement.py).
"""

import select
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# A select(2) that need not wait takes 2 to 30 us. Whoever became ready in the first 100 us of a wait passes
# for one that was ready before it.
AT_ONCE_SECONDS: Final = 100e-6

# So short a wait is bound enough. To read the kernel's account of it as well costs 8 us of CPU, a thirtieth
# of a request. A timer may also be so late (timerslack, prctl(2), and a core that slept) and mean nothing.
SHORT_SECONDS: Final = 500e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the loop reads instead of asking the system; all in seconds."""

    wall: Callable[[], float]  # monotonic
    cpu: Callable[[], float]  # CPU time of this process
    core_wait: Callable[[], float]  # how long this thread was ready to run and had no core


if hasattr(select, "epoll"):
    READABLE: Final = select.EPOLLIN | select.EPOLLONESHOT
    WRITABLE: Final = select.EPOLLOUT | select.EPOLLONESHOT


class Epoll:
    """What the loop needs of epoll(7), and no more.

    A selector of the library costs 5 us of CPU for each of register, modify and unregister. Here a socket
    is registered once, as a rule, and never taken out: close(2) does that. It tells of one event, and not
    of another before it is watched again (EPOLLONESHOT): the FIN behind an answer wakes nobody.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._data: dict[int, Any] = {}

    def fileno(self) -> int:
        """The descriptor, which is itself ready when one of those watched is."""
        return self._epoll.fileno()

    def watch(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Wait until a descriptor can be read, or written."""
        self._epoll.register(descriptor, WRITABLE if write else READABLE)
        self._data[descriptor] = data

    def change(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Wait again, for the same or the other; whoever waits now gives the data."""
        self._epoll.modify(descriptor, WRITABLE if write else READABLE)
        self._data[descriptor] = data

    def forget(self, descriptor: int) -> None:
        """Take note that a descriptor is about to be closed."""
        del self._data[descriptor]

    def ready(self) -> list[Any]:
        """The data of all that are ready now."""
        return [self._data[descriptor] for descriptor, _ in self._epoll.poll(0)]

    def close(self) -> None:
        """Let go of it."""
        self._epoll.close()


class Selector:
    """The same on systems without epoll, by the library's selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """The descriptor, which is itself ready when one of those watched is."""
        return self._selector.fileno()

    def watch(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Wait until a descriptor can be read, or written."""
        self._selector.register(descriptor, _events(write=write), data)

    def change(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Wait again, for the same or the other; whoever waits now gives the data."""
        self._selector.modify(descriptor, _events(write=write), data)

    def forget(self, descriptor: int) -> None:
        """Take note that a descriptor is about to be closed."""
        self._selector.unregister(descriptor)

    def ready(self) -> list[Any]:
        """The data of all that are ready now."""
        return [key.data for key, _ in self._selector.select(0)]

    def close(self) -> None:
        """Let go of it."""
        self._selector.close()


def _events(*, write: bool) -> int:
    return selectors.EVENT_WRITE if write else selectors.EVENT_READ


class Readiness:
    """Sockets that are ready, and how late we may see it: `since` holds for all that `wait` last returned."""

    def __init__(self, clocks: Clocks) -> None:
        self.sockets: Epoll | Selector = Epoll() if hasattr(select, "epoll") else Selector()
        self._clocks = clocks
        self._epoll = [self.sockets.fileno()]
        self._last_look = self.since = clocks.wall()
        self._core_wait = clocks.core_wait()

    def wait(self, until: float) -> Sequence[Any]:
        """Wait until a socket is ready, or until a moment; return the data of those that are.

        A socket that is ready before we wait may have been so since the last look at them all. One that
        ends the wait has just become ready, unless we were woken and had no core: the kernel counts how
        long (proc(5), schedstat). It counts neither how long we were stopped (SIGSTOP, a frozen cgroup) nor
        what a hypervisor takes. That shows when a wait lasts beyond `until`, and since when nobody knows:
        then it may be the whole wait. One that ends before `until` stays hidden, and is shorter than that.
        """
        # epoll_wait(2) counts in milliseconds, as long as a whole answer may take on loopback.
        # select(2) on the one descriptor of the epoll itself waits to the microsecond (epoll(7), Q3).
        begun = self._clocks.wall()
        ready = select.select(self._epoll, [], [], max(0.0, until - begun))[0]
        now = self._clocks.wall()
        if not ready:
            self._last_look = now
            return ()
        if now - begun < AT_ONCE_SECONDS:
            self.since = self._last_look
        elif now - begun < SHORT_SECONDS:
            self.since = begun
        else:
            # Since the last reading, some waits ago: the bound only becomes larger.
            core_wait = self._clocks.core_wait()
            without_core = core_wait - self._core_wait
            self._core_wait = core_wait
            unaccounted = now - max(until, begun) - without_core
            self.since = begun if unaccounted > SHORT_SECONDS else max(now - without_core, begun)
        self._last_look = now
        return self.sockets.ready()

    def close(self) -> None:
        """Let go of the sockets; the last call."""
        self.sockets.close()
