"""The HTTP protocol of one connection: aiohttp's, with deadlines, counting and an orderly end.

Knows aiohttp's `RequestHandler` and the stages of a connection. Never decides how many connections
there may be, and never accepts one.

aiohttp itself closes a connection that is silent, before or between requests, after an hour by default,
and lets a dripping head, a body or an unread answer take for ever: a hundred such sockets then fill a
connection limit. So every stage in which the client must do something has a deadline here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from metrics.instruments import ConnectionEnd, Metrics
from service.net import tcp
from service.net.connection_limit import ConnectionLimit
from service.web import request_log
from service.web.deadlines import Deadlines, Stage
from service.web.identity import SERVER

log = structlog.get_logger("offloop.protocol")

LINGER_SECONDS = 1.0
"""After an answer that did not need the request's body, the rest of it is read for at most this long, so that
the client sees the answer and not a reset; aiohttp's own default of 10 s lets a silent client hold a task."""

SLOWEST_BYTES_PER_SECOND = 500
"""A body or an answer must move at least this fast over one deadline (mod_reqtimeout's MinRate): a deadline
for the whole would cut off honest uploads, one between two bytes would let a client drip for ever."""

LEAVE_SECONDS = 2.0
"""From our close to the client's under TLS: a few round trips. Many a client that pools its connections never
looks at one that is idle, and would keep a drain waiting for its goodbye."""

ARRIVAL_SECONDS = 1.0
"""How long a drain waits for a request that may be on its way: longer than a round trip round the world and a
lost packet's first retransmission (200 ms), shorter than anybody's patience with a deploy."""

NEVER_SECONDS = 365 * 24 * 3600.0

TOO_SLOW = (
    f"HTTP/1.1 408 Request Timeout\r\nServer: {SERVER}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 16\r\nConnection: close\r\n\r\nRequest Timeout\n"
).encode()

SHUT_DOWN = (
    f"HTTP/1.1 503 Service Unavailable\r\nServer: {SERVER}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 20\r\nConnection: close\r\n\r\nService Unavailable\n"
).encode()

Ended = Callable[[ConnectionEnd], None]
"""Told once why the connection ended."""


