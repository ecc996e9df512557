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
from typing import Any

import structlog
from aiohttp import web

from metrics.instruments import Metrics

log = structlog.get_logger("offloop.connection")

KEEPALIVE_SECONDS = 75
"""An idle connection is closed after this long; aiohttp's own default is an hour, meant for a proxy."""


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

    __slots__ = ("_busy", "_draining", "_metrics", "_record", "_route", "_since")

    def __init__(self, manager: web.Server, record: Record, metrics: Metrics) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's documented "no access log"
        )
        self._record = record
        self._metrics = metrics
        self._busy = False  # bytes have come since the last answer
        self._since = 0.0
        self._route: str | None = None
        self._draining = False

    def data_received(self, data: bytes) -> None:
        """Note when a request began: the first bytes after an answer (a pipelined one: at that answer)."""
        if not self._busy:
            self._busy = True
            self._since = time.perf_counter()
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, then count it."""
        if self._draining:
            resp.force_close()
        written = await super().finish_response(request, resp, start_time)
        now = time.perf_counter()
        self._metrics.request(request.method, self._route, written[0].status, now - self._since)
        self._busy, self._since, self._route = False, now, None
        return written

    def matched(self, route: str | None) -> None:
        """The headers are complete and belong to `route`; None when no route matched."""
        self._route = route

    def drain(self) -> None:
        """Close at once if idle, else after the answer to the request that has begun to arrive.

        aiohttp's own `close()` stops reading, and a request of which half has arrived would hang.
        """
        self._draining = True
        if not self._busy and self.transport is not None:
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

    def drain(self) -> None:
        """Close what is idle, and the rest after its answer."""
        for protocol in self._manager.connections:
            if isinstance(protocol, Protocol):
                protocol.drain()

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
