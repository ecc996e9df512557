"""The admin endpoint: /metrics, /healthz and /readyz on a port and thread of their own.

Separate from the serving loop for two reasons. A scrape rendered on the loop stalls every client for
the time it takes; and a loop that is blocked or at its limit could not answer the scrape, just when
somebody needs it. Knows WSGI and prometheus_client's own exposition app; never touches the loop.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Probe = Callable[[], tuple[bool, str]]
"""Answers (healthy?, one line that says why) from any thread."""


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds: a silent client may hold its thread no longer

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes every second are not worth a log line each."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept; in a shortage of descriptors wait a little, or serve_forever would spin a core."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

    def server_bind(self) -> None:
        """Bind; `::` means all addresses of both families where the kernel can do that."""
        if self.server_address[0] == "::" and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer looks the address up in DNS here (socket.getfqdn), which can take seconds.
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle of a scrape is no event."""


class Admin:
    """Serves the three paths from the moment it is made until `close()`.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, alive: Probe, ready: Probe) -> None:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = type("_Server", (_Server,), {"address_family": family})
        self._server: _Server = server(address[:2], _Handler)
        self._server.set_app(_application(registry, {"/healthz": alive, "/readyz": ready}))
        # The poll interval only bounds how long close() takes; requests wake the thread at once.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="admin", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port."""
        return self._server.server_name, self._server.server_port

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _application(registry: CollectorRegistry, probes: dict[str, Probe]) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(registry)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in probes:
            healthy, why = probes[path]()
            status, body = ("200 OK" if healthy else "503 Service Unavailable"), f"{why}\n".encode()
        else:
            status, body = "404 Not Found", b"here are: /metrics /healthz /readyz\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [body]

    return application