class Protocol(web.RequestHandler):
    """aiohttp's HTTP protocol, which also keeps deadlines and counts every answer it writes.

    Built through public names only: aiohttp's runner offers no place for a protocol class, but
    `manager=runner.server` is all that the base class needs. Answers are counted in
    `finish_response`, because malformed requests never reach a middleware.

    Args:
        sock: the accepted socket; the transport owns it, here the kernel is asked about it.
        ended: told the reason when the connection is over; later calls must change nothing.
    """

    __slots__ = (
        "_ahead",
        "_answered",
        "_arriving",
        "_connection_limit",
        "_deadlines",
        "_draining",
        "_ended",
        "_handling",
        "_is_logged",
        "_metrics",
        "_moved",
        "_payload_late",
        "_reason",
        "_request",
        "_route",
        "_since",
        "_sock",
        "_wire",
        "stage",
    )

    def __init__(
        self,
        manager: web.Server,
        sock: socket.socket,
        ended: Ended,
        deadlines: Deadlines[Protocol],
        connection_limit: ConnectionLimit,
        metrics: Metrics,
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=NEVER_SECONDS,  # the stage IDLE has its own
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's documented "no access log"
        )
        self.stage: Stage | None = None
        self._deadlines = deadlines
        self._connection_limit = connection_limit
        self._metrics = metrics
        self._ended = ended
        self._reason: ConnectionEnd | None = None  # why we ended it ourselves
        self._sock = sock
        self._wire: asyncio.Transport | None = None  # aiohttp forgets its own when it closes
        self._request: web.Request | None = None
        self._moved = 0  # bytes: of a body since its deadline began; acknowledged when a WRITE one began
        self._payload_late = False
        self._arriving = False  # bytes have come since the last answer
        self._ahead = False  # bytes have come while a request was handled: the next one has begun
        self._handling = False  # a whole request head is with its handler
        self._answered = False
        self._since = time.perf_counter()
        self._route: str | None = None
        self._is_logged = False
        self._draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request head."""
        wire = cast("asyncio.Transport", transport)  # uvloop's transports share no class with asyncio's
        try:
            super().connection_made(transport)
        except Exception as error:
            # Under uvloop nobody would close this connection: it has no protocol that could.
            self._ended(ConnectionEnd.HANDOVER)
            wire.abort()
            log.error("connection lost in its set-up", error=repr(error))  # noqa: TRY400  # a line is enough
            return
        self._wire = wire
        self._enter(Stage.HEAD)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the record, whatever aiohttp's own cleaning up does."""
        try:
            self._enter(None)
            self._wire = self._request = None
            self._ended(self._reason or (ConnectionEnd.CLOSED if exc is None else ConnectionEnd.ERROR))
        finally:
            super().connection_lost(exc)

    async def start(self) -> None:
        """Serve requests until there is no next one; then the client has only to read, and to go."""
        try:
            await super().start()
        finally:
            self._handling = False
            if self._wire is not None:
                self._enter(Stage.LEAVE)

    def data_received(self, data: bytes) -> None:
        """Note when a request began: the first bytes after an answer (a pipelined one: at that answer)."""
        in_body = self._is_body_unfinished()
        if not in_body and data.strip(b"\r\n"):  # empty lines before a request are none (RFC 9112, 2.2)
            self._begin()
        super().data_received(data)
        if in_body and self.stage is Stage.BODY:
            self._moved += len(data)
            if not self._is_body_unfinished():
                self._enter(None)

    def _begin(self) -> None:
        if self._handling:
            self._ahead = True
        elif not self._arriving:
            self._arriving = True
            self._since = time.perf_counter()
            if self.stage is Stage.IDLE:
                self._enter(Stage.HEAD)

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._handling:
            self._work()

    def matched(self, request: web.Request, route: str | None, *, is_logged: bool) -> None:
        """The head of a request is complete and belongs to `route`; None when no route matched.

        Args:
            is_logged: whether the request log is to hold it.
        """
        self._handling, self._ahead = True, False
        self._request, self._route, self._is_logged = request, route, is_logged
        self._work()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, then count it, unless the client has gone and nothing was written."""
        if self._is_last():
            resp.force_close()
        written, gone = await super().finish_response(request, resp, start_time)
        if self._is_last():  # since then: writing takes as long as the client takes to read
            written.force_close()
        now = time.perf_counter()
        if not gone:
            self._metrics.request(request.method, self._route, written.status, now - self._since)
            if self._is_logged:
                request_log.write(request, self._route, written, now - self._since)
        self._arriving, self._handling, self._payload_late = self._ahead, False, False
        self._answered, self._since, self._route, self._is_logged = True, now, None, False
        if not self._is_body_unfinished():
            self._request = None
        if self._wire is not None and written.keep_alive:
            self._enter(Stage.HEAD if self._arriving else Stage.IDLE)
        return written, gone

    def _is_last(self) -> bool:
        """Whether this connection ends with its answer: in a drain, or when others wait for its place."""
        return self._draining or self._connection_limit.at_capacity

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a client's mistake in a line, without a traceback per attempt in our log."""
        if isinstance(exc, ConnectionError) and (self._wire is None or self._wire.is_closing()):
            raise exc  # the client left while it was answered: nobody to tell, and nothing to log
        if self._payload_late and status == HTTPStatus.GATEWAY_TIMEOUT:
            status = HTTPStatus.REQUEST_TIMEOUT  # the handler passed on what reading the body raised
        if isinstance(exc, web.RequestPayloadError):
            status = HTTPStatus.BAD_REQUEST  # a body that is not what its headers say
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _signed(super().handle_error(request, status, exc, message))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: there is no place for another")
        if isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        resp = web.Response(status=status, text=f"{HTTPStatus(status).phrase}\n")
        resp.force_close()
        return _signed(resp)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what is our mistake; a body that cannot be decoded is the client's, whoever reads it."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def expire(self) -> None:
        """The deadline of the present stage has passed: go on if the client moved enough, else end it."""
        match self.stage:
            case Stage.HEAD:
                self._expire_head()
            case Stage.BODY:
                self._expire_body()
            case Stage.WRITE:
                self._expire_write()
            case Stage.IDLE:
                self._hang_up(ConnectionEnd.DEADLINE)
            case Stage.ARRIVE:
                self._hang_up(None)
            case Stage.LEAVE:
                self._expire_leave()

    def is_wanted(self) -> bool:
        """Whether the client is still there to read an answer."""
        return self._wire is not None and not tcp.peer_closed(self._sock)

    def evict(self) -> None:
        """Close this idle connection: somebody who has a request waits for its place."""
        if self.stage is Stage.IDLE:
            self._hang_up(ConnectionEnd.EVICTED)

    def has_pending_response(self) -> bool:
        """Whether the client has more to expect than the end of the connection."""
        return self._wire is not None and self.stage is not Stage.LEAVE

    def conclude(self) -> None:
        """Let the next answer be the last one."""
        self._draining = True

    def abandon(self) -> None:
        """The drain's deadline has passed: say so to who has no answer yet, and end the connection.

        Called again, it no longer waits for the client.
        """
        if self._wire is None:
            return
        again = self._reason is ConnectionEnd.ABANDONED
        if self.stage is not Stage.LEAVE:  # who has only to go has had its answer
            self._reason = ConnectionEnd.ABANDONED
        self._enter(None)
        asked = self._request if self._handling and not again else None
        if asked is None or asked.writer.output_size:
            self._wire.abort()
            return
        self._wire.write(SHUT_DOWN)
        self._metrics.request(
            asked.method, self._route, HTTPStatus.SERVICE_UNAVAILABLE, time.perf_counter() - self._since
        )
        self._wire.close()

    def drain(self) -> None:
        """End this connection without losing a request.

        A request that is being handled is answered first. One that may still be on its way gets the stage
        ARRIVE: the connection is new, or its first bytes are here. An idle
        connection that has had its answers is closed at once. (aiohttp's own `close()` stops
        reading, and a request of which half has arrived would hang.)
        """
        self.conclude()
        if self._handling:
            return
        if self._answered and not self._arriving:
            self._hang_up(None)
        elif self._wire is not None and not self._wire.is_closing():
            self._enter(Stage.ARRIVE)

    def _enter(self, stage: Stage | None) -> None:
        self._deadlines.enter(self, stage)

    def _is_body_unfinished(self) -> bool:
        return self._request is not None and not self._request.content.is_eof()

    def _work(self) -> None:
        """The handler's turn; the client has to send the rest of the body, if there is more of it."""
        self._moved = 0
        self._enter(Stage.BODY if self._is_body_unfinished() else None)

    def _await_reading(self) -> None:
        """Wait until the client has read what was written."""
        self._moved = tcp.acknowledged(self._sock) or 0
        self._enter(Stage.WRITE)

    def _expire_head(self) -> None:
        if self._wire is not None:
            self._wire.write(TOO_SLOW)
            self._metrics.request(
                "OTHER", None, HTTPStatus.REQUEST_TIMEOUT, time.perf_counter() - self._since
            )
            self._hang_up(ConnectionEnd.DEADLINE)

    def _expire_body(self) -> None:
        # Nothing can come while we do not read: the handler is slower than the client.
        listening = self._wire is not None and self._wire.is_reading()
        if not listening or self._moved >= self._least(Stage.BODY):
            self._work()
        elif self._request is not None:
            self._payload_late = True
            self._request.content.set_exception(TimeoutError("the body came too slowly"))
            self._enter(None)

    def _expire_write(self) -> None:
        acknowledged = tcp.acknowledged(self._sock)
        if acknowledged is not None and acknowledged - self._moved >= self._least(Stage.WRITE):
            self._await_reading()
        elif self._wire is not None:
            self._reason = self._reason or ConnectionEnd.DEADLINE
            self._enter(None)
            tcp.close_with_reset(self._sock)
            self._wire.abort()  # close() would wait for this client

    def _expire_leave(self) -> None:
        if tcp.unacknowledged(self._sock):
            self._await_reading()
        elif self._wire is not None:
            self._enter(None)
            self._wire.abort()  # it has everything; only its goodbye is missing

    def _least(self, stage: Stage) -> float:
        return SLOWEST_BYTES_PER_SECOND * self._deadlines.seconds[stage]

    def _hang_up(self, reason: ConnectionEnd | None) -> None:
        """Close; what the client has not read yet must be read within the deadline for that."""
        if self._wire is not None and not self._wire.is_closing():
            self._reason = self._reason or reason
            self._enter(Stage.LEAVE)
            self._wire.close()


def _signed(answer: web.StreamResponse) -> web.StreamResponse:
    """What no route has matched is answered without `on_response_prepare`, which signs the others."""
    answer.headers["Server"] = SERVER
    return answer
