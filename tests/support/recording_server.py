"""A server whose behaviour is known to the byte, and which keeps books by the clock that the generator reads.

One thread, one epoll, and a script that says for each request, in the order in which they were read, what
happens to it. Each moment around a send is noted on both sides of the system call: the bytes cannot have
been with the client before the first, and lie in its receive queue by the second, for on loopback send(2)
itself carries them there.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self

from tests.support.servers import OK_ANSWER

End = Literal["close", "reset", "hold"]
ClosedBy = Literal["server", "reset", "client"]

RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close(2) sends RST, socket(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens to one request."""

    parts: tuple[tuple[float, bytes], ...] = ((0.0, OK_ANSWER),)  # seconds after the request was read, bytes
    end: End = "close"  # behind the last part; `hold` leaves the first FIN to the client
    stall_seconds: float = 0.0  # before it the whole server stands still for so long
    good: bool = True  # the client gets what it expects


Scripts = Callable[[int], Script]  # by the number of the request, from 0


@dataclass(slots=True)
class Entry:
    """The book of one connection; seconds of time.monotonic()."""

    port: int  # the client's
    accepted: float
    read: float | None = None  # the request
    first_byte: tuple[float, float] | None = None  # before and after the send that carried it
    last_byte: tuple[float, float] | None = None
    closed: ClosedBy | None = None
    good: bool = False  # the answer was sent whole, and is what the client expects


class RecordingServer:
    """Serves by script until the end of the context, and then until all clients have left."""

    def __init__(self, scripts: Scripts, *, backlog: int = 4096, accepting: bool = True) -> None:
        self.book: list[Entry] = []
        self.stalls: list[tuple[float, float]] = []  # from, until
        self._scripts = scripts
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, Entry]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # of what is due at the same moment
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._accepting = self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="recording server")
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        if accepting:
            self.accept_from_now_on()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self.accept_from_now_on()  # what stands in the queue was connected
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._listener.close()
        self._poll.close()
        os.close(self._wake)

    def accept_from_now_on(self) -> None:
        """Let in who waits in the accept queue, and all who come; may be called again.

        The queue then has room for all: the kernel repeats SYNs in crowds, and tells clients of a crowd that
        they are connected before it finds the queue full.
        """
        if not self._accepting:
            self._accepting = True
            self._listener.listen(4096)
            self._poll.register(self._listener, select.EPOLLIN)

    def _serve(self) -> None:
        while not (self._stopping and not self._open and not self._accept()):
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 0.2
            # To the microsecond, which epoll_wait(2) is not; see loadtests/load/readiness.py.
            select.select([self._poll], [], [], wait)
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._open:
                    self._read(descriptor)
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()

    def _accept(self) -> bool:
        """Take all who wait; whether there were any."""
        before = len(self.book)
        while True:
            try:
                sock, (_, port) = self._listener.accept()
            except BlockingIOError:
                return len(self.book) > before
            entry = Entry(port=port, accepted=time.monotonic())
            self.book.append(entry)
            self._open[sock.fileno()] = sock, entry
            self._poll.register(sock, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        sock, entry = self._open[descriptor]
        try:
            data = sock.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._close(descriptor, "client")
            return
        assert data.endswith(b"\r\n\r\n"), "a request of one small head comes whole"
        entry.read = time.monotonic()
        script = self._scripts(next(self._numbers))
        if script.stall_seconds:
            time.sleep(script.stall_seconds)  # the stall itself is what is told apart
            self.stalls.append((entry.read, time.monotonic()))
        last = len(script.parts) - 1
        for place, (after, part) in enumerate(script.parts):
            self._at(entry.read + after, partial(self._send, descriptor, script, part, end=place == last))
        if not script.parts and script.end != "hold":
            self._end(descriptor, script)

    def _at(self, moment: float, what: Callable[[], None]) -> None:
        if moment <= time.monotonic():
            what()
        else:
            heapq.heappush(self._due, (moment, next(self._order), what))

    def _send(self, descriptor: int, script: Script, part: bytes, *, end: bool) -> None:
        sock, entry = self._open[descriptor]
        before = time.monotonic()
        sent = sock.send(part)
        span = before, time.monotonic()
        assert sent == len(part), "a small answer fits into the socket's buffer"
        entry.first_byte = entry.first_byte or span
        entry.last_byte = span
        if end:
            entry.good = script.good
            self._end(descriptor, script)

    def _end(self, descriptor: int, script: Script) -> None:
        if script.end == "reset":
            self._open[descriptor][0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            self._close(descriptor, "reset")
        elif script.end == "close":
            self._close(descriptor, "server")

    def _close(self, descriptor: int, by: ClosedBy) -> None:
        sock, entry = self._open.pop(descriptor)
        entry.closed = by
        sock.close()
