"""Servers that answer as told, byte by byte, and a way to drive the load loop against them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from loadtests.load.endpoint import make_endpoint
from loadtests.load.facts import Progress
from loadtests.load.loop import LoadLoop
from loadtests.load.phase import Phase
from loadtests.load.readiness import Clocks

Behaviour = Callable[[socket.socket], None]

# Sends what is to be sent for the n-th request of its connection, from 1; False closes the connection.
Reply = Callable[[socket.socket, int], bool]

OK_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def answer_with(data: bytes) -> Behaviour:
    """Send these bytes and close."""
    return lambda connection: connection.sendall(data)


def answer_and_await_the_end(connection: socket.socket) -> None:
    connection.sendall(OK_ANSWER)
    connection.recv(1)  # returns with the client's FIN


class ScriptedServer:
    """Takes one connection after the other, reads the request's head, does as told, closes.

    A behaviour that keeps a connection with `hold` leaves it open and silent until the end.
    """

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="scripted server")
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/data"
        self.requests: list[bytes] = []
        self.listening = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        self._listener.close()
        self.release()

    def stop(self) -> None:
        """Listen no more, without waiting: what connects now is refused, what is in the queue reset."""
        if self.listening:
            self.listening = False
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()

    def hold(self, connection: socket.socket) -> None:
        """Keep a connection open and silent."""
        self._held.append(connection.dup())

    def release(self) -> None:
        """Close what was held."""
        while self._held:
            self._held.pop().close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # clients leave when they like
                self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        if self._tls is None:
            self.requests.append(_head(connection))
            self._behaviour(connection)
            return
        with self._tls.wrap_socket(connection, server_side=True) as secured:
            self.requests.append(_head(secured))
            self._behaviour(secured)


class KeepingServer:
    """Serves any number of connections at the same time, and on each request after request, as told.

    `requests`: of each connection, in the order in which they were made. `ended`: set when the client has
    closed one.
    """

    def __init__(self, reply: Reply, *, tls: ssl.SSLContext | None = None) -> None:
        self._reply = reply
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._threads = [threading.Thread(target=self._accept, name="keeping server")]
        self._connections: list[socket.socket] = []
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/data"
        self.requests: list[list[bytes]] = []
        self.ended = threading.Event()
        self.released = threading.Event()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def hang_up(self, how: int = socket.SHUT_RDWR) -> None:
        """End all connections, idle or not."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it has ended already
                connection.shutdown(how)

    def hold(self, _connection: socket.socket, _number: int) -> bool:
        """A reply that does not come before the end of the test."""
        self.released.wait(60)
        return False

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="a kept connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        heads: list[bytes] = []
        self.requests.append(heads)
        with contextlib.suppress(OSError):  # clients leave when they like
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            while head := _head(connection):
                heads.append(head)
                if not self._reply(connection, len(heads)):
                    break
            else:
                self.ended.set()
        connection.close()


def _head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65_536)):
        data += more
    return data


CLOCKS = Clocks(wall=time.monotonic, cpu=time.process_time, core_wait=lambda: 0.0)


def drive(
    url: str,
    emit: Callable[[Progress], bool] = lambda _: True,
    **changes: Any,
) -> LoadLoop:
    """Run a short phase in this process and return the loop with its samples: 100/s unless told otherwise.

    `emit` sees the progress; False stops the run.
    """
    offered = {} if "clients" in changes else {"rate": 100}
    phase = Phase(**{"url": url, "duration_seconds": 0.05, "timeout_seconds": 20, **offered, **changes})
    loop = LoadLoop(phase, make_endpoint(phase), emit, CLOCKS)
    loop.run()
    return loop


def outcomes(loop: LoadLoop) -> set[str]:
    """Return the labels of all samples."""
    return {sample.label for sample in loop.samples}
