"""One request on a connection that an earlier one left idle, or on a new one that a later one may reuse.

Knows when a connection can be reused, and what it means if it closes instead. Touches sockets through
`Connection`. Never queues: a request that is due and finds no idle connection opens one of its own, so the
load stays as open as with one connection per request.

Nothing is sent twice unless the run is told so (retrying.py). If a server closes an idle connection just as
a request is sent on it, the client cannot know whether the server has read that request, and may repeat it
only if it is idempotent (RFC 9110, 9.2.2; RFC 9112, 9.3.1). Many clients repeat it silently. An instrument
that did so would hide an error that every POST meets, and would count two requests as one. So this is an
outcome of its own, `dropped`.
"""

import ssl
from typing import Final

from loadtests.load.answer import KeptAnswer
from loadtests.load.attempt import Owner
from loadtests.load.connection import RECEIVE_BYTES, Connection
from loadtests.load.endpoint import Endpoint
from loadtests.load.sample import DROPPED, RESET, SHORT

END: Final = "FIN"  # the reason of `dropped` if the socket had no error


class Idle:
    """Idle connections.

    Never more than requests were under way at the same time, because a new one is opened only when none is
    idle. Last in, first out, so that a client in a closed loop gets its own connection back.
    """

    def __init__(self) -> None:
        self._connections: dict[KeptConnection, None] = {}  # in the order in which they came

    def add(self, connection: "KeptConnection") -> None:
        """Keep a connection for the next request."""
        self._connections[connection] = None

    def take(self) -> "KeptConnection | None":
        """Return the connection that was used last, and close those that the server has closed meanwhile.

        The socket itself is read, because the loop may not have handled its event yet. A request sent after a
        FIN has arrived would fail by the generator's fault and count as the server's.
        """
        while self._connections:
            connection, _ = self._connections.popitem()
            if connection.is_usable():
                return connection
            connection.let_go()
        return None

    def drop(self, connection: "KeptConnection") -> None:
        """Close a connection that the server has closed."""
        del self._connections[connection]
        connection.let_go()

    def close(self) -> None:
        """Close all of them."""
        while self._connections:
            self._connections.popitem()[0].let_go()


class KeptConnection(Connection):
    """One request; its connection may be older, and may serve further requests."""

    __slots__ = ("_idle",)

    ANSWER = KeptAnswer
    _answer: KeptAnswer

    def __init__(
        self, idle: Idle, endpoint: Endpoint, owner: Owner, intended: float, request: int, number: int
    ) -> None:
        super().__init__(endpoint, owner, intended, request, number)
        self._idle = idle

    def start(self, now: float) -> None:
        """Send on an idle connection; if there is none, connect."""
        before = self._idle.take()
        if before is None:
            super().start(now)
            return
        self._sock, before._sock = before._sock, None
        self._watched = self.reused = True
        self.local_port = before.local_port
        self.started = self._connected = now
        self._send(now)

    def is_usable(self) -> bool:
        """Whether an idle connection is still open, as far as this side knows.

        Unsolicited bytes make it unusable as well, such as a 408 ahead of a FIN (RFC 9112, 9.2).
        """
        assert self._sock is not None
        try:
            self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def let_go(self) -> None:
        """Close an idle connection; it belongs to no request, so the owner is not called."""
        self._close_socket()

    def _after_the_answer(self, now: float, *, at_end: bool) -> None:
        if self._answer.keeps:
            self.closed = True
            self._next = KeptConnection._look_while_idle
            self._watch(write=False)
            self._idle.add(self)
            self._owner.on_closed(now, stood=True, last=self._last)
        elif self._answer.ends:
            super()._after_the_answer(now, at_end=at_end)
        else:
            self._close(now)

    def _look_while_idle(self, _now: float) -> None:
        if self._sock is None:
            return  # the event came for this request, but a later one has the socket by now, and waits for it
        if self.is_usable():
            self._watch(write=False)  # a session ticket of TLS
        else:
            self._idle.drop(self)

    def _fail(self, outcome: str, now: float, reason: str | None = None) -> None:
        if self.reused and self._first_byte is None and outcome in (RESET, SHORT):
            outcome, reason = DROPPED, reason or END
        super()._fail(outcome, now, reason)
