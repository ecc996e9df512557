"""Which sockets are ready, and since when they may have been.

Knows how late its own look at them may be. Touches one epoll. Never touches a socket. The clocks are passed
in.

The time between the readiness of a socket and the look at it counts as the server's. It cannot be measured,
but it can be bounded, and a run with too large a bound says nothing (judgement.py).
"""

import select
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# A select(2) that need not wait takes 2 to 30 us. A socket that becomes ready within the first 100 us of a
# wait counts as ready before it.
AT_ONCE_SECONDS: Final = 100e-6

# A wait as short as this is bound enough. Reading the kernel's count of core waits costs another 8 us of CPU,
# a thirtieth of a request. A timer may also be this late without meaning (timerslack, prctl(2); a core that
# slept).
SHORT_SECONDS: Final = 500e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The clocks of the loop; all in seconds."""

    wall: Callable[[], float]  # monotonic
    cpu: Callable[[], float]  # CPU time of this process
    core_wait: Callable[[], float]  # how long this thread was ready to run and had no core


if hasattr(select, "epoll"):
    READABLE: Final = select.EPOLLIN | select.EPOLLONESHOT
    WRITABLE: Final = select.EPOLLOUT | select.EPOLLONESHOT


class Epoll:
    """What the loop needs of epoll(7), and no more.

    A selector of the standard library costs 5 us of CPU for each of register, modify and unregister. Here a
    socket is usually registered once and never unregistered: close(2) does that. It reports one event, and
    no other before it is watched again (EPOLLONESHOT): the FIN after an answer does not wake the loop.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._data: dict[int, Any] = {}

    def fileno(self) -> int:
        """The descriptor, which is itself ready when one of the watched ones is."""
        return self._epoll.fileno()

    def watch(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Watch a descriptor until it can be read, or written; `data` is returned by `ready`."""
        self._epoll.register(descriptor, WRITABLE if write else READABLE)
        self._data[descriptor] = data

    def change(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Watch it again, to read or to write, and replace its data."""
        self._epoll.modify(descriptor, WRITABLE if write else READABLE)
        self._data[descriptor] = data

    def forget(self, descriptor: int) -> None:
        """Note that a descriptor is about to be closed."""
        del self._data[descriptor]

    def ready(self) -> list[Any]:
        """The data of all descriptors that are ready now."""
        return [self._data[descriptor] for descriptor, _ in self._epoll.poll(0)]

    def close(self) -> None:
        """Close it."""
        self._epoll.close()


class Selector:
    """The same on systems without epoll, with a selector of the standard library."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """The descriptor, which is itself ready when one of the watched ones is."""
        return self._selector.fileno()

    def watch(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Watch a descriptor until it can be read, or written; `data` is returned by `ready`."""
        self._selector.register(descriptor, _events(write=write), data)

    def change(self, descriptor: int, data: Any, *, write: bool) -> None:
        """Watch it again, to read or to write, and replace its data."""
        self._selector.modify(descriptor, _events(write=write), data)

    def forget(self, descriptor: int) -> None:
        """Note that a descriptor is about to be closed."""
        self._selector.unregister(descriptor)

    def ready(self) -> list[Any]:
        """The data of all descriptors that are ready now."""
        return [key.data for key, _ in self._selector.select(0)]

    def close(self) -> None:
        """Close it."""
        self._selector.close()


def _events(*, write: bool) -> int:
    return selectors.EVENT_WRITE if write else selectors.EVENT_READ


class Readiness:
    """Sockets that are ready. `since`: from when on those that `wait` last returned may have been ready."""

    def __init__(self, clocks: Clocks) -> None:
        self.sockets: Epoll | Selector = Epoll() if hasattr(select, "epoll") else Selector()
        self._clocks = clocks
        self._epoll = [self.sockets.fileno()]
        self._last_look = self.since = clocks.wall()
        self._core_wait = clocks.core_wait()

    def wait(self, until: float) -> Sequence[Any]:
        """Wait until a socket is ready, or until a moment; return the data of those that are.

        A socket that is ready before the wait may have been ready since the last look. A socket that ends the
        wait has just become ready, unless the thread was woken and had no core: the kernel counts for how
        long (proc(5), schedstat). It does not count a stop (SIGSTOP, a frozen cgroup) nor what a hypervisor
        takes. Those show when a wait lasts beyond `until`; when they began is unknown, so the bound is the
        whole wait. A stop that ends before `until` stays hidden, and is shorter than the wait.
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
        """Close the epoll; the last call."""
        self.sockets.close()
