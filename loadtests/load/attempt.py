"""How a request gets its connection: the socket, connect, the TLS handshake; and how the socket is closed.

Knows sockets and errnos. Touches one non-blocking socket and its place in the owner's epoll. Never waits:
each step is given the time, does what it can without blocking, and registers what it waits for.

Each system call costs about as much CPU as the work around it, and each look at the sockets costs more. So
the request is sent right after connect(): on loopback the connection is established by then, because the
kernel has completed the handshake with itself; elsewhere the send fails and waits, at the price of one more
call.
"""

import contextlib
import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

from loadtests.load.answer import Answer
from loadtests.load.endpoint import Endpoint
from loadtests.load.readiness import Readiness
from loadtests.load.sample import CONNECT_ERROR, TLS_ERROR, Sample, reason_of

# Errnos by which a first send reports that connecting has failed (connect(2)).
NOT_CONNECTED: Final = frozenset(
    {errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
)


class Owner(Protocol):
    """What a request needs from the loop that drives it."""

    @property
    def readiness(self) -> Readiness:
        """Where the request registers its socket, with itself as data."""

    def now(self) -> float:
        """The time, for a step that no event begins."""

    def on_connected(self) -> None:
        """Note that the TCP connection stands."""

    def on_finished(self, sample: Sample, answer: Answer) -> bool:
        """Take the sample; called exactly once per attempt. Returns whether another attempt will follow."""

    def on_left_open(self, connection: "Attempt", now: float) -> None:
        """Note that the answer is complete and the server has yet to close; after `on_finished`.

        The owner calls `step` to look for the close: the socket is not watched until then.
        """

    def on_closed(self, now: float, *, stood: bool, last: bool) -> None:
        """Note that the attempt has no socket any more; called once, after `on_finished`.

        `stood`: the connection was established. `last`: no other attempt will follow.
        """


class Attempt(ABC):
    """One attempt of a request until its connection stands; `Connection` sends and receives on it.

    The owner calls `start` once, then `step` whenever the socket is ready.
    """

    __slots__ = (
        "_answer", "_connected", "_endpoint", "_first_byte", "_intended", "_last", "_next", "_number",
        "_owner", "_request", "_secured", "_sock", "_unsent", "_watched", "closed", "finished", "local_port",
        "reused", "started",
    )  # fmt: skip

    ANSWER: ClassVar[type[Answer]] = Answer
    _next: Callable[[Any, float], None]  # Any: this class, or one of those below it

    def __init__(self, endpoint: Endpoint, owner: Owner, intended: float, request: int, number: int) -> None:
        self._endpoint = endpoint
        self._owner = owner
        self._intended = intended
        self._request = request
        self._number = number  # of this attempt, from 1
        self._last = True
        self._connected: float | None = None
        self._secured: float | None = None
        self._first_byte: float | None = None
        self.local_port: int | None = None
        self._unsent: bytes | memoryview = endpoint.request
        self._answer = self.ANSWER(head_only=endpoint.head_only)
        self.finished = False  # the outcome is known
        self.closed = False  # the request has no socket any more; set after `finished`
        self.reused = False  # the connection had served before; see kept.py
        self._sock: socket.SocketType | socket.socket | None = None
        self._watched = False
        self._next = Attempt.start  # then one of the steps below: that of the next event
        self.started = 0.0

    def start(self, now: float) -> None:
        """Open the socket and begin to connect; an error ends the request here."""
        self.started = now
        endpoint = self._endpoint
        try:
            self._sock = sock = endpoint.open_socket()
            code = sock.connect_ex(endpoint.address)
        except OSError as error:
            self._fail(CONNECT_ERROR, now, reason_of(error))
            return
        if code not in (0, errno.EINPROGRESS):
            self._fail(CONNECT_ERROR, now, errno.errorcode[code])
            return
        # Here and not once it is connected: the server may have seen an attempt that is given up later.
        self.local_port = sock.getsockname()[1]
        if endpoint.tls is None and endpoint.stays_here:
            self._send_at_once(sock)
        else:
            self._next = Attempt._finish_connecting
            self._watch(write=True)

    def _send_at_once(self, sock: socket.SocketType | socket.socket) -> None:
        """Send what the kernel takes; that is nothing until the connection stands."""
        try:
            sent = sock.send(self._unsent)
        except BlockingIOError:
            self._next = Attempt._finish_connecting
            self._watch(write=True)
            return
        except OSError as error:
            now = self._owner.now()
            if error.errno in NOT_CONNECTED:
                self._fail(CONNECT_ERROR, now, reason_of(error))
                return
            # The connection stood, and the server has closed it already, perhaps after an answer.
            self._connected = now
            self._owner.on_connected()
            self._take_early_answer(now, error)
            return
        self._connected = self._owner.now()
        self._owner.on_connected()
        self._note_sent(sent)

    def step(self, now: float) -> None:
        """Do what the readiness of the socket allows."""
        self._next(self, now)  # a plain function: a bound method would be a circle for the GC

    def give_up(self, outcome: str, now: float) -> None:
        """Close at once; a request without an answer ends with `outcome`."""
        if self._connected is None and self._sock is not None:
            # The kernel may have completed the handshake since the last look: the server will accept that
            # connection, so the ledger must count it.
            with contextlib.suppress(OSError):
                self._sock.getpeername()
                self._connected = now
                self._owner.on_connected()
        if not self.finished:
            self._finish(outcome, now)
        self._close(now)

    def close(self, now: float) -> None:
        """Close the connection of a finished request that the server has left open."""
        self._close(now)

    def _finish_connecting(self, now: float) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(CONNECT_ERROR, now, errno.errorcode[code])
            return
        self._connected = now
        self._owner.on_connected()
        if self._endpoint.tls is None:
            self._send(now)
            return
        assert isinstance(self._sock, socket.socket)
        self._sock = self._endpoint.tls.wrap_socket(
            self._sock, server_hostname=self._endpoint.host, do_handshake_on_connect=False
        )
        self._shake_hands(now)

    def _shake_hands(self, now: float) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        self._next = Attempt._shake_hands
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(write=False)
        except ssl.SSLWantWriteError:
            self._watch(write=True)
        except OSError as error:
            self._fail(TLS_ERROR, now, reason_of(error))
        else:
            self._secured = now
            self._send(now)

    @abstractmethod
    def _send(self, now: float) -> None:
        """Send the request: the connection stands."""

    @abstractmethod
    def _note_sent(self, sent: int) -> None:
        """Go on after the kernel has taken so many bytes."""

    @abstractmethod
    def _take_early_answer(self, now: float, error: OSError) -> None:
        """End a request that the server did not read to its end."""

    def _watch(self, *, write: bool) -> None:
        """Wait until the socket can be read, or written; holds for one step."""
        assert self._sock is not None
        sockets = self._owner.readiness.sockets
        if self._watched:
            sockets.change(self._sock.fileno(), self, write=write)
        else:
            self._watched = True
            sockets.watch(self._sock.fileno(), self, write=write)

    def _fail(self, outcome: str, now: float, reason: str | None = None) -> None:
        self._finish(outcome, now, None, reason)
        self._close(now)

    def _finish(self, outcome: str, now: float, status: int | None = None, reason: str | None = None) -> None:
        self.finished = True
        self._answer.release()
        sample = Sample(
            self._intended, self.started, self._connected, self._first_byte, now, outcome, status, reason,
            self.local_port, None if status is None else now - self._owner.readiness.since,
            self._secured, self.reused, self._request, self._number,
        )  # fmt: skip
        self._last = not self._owner.on_finished(sample, self._answer)

    def _close(self, now: float) -> None:
        """Close at once, as clients do that have their answer or give up."""
        self.closed = True
        self._close_socket()
        self._owner.on_closed(now, stood=self._connected is not None, last=self._last)

    def _close_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._watched:
                self._owner.readiness.sockets.forget(sock.fileno())
            sock.close()
