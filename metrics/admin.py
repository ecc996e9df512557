"""The admin endpoint: /metrics, /healthz and /readyz on a port and thread of their own.

Separate from the serving loop for two reasons. A scrape that is rendered on the loop stalls every client
meanwhile; and a loop that is blocked or at its limit cannot answer a scrape, which is when operators need
one. Knows WSGI and prometheus_client's own exposition app; never touches the loop.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from metrics.admin_server import SERVER, Handler, Server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger("offloop.admin")

Probe = Callable[[], tuple[bool, str]]
"""Returns (healthy, one line with the reason); called from any thread."""

TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")


class Admin:
    """Serves the three paths from construction until `close()`.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, alive: Probe, ready: Probe) -> None:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = type("Server", (Server,), {"address_family": family})
        self._server: Server = server(address[:2], Handler)
        self._server.set_app(_application(registry, {"/healthz": alive, "/readyz": ready}))
        # The poll interval bounds how long close() takes to begin, and how late a late exchange is cut
        # off. Requests wake the thread at once.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="admin", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port."""
        return self._server.server_name, self._server.server_port

    def close(self) -> None:
        """Stop serving, end what is connected, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.end_all()


def _application(registry: CollectorRegistry, probes: dict[str, Probe]) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(registry)

    def get(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in probes:
            healthy, why = probes[path]()
            status, body = ("200 OK" if healthy else "503 Service Unavailable"), f"{why}\n".encode()
        else:
            status, body = "404 Not Found", b"here are: /metrics /healthz /readyz\n"
        start_response(status, [TEXT])
        return [body]

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [TEXT, ("Allow", "GET, HEAD"), ("Server", SERVER)])
            return [b"use GET\n"]
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def keep(status: str, headers: list[tuple[str, str]], _: object = None, /) -> Callable[..., object]:
            said.append((status, headers))
            return lambda _: None  # WSGI's own write(), which none of ours calls

        try:
            body = b"".join(get({**environ, "REQUEST_METHOD": "GET"}, keep))
            ((status, headers),) = said
        except Exception:
            log.exception("admin request failed", path=environ["PATH_INFO"])
            status, headers, body = "500 Internal Server Error", [TEXT], b"see the log\n"
        start_response(status, [*headers, ("Content-Length", str(len(body))), ("Server", SERVER)])
        return [body] if method == "GET" else []

    return application
