"""What a connection costs in memory: `make memory`."""

from __future__ import annotations

import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.proofs.record import keep
from tests.support.child import Child, service
from tests.support.processes import resident_bytes

CONNECTIONS = 2_000
REQUEST = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
Send = Callable[[socket.socket], Any]


def silent(_: socket.socket) -> None:
    """Connected, nothing sent."""


def idle(client: socket.socket) -> None:
    """One answer, then kept alive."""
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
    client.recv(4096)


def waiting(client: socket.socket) -> None:
    """A request in the queue for a worker."""
    client.sendall(REQUEST)


def per_connection(child: Child, send: Send, count: int = CONNECTIONS) -> float:
    """KiB of resident memory that each of `count` connections adds."""
    place = urlsplit(child.ready()[0])
    address = (str(place.hostname), int(place.port or 0))

    def opened(number: int) -> list[socket.socket]:
        clients = []
        for _ in range(number):
            client = socket.create_connection(address)
            send(client)
            clients.append(client)
        child.wait_until(lambda: child.scrape()["http_connections_active"] == number)
        return clients

    for client in opened(count // 4):  # what is allocated once
        client.close()
    child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
    before = resident_bytes(child.process.pid)
    clients = opened(count)
    added = resident_bytes(child.process.pid) - before
    for client in clients:
        client.close()
    return added / count / 1024


def main() -> int:
    """Measure each kind on a service of its own, and keep the figures."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {}
    for kind in (silent, idle, waiting):
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--offload", "thread", "--workers", "1", "--work", "tests.work:sleeps_unless_tried"]
            with service(Path(folder) / "log", *flags, "--work-units", "60", "--drain-timeout", "0") as child:
                figures[f"{kind.__name__}_kib"] = round(per_connection(child, kind), 1)
    print(figures)
    keep("memory", "make memory", {"connections": CONNECTIONS, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
