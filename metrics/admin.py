"""The admin endpoint: /metrics, /healthz and /readyz on a port and thread of their own.

Separate from the serving loop for two reasons. A scrape that is rendered on the loop stalls every client
meanwhile; and a loop that is blocked or at its limit cannot answer a scrape, which is when operators need
one. Knows WSGI and prometheus_client's own exposition app; never touches the loop.
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
"""Returns (healthy, one line with the reason); called from any thread."""


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds after which a silent client loses its thread

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: there may be a scrape every second."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept; wait a little when descriptors run out, or serve_forever would keep a core busy."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

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


class Admin:
    """Serves the three paths from construction until `close()`.

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
        # The poll interval bounds how long close() takes, and nothing else: requests wake the thread at once.
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
