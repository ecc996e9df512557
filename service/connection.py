"""One record per connection, from accept to its end, and the HTTP protocol that runs on it.

Knows the accepted socket, aiohttp's protocol and the book of connections. Accepted and completed are
counted here, where a connection really begins and ends, and not in a handler: counted in the handler
the two curves of the experiment would be equal by construction.

Why a record beside the protocol: protocol callbacks alone are not enough. After a failed hand-over
neither `connection_made` nor `connection_lost` is ever called. The record exists from accept on and
is ended by whichever comes first; the second call changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from metrics.instruments import Metrics

log = structlog.get_logger("offloop.connection")

KEEPALIVE_SECONDS = 75
"""An idle connection is closed after this long; aiohttp's own default is an hour, meant for a proxy."""

LINGER_SECONDS = 1.0
"""After an answer that did not need the request's body, the rest of it is read for this long, so that the
client sees the answer and not a reset; aiohttp's own default of 10 s lets a silent client hold a task."""


class Record:
    """Owns one accepted socket until its end, and counts that end once."""

    __slots__ = ("_metrics", "socket")

    def __init__(self, sock: socket.socket, metrics: Metrics) -> None:
        self.socket = sock
        self._metrics = metrics
        metrics.connections.opened(self)

    def end(self, reason: str) -> None:
        """The connection is over (`closed`, `error` or `handover`); later calls are ignored."""
        self._metrics.connections.ended(self, reason)


class Protocol(web.RequestHandler):
    """aiohttp's HTTP protocol, which also ends its record and counts every answer it writes.

    Built through public names only: aiohttp's runner offers no place for a protocol class, but
    `manager=runner.server` is all that the base class needs. Answers are counted in
    `finish_response`, because malformed requests never reach a middleware.
    """

    __slots__ = (
        "_answered",
        "_arriving",
        "_draining",
        "_handling",
        "_metrics",
        "_record",
        "_route",
        "_since",
    )

    def __init__(self, manager: web.Server, record: Record, metrics: Metrics) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's documented "no access log"
        )
        self._record = record
        self._metrics = metrics
        self._arriving = False  # bytes have come since the last answer
        self._handling = False  # a whole request head is with its handler
        self._answered = False
        self._since = 0.0
        self._route: str | None = None
        self._draining = False

    def data_received(self, data: bytes) -> None:
        """Note when a request began: the first bytes after an answer (a pipelined one: at that answer)."""
        if not (self._arriving or self._handling):
            self._arriving = True
            self._since = time.perf_counter()
        super().data_received(data)

    def matched(self, route: str | None) -> None:
        """The head of a request is complete and belongs to `route`; None when no route matched."""
        self._handling = True
        self._route = route

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, then count it, unless the client has gone and nothing was written."""
        if self._draining:
            resp.force_close()
        written, gone = await super().finish_response(request, resp, start_time)
        now = time.perf_counter()
        if not gone:
            self._metrics.request(request.method, self._route, written.status, now - self._since)
        self._arriving = self._handling = False
        self._answered, self._since, self._route = True, now, None
        return written, gone

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a client's mistake in a line, without a traceback per attempt in our log."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        if isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        resp = web.Response(status=status, text=f"{HTTPStatus(status).phrase}\n")
        resp.force_close()
        return resp

    def drain(self, grace_seconds: float) -> None:
        """End this connection without losing a request.

        A request that is being handled is answered first. One that may still be on its way gets
        `grace_seconds` to arrive: the connection is new, or its first bytes are here. An idle
        connection that has had its answers is closed at once. (aiohttp's own `close()` stops
        reading, and a request of which half has arrived would hang.)
        """
        self._draining = True
        if self._handling:
            return
        if self._answered and not self._arriving:
            self._close_unless_handling()
        else:
            asyncio.get_running_loop().call_later(grace_seconds, self._close_unless_handling)

    def _close_unless_handling(self) -> None:
        if not self._handling and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the record, whatever aiohttp's own cleaning up does."""
        self._record.end("closed" if exc is None else "error")
        super().connection_lost(exc)


@web.middleware
async def tell_protocol(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the connection which route its request matched; the first to know is a middleware."""
    if isinstance(request.protocol, Protocol):
        resource = request.match_info.route.resource
        request.protocol.matched(resource.canonical if resource else None)
    return await handler(request)


class Reception:
    """Hands accepted sockets over to the HTTP protocol.

    Nobody cancels a hand-over: under uvloop a cancel right after it gives `connection_made` without
    `connection_lost`. Each one ends by itself.
    """

    def __init__(self, manager: web.Server, metrics: Metrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._manager = manager
        self._metrics = metrics
        self._under_way: set[asyncio.Task[None]] = set()

    def take(self, sock: socket.socket) -> None:
        """Count the connection and start its hand-over; the record owns `sock` from here on."""
        record = Record(sock, self._metrics)
        task = self._loop.create_task(self._hand_over(record))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def drain(self, grace_seconds: float) -> None:
        """Close what is idle, and the rest after its answer; see `Protocol.drain`."""
        for protocol in self._manager.connections:
            if isinstance(protocol, Protocol):
                protocol.drain(grace_seconds)

    async def settled(self) -> None:
        """Wait until every hand-over under way has ended."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _hand_over(self, record: Record) -> None:
        def protocol() -> Any:
            return Protocol(self._manager, record, self._metrics)

        try:
            await self._loop.connect_accepted_socket(protocol, record.socket)
        except Exception as error:
            # One connection is lost, never the listener. The socket may or may not have reached a
            # transport that closes it; closing twice is harmless, not closing leaks a descriptor.
            record.socket.close()
            record.end("handover")
            log.warning("hand-over failed", error=repr(error))
