"""The accept loop: takes connections from the kernel's queue and tells errors from shortages.

Knows the listening socket, the event loop's reader registration and errno. Decides nothing about
HTTP: what to do with an accepted socket is a callable it is given.

Why a loop of our own: `loop.create_server` hides what matters here. Under uvloop a shortage of file
descriptors makes libuv accept and close the whole queue without a word, and one exception in the
protocol factory stops the listener for good; asyncio retries every second but logs hundreds of
times. Neither says how many connections it took in one turn, and that number decides whether
"accepted" tracks "completed".
"""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import structlog

from metrics.instruments import Metrics

log = structlog.get_logger("offloop.accept")

PAUSE_SECONDS = 0.5
"""How long a shortage pauses the listener: the figure of the async-std book's accept loop. Long
enough to cost nothing, short enough that a client waiting in the kernel queue hardly notices."""

TRIES_BEFORE_BROKEN = 10
"""An errno we do not know is a shortage until it has failed this often without one success."""


class Fate(enum.Enum):
    """What a failed accept means for the listener; the value is the metric's `class` label."""

    CONNECTION = "connection"  # that one connection is gone: go on at once
    SHORTAGE = "shortage"  # this machine lacks something: pause, stay alive
    BROKEN = "broken"  # the listener itself is unusable: stop serving
    UNKNOWN = "unknown"


# accept(2): "Linux accept() passes already-pending network errors on the new socket as an error code
# from accept() ... treat them like EAGAIN by retrying." These are those errors, the BSDs' own for an
# aborted connection, EPERM (a firewall rule refused it) and EINTR.
_CONNECTION = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.EINTR,
        errno.ETIMEDOUT,
        getattr(errno, "ENONET", errno.EHOSTDOWN),  # Linux only
    }
)
# The connection stays in the queue and the socket stays readable: retrying at once would spin a core.
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Only our own mistake can cause these; no amount of waiting mends them.
_BROKEN = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})


def fate(code: int | None) -> Fate:
    """Classify the errno of a failed accept."""
    if code in _CONNECTION:
        return Fate.CONNECTION
    if code in _SHORTAGE:
        return Fate.SHORTAGE
    return Fate.BROKEN if code in _BROKEN else Fate.UNKNOWN


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Bind and listen, non-blocking; IPv4 or IPv6 as the host demands; port 0 picks a free one.

    Raises:
        OSError: the address cannot be resolved, bound or listened on.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # "::" means all addresses, of both families, wherever the kernel can do that.
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener


def backlog(listener: socket.socket) -> tuple[int, int]:
    """Connections in the kernel's accept queue, and its limit; (0, 0) where nobody can tell.

    For a listening socket Linux reports both in `struct tcp_info` (tcpi_unacked at offset 24,
    tcpi_sacked at 28), at 0.5 us a call and without privilege.
    """
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return 0, 0
    try:
        waiting, limit = struct.unpack_from("=II", listener.getsockopt(socket.IPPROTO_TCP, option, 32), 24)
    except OSError:  # closed meanwhile, or not a TCP socket
        return 0, 0
    return waiting, limit


class AcceptLoop:
    """Reads the listener whenever it is readable, at most `batch` connections per loop turn.

    Args:
        loop: registers the reader and times the pause.
        listener: a listening, non-blocking socket; owned by the caller until `close()`.
        batch: most connections taken per turn of the event loop. A small one leaves the queue in the
            kernel, a large one moves it into the process.
        take: called with each accepted socket, and owns it from then on; it must not raise.
        broken: called once, with the error, when the listener is unusable.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        batch: int,
        take: Callable[[socket.socket], Any],
        broken: Callable[[OSError], Any],
        metrics: Metrics,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._batch = batch
        self._take = take
        self._broken = broken
        self._metrics = metrics
        self._unknown_in_a_row = 0
        self._taken = 0
        self._closing = False
        self._resume: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener, self._on_readable)

    def close(self) -> tuple[int, int]:
        """Take what is left in the queue, then close the listener.

        Closing first would reset every connection that the kernel has already accepted for us.

        Returns:
            Connections taken, and connections that had to be left behind in a shortage.
        """
        self._closing = True
        self._loop.remove_reader(self._listener)
        if self._resume is not None:
            self._resume.cancel()
        self._metrics.accept_paused.set(0)
        before = self._taken
        while self._accept_one():
            pass
        left, _ = backlog(self._listener)
        self._listener.close()
        return self._taken - before, left

    def _on_readable(self) -> None:
        for _ in range(self._batch):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept one connection; False when there is no point in trying again in this turn."""
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            return self._failed(error)
        self._unknown_in_a_row = 0
        self._taken += 1
        self._take(sock)
        return True

    def _failed(self, error: OSError) -> bool:
        kind = fate(error.errno)
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        self._metrics.accept_errors.labels(kind.value, name).inc()
        if kind is Fate.CONNECTION or self._closing:
            return kind is Fate.CONNECTION
        if kind is Fate.UNKNOWN:
            self._unknown_in_a_row += 1
            if self._unknown_in_a_row >= TRIES_BEFORE_BROKEN:
                kind = Fate.BROKEN
        if kind is Fate.BROKEN:
            self._loop.remove_reader(self._listener)
            log.error("listener broken", errno=name, reason=os.strerror(error.errno or 0))
            self._broken(error)
        else:
            self._pause(name, error)
        return False

    def _pause(self, name: str, error: OSError) -> None:
        self._loop.remove_reader(self._listener)
        self._metrics.accept_pauses.inc()
        self._metrics.accept_paused.set(1)
        log.warning("accept paused", errno=name, reason=os.strerror(error.errno or 0), seconds=PAUSE_SECONDS)
        self._resume = self._loop.call_later(PAUSE_SECONDS, self._unpause)

    def _unpause(self) -> None:
        self._metrics.accept_paused.set(0)
        self.start()
