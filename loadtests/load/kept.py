"""One request on a connection that an earlier one left, or on a new one that a later one may take.

Knows when a connection may serve again, and what it means that it ended instead. Touches sockets by way of
`Connection`. Never queues: a request that is due and finds no idle connection makes one of its own, so the
load stays as open as with a connection for each.

Nothing is sent again. When a server closes an idle connection at the moment at which a request goes out on
it, the client cannot know whether the server has seen that request, and may repeat one that is idempotent
(RFC 9110, 9.2.2; RFC 9112, 9.3.1). Many clients do so by themselves. An instrument that did would hide an
error that every POST meets, and count two requests as one. So it is an outcome of its own, `dropped`.
"""

import ssl
from typing import Final

from loadtests.load.answer import KeptAnswer
from loadtests.load.attempt import Owner
from loadtests.load.connection import RECEIVE_BYTES, Connection
from loadtests.load.endpoint import Endpoint
from loadtests.load.sample import DROPPED, RESET, SHORT

END: Final = "FIN"  # the reason of a `dropped` that was no error of the socket


class Idle:
    """Connections that no request uses.

    Never more than requests were under way at the same time, for a new one is made only when none is idle. A
    client in a closed loop finds its own: the last that came is the first that goes.
    """

    def __init__(self) -> None:
        self._connections: dict[KeptConnection, None] = {}  # in the order in which they came

    def add(self, connection: "KeptConnection") -> None:
        """Keep a connection for the next request."""
        self._connections[connection] = None

    def take(self) -> "KeptConnection | None":
        """Return the one that was used last; those that the server has closed meanwhile are let go.

        The socket itself is asked, for the loop may not have looked at its event yet. To send behind a FIN
        that is here already would be the generator's fault, and would count as the server's.
        """
        while self._connections:
            connection, _ = self._connections.popitem()
            if connection.is_usable():
                return connection
            connection.let_go()
        return None

    def drop(self, connection: "KeptConnection") -> None:
        """Let go of one that the server has closed."""
        del self._connections[connection]
        connection.let_go()

    def close(self) -> None:
        """Let go of all."""
        while self._connections:
            self._connections.popitem()[0].let_go()


class KeptConnection(Connection):
    """The life of one request; the connection may have begun before it, and goes on after it."""

    __slots__ = ("_idle",)

    ANSWER = KeptAnswer
    _answer: KeptAnswer

    def __init__(self, idle: Idle, endpoint: Endpoint, owner: Owner, intended: float) -> None:
        super().__init__(endpoint, owner, intended)
        self._idle = idle

    def start(self, now: float) -> None:
        """Send on an idle connection, or begin to connect if there is none."""
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
        """Whether an idle connection still stands, as far as this end has heard.

        Bytes that nobody asked for end it as well, such as a 408 ahead of a FIN (RFC 9112, 9.2).
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
        """Close an idle connection: it is no request's, so nobody is told."""
        self._close_socket()

    def _after_the_answer(self, now: float, *, at_end: bool) -> None:
        if self._answer.keeps:
            self.closed = True
            self._next = KeptConnection._look_while_idle
            self._watch(write=False)
            self._idle.add(self)
            self._owner.on_closed(now, stood=True)
        elif self._answer.ends:
            super()._after_the_answer(now, at_end=at_end)
        else:
            self._close(now)

    def _look_while_idle(self, _now: float) -> None:
        if self._sock is None:
            return  # the event came for this one, but the next request has the socket by now, and waits
        if self.is_usable():
            self._watch(write=False)  # a session ticket of TLS
        else:
            self._idle.drop(self)

    def _fail(self, outcome: str, now: float, reason: str | None = None) -> None:
        if self.reused and self._first_byte is None and outcome in (RESET, SHORT):
            outcome, reason = DROPPED, reason or END
        super()._fail(outcome, now, reason)
