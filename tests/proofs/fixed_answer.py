"""A server that holds every request for the same time: `python -m tests.proofs.fixed_answer MILLISECONDS`.

Prints its port. Takes one request per connection, answers it so long after it was read, closes. Knows no
HTTP: whatever comes first is a request. All are held alike, so they are due in the order of their arrival.
For each line on stdin it prints one line of JSON about the time since the line before: connections accepted,
requests read, and of each answer the client's port, when the request was read and when the answer was about
to be sent, in seconds of the monotonic clock. Ends with stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import deque
from typing import Final

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
BACKLOG: Final = 1024


class FixedAnswer:
    """One epoll; what is held, in the order in which it is due."""

    def __init__(self, listener: socket.socket, orders: int, seconds: float) -> None:
        self._listener, self._orders, self._seconds = listener, orders, seconds
        self._poll = select.epoll()
        self._unread: dict[int, socket.socket] = {}
        self._held: deque[tuple[float, int, socket.socket]] = deque()  # since when, and the client's port
        self._accepted = self._read = 0
        self._answered: list[tuple[int, float, float]] = []

    def serve(self) -> None:
        """Answer until stdin is at its end."""
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._poll.register(self._orders, select.EPOLLIN)
        while True:
            # select(2) waits to the microsecond; epoll_wait(2) counts in milliseconds.
            wait = self._held[0][0] + self._seconds - time.monotonic() if self._held else 1.0
            ready = select.select([self._poll.fileno()], [], [], max(0.0, wait))[0]
            self._answer_due()
            for descriptor, _ in self._poll.poll(0) if ready else ():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor != self._orders:
                    self._take(self._unread[descriptor])
                elif os.read(self._orders, 4096):
                    self._report()
                else:
                    return

    def _answer_due(self) -> None:
        while self._held and (now := time.monotonic()) >= self._held[0][0] + self._seconds:
            since, port, connection = self._held.popleft()
            self._answered.append((port, since, now))
            with contextlib.suppress(OSError):  # the client has left
                connection.send(ANSWER)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                self._accepted += 1
                connection.setblocking(False)
                self._unread[connection.fileno()] = connection
                self._poll.register(connection.fileno(), select.EPOLLIN)
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        """Read a request if it is there; without one, a connection that has ended is closed."""
        try:
            request = connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            request = b""
        now = time.monotonic()
        self._poll.unregister(connection.fileno())
        del self._unread[connection.fileno()]
        if request:
            self._read += 1
            self._held.append((now, connection.getpeername()[1], connection))
        else:
            connection.close()

    def _report(self) -> None:
        seen = {"accepted": self._accepted, "read": self._read, "answered": self._answered}
        print(json.dumps(seen), flush=True)
        self._accepted = self._read = 0
        self._answered = []


def main() -> None:
    """Listen on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        FixedAnswer(listener, sys.stdin.fileno(), float(sys.argv[1]) / 1000).serve()


if __name__ == "__main__":
    main()
