"""The server of the admin port: the standard library's, but no client can hold it up.

Each connection has a thread and carries one exchange. How many there may be, and for how long, places.py
says: no client takes so many threads and descriptors that a probe, or the main port, gets none. Knows
sockets, threads and wsgiref; nothing of what is served. Writes nothing to stderr, where wsgiref prints its
tracebacks.
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import struct
import threading
import time
from http.client import LineTooLong
from typing import Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from metrics.places import MOST_CONNECTIONS, Place, late, to_evict

SERVER: Final = "offloop"
"""What every answer says of itself; wsgiref would tell strangers its version and Python's."""

MOST_HEAD_BYTES: Final = 16 * 1024
"""Of request line and headers together; a scraper sends 300. http.server alone takes 100 lines of 64 KiB."""

WHOLE_ANSWER_BYTES: Final = 2**20
"""More than any answer has: it leaves in one piece. wsgiref writes a head line by line, and a lenient client
of a process that is killed meanwhile takes half a head for a whole one, and no metrics for all."""

FREED_WITHIN_SECONDS: Final = 1.0
"""How long a new connection waits for the place of one that was cut off. Its thread gives it back at once,
unless it renders. If that hangs, the next connection takes the next place."""

CLOSE_SECONDS: Final = 0.5
"""For answers under way when the endpoint closes."""

RESET: Final = struct.pack("ii", 1, 0)  # socket(7): SO_LINGER, on and no seconds


class Head(io.BufferedReader):
    """The head of a request, line by line, if it is not too large and does not end before it is whole.

    http.server takes the end of the stream for that of the head, and would answer a client that was cut off.
    """

    _left = MOST_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line.

        Raises:
            LineTooLong: the head is larger than `MOST_HEAD_BYTES`.
            ConnectionError: the client has ended the connection within the head.
        """
        del size
        line = super().readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("head")
        if not line.endswith(b"\n"):
            raise ConnectionError("the head is not whole")
        return line


class Handler(WSGIRequestHandler):
    """One exchange."""

    default_request_version = "HTTP/1.0"  # or garbage would be answered by HTTP/0.9, without a status
    error_message_format = "%(explain)s\n"
    error_content_type = "text/plain; charset=utf-8"
    wbufsize = WHOLE_ANSWER_BYTES

    def setup(self) -> None:
        """Read the head within its bound."""
        super().setup()
        self.rfile = Head(self.rfile.detach())

    def parse_request(self) -> bool:
        """Parse the head, and note that it has come."""
        is_good = super().parse_request()
        cast("Server", self.server).has_request(self.request)
        return is_good

    def version_string(self) -> str:
        """The Server header of errors."""
        return SERVER

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: there may be a scrape every second."""

    def get_stderr(self) -> io.StringIO:
        """Where wsgiref prints the traceback of a write that failed, which is the client's doing: nowhere."""
        return io.StringIO()


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves each connection on a thread of its own, with a place for as many as there may be."""

    daemon_threads = True
    request_queue_size = 128  # clients that come at once must not cost a probe a second for its second SYN

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._places: dict[socket.socket, Place] = {}
        self._changed = threading.Condition()  # guards the places; notified when there is one less
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they are

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept; wait a little when descriptors run out, or serve_forever would keep a core busy."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

    def verify_request(self, request: socket.socket, client_address: object) -> bool:  # type: ignore[override]
        """Give a new connection its place, another one's if need be; False if none comes free."""
        del client_address
        with self._changed:
            if len(self._places) >= MOST_CONNECTIONS and (place := to_evict(self._places.values())):
                self._cut_off([place])
            has_room = self._changed.wait_for(
                lambda: len(self._places) < MOST_CONNECTIONS, FREED_WITHIN_SECONDS
            )
            if has_room:
                self._places[request] = Place(time.monotonic())
        return has_room

    def has_request(self, request: socket.socket) -> None:
        """The request of a connection has come: from here on the work is ours."""
        with self._changed:
            self._places[request].has_request = True

    def service_actions(self) -> None:
        """Cut off those that are late; serve_forever calls this in each of its turns."""
        with self._changed:
            self._cut_off(late(self._places.values(), time.monotonic()))

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Close a connection and free its place."""
        with self._changed:  # or its descriptor could be another's when it is cut off
            super().shutdown_request(request)
            self._places.pop(request, None)
            self._changed.notify()

    def end_all(self) -> None:
        """End every connection: what still receives its request at once, the rest after a moment."""
        with self._changed:
            self._cut_off([place for place in self._places.values() if not place.has_request])
            self._changed.wait_for(lambda: not self._places, CLOSE_SECONDS)
            self._cut_off(list(self._places.values()))
            self._changed.wait_for(lambda: not self._places, CLOSE_SECONDS)

    def _cut_off(self, places: list[Place]) -> None:
        """Wake the threads of these connections: reads find the end, writes fail."""
        for sock in [sock for sock, place in self._places.items() if place in places]:
            self._places[sock].is_cut_off = True
            with contextlib.suppress(OSError):  # not connected any more
                # What the client has not read would else stay in the kernel until it does.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """Bind; `::` means all addresses of both families if the kernel supports that."""
        if self.server_address[0] == "::" and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer looks the address up in DNS here (socket.getfqdn), which can take seconds.
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnects during a scrape."""
