"""What an operator sees while clients hold on to the admin port: it answers, and so does the service."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.request import urlopen

from metrics.exposition import parse
from metrics.places import MOST_CONNECTIONS
from tests.support.child import service
from tests.support.processes import descriptors
from tests.support.waiting import until

BEGINNINGS = (
    b"",  # silent
    b"GET /metrics HTTP/1.1\r\nHost: t\r\nX-Slow: ",  # the rest comes byte by byte, and never ends
    b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n",  # asks and does not read
)
PATIENCE_SECONDS = 20.0


class Dripping:
    """A client that sends a byte now and then; cut off, it comes back."""

    def __init__(self, address: tuple[str, int], beginning: bytes) -> None:
        self._address, self._beginning = address, beginning
        self._socket = self._connected()

    def drip(self) -> None:
        try:
            self._socket.sendall(b"x")
        except OSError:
            self.close()
            self._socket = self._connected()

    def close(self) -> None:
        self._socket.close()

    def _connected(self) -> socket.socket:
        sock = socket.create_connection(self._address, timeout=PATIENCE_SECONDS)
        with contextlib.suppress(OSError):  # cut off already
            sock.sendall(self._beginning)
        return sock


def get(url: str) -> tuple[int, str]:
    with urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return answer.status, answer.read().decode()


def test_300_clients_that_drip_on_the_admin_port_take_nothing_from_anybody(tmp_path: Path) -> None:
    flags = ("--work-units", "1", "--workers", "1")
    with service(tmp_path / "log", *flags, files=256) as child, contextlib.ExitStack() as stack:
        address, admin = child.ready()
        host, _, port = admin.removeprefix("http://").partition(":")
        get(f"{address}/data")
        before = descriptors(child.process.pid)
        clients = [
            stack.enter_context(contextlib.closing(Dripping((host, int(port)), BEGINNINGS[n % 3])))
            for n in range(300)
        ]
        most = 0
        for _ in range(10):
            for client in clients:
                client.drip()
            most = max(most, descriptors(child.process.pid))
            assert get(f"{address}/data")[0] == 200
            assert get(f"{admin}/readyz") == (200, "serving\n")
            status, text = get(f"{admin}/metrics")
            assert status == 200
            assert parse(text)["listener_accept_pauses_total"] == 0
        assert most <= before + MOST_CONNECTIONS + 3  # one in accept, and the connections of these questions
        stack.close()
        until(lambda: descriptors(child.process.pid) <= before, "every descriptor is closed")
        assert child.end() == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
