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


def _head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65_536)):
        data += more
    return data


CLOCKS = Clocks(wall=time.monotonic, cpu=time.process_time, core_wait=lambda: 0.0)


def drive(
    url: str,
    emit: Callable[[Progress], bool] = lambda _: True,
    *,
    clocks: Clocks = CLOCKS,
    **changes: Any,
) -> LoadLoop:
    """Run a short phase in this process and return the loop with its samples: 100/s unless told otherwise.

    `emit` sees the progress; False stops the run.
    """
    offered = {} if "clients" in changes else {"rate": 100}
    phase = Phase(**{"url": url, "duration_seconds": 0.05, "timeout_seconds": 20, **offered, **changes})
    loop = LoadLoop(phase, make_endpoint(phase), emit, clocks)
    loop.run()
    return loop


def outcomes(loop: LoadLoop) -> set[str]:
    """Return the labels of all samples."""
    return {sample.label for sample in loop.samples}
