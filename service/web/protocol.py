"""The HTTP protocol of one connection: aiohttp's, with deadlines, counting and an orderly end.

Turns what aiohttp and the transport report into events of exchange.py; driver.py carries out what follows.
Knows aiohttp's `RequestHandler`. Accepts no connection and does not decide how many there may be.

aiohttp itself closes a connection that is silent, before or between requests, after an hour by default,
and puts no limit on a dripping head, a body or an unread answer: a hundred such sockets then fill a
connection limit. So every state in which the client must do something has a deadline here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import hdrs, web

from metrics.instruments import ConnectionEnd, Metrics
from service.net.connection_limit import ConnectionLimit
from service.web import responses
from service.web.conformance import Fault
from service.web.deadlines import Deadlines
from service.web.driver import Driver
from service.web.exchange import BETWEEN_REQUESTS, Event
from service.web.pipeline import Pipeline
from service.web.request_log import RequestRecord

log = structlog.get_logger("offloop.protocol")

LINGER_SECONDS = 1.0
"""After an answer that did not need the request's body, the rest of it is read for at most this long, so that
the client sees the answer and not a reset; aiohttp's own default of 10 s lets a silent client hold a task."""

TICK_SECONDS = 0.01
"""Of the kernel's clock at most, by which it tells how long a request lay there. It tells one tick of what
has just come: an idle service would seem to take 4 ms for one request in a hundred."""

UPGRADES = frozenset({"websocket", "tcp"})
"""Protocols for which aiohttp's parser stops to parse."""

NEVER_SECONDS = 365 * 24 * 3600.0


class Protocol(web.RequestHandler):
    """aiohttp's HTTP protocol, which also tells `driver` what happens, and counts every answer it writes.

    Built through public names only: aiohttp's runner offers no place for a protocol class, but
    `manager=runner.server` is all that the base class needs. Answers are counted in
    `finish_response`, because malformed requests never reach a middleware.

    Args:
        sock: the accepted socket; the transport owns it.
        ended: told the reason when the connection is over; later calls must change nothing.
    """

    __slots__ = ("_connection_limit", "_ended", "_fault", "_pipeline", "_record", "driver")

    def __init__(
        self,
        manager: web.Server,
        sock: socket.socket,
        ended: Callable[[ConnectionEnd], None],
        deadlines: Deadlines[Driver],
        connection_limit: ConnectionLimit,
        metrics: Metrics,
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=NEVER_SECONDS,  # the stage IDLE has its own
            tcp_keepalive=False,  # inherited from the listener
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's documented "no access log"
        )
        self._connection_limit = connection_limit
        self._ended = ended
        self._fault: Fault | None = None
        self._pipeline = Pipeline()
        self._record = RequestRecord(metrics)
        self.driver = Driver(sock, deadlines, self._record)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request head."""
        wire = cast("asyncio.Transport", transport)  # uvloop's transports share no class with asyncio's
        try:
            super().connection_made(transport)
        except Exception as error:
            # Under uvloop nothing would close this connection: it has no protocol that could.
            self._ended(ConnectionEnd.HANDOVER)
            wire.abort()
            log.error("connection lost in its set-up", error=repr(error))  # noqa: TRY400  # a line is enough
            return
        self.driver.connected(wire)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the record, whatever aiohttp's own cleaning up does."""
        try:
            self.driver.happened(Event.LOST)
            self.driver.wire = self.driver.request = None
            self._ended(self.driver.reason or (ConnectionEnd.CLOSED if exc is None else ConnectionEnd.ERROR))
        finally:
            super().connection_lost(exc)

    async def start(self) -> None:
        """Serve requests until there is no next one; then the client has only to read, and to close."""
        try:
            await super().start()
        finally:
            self.driver.happened(Event.SERVED)

    def data_received(self, data: bytes) -> None:
        """Note where a request begins and where its body ends, and let aiohttp parse."""
        driver = self.driver
        if driver.request is not None and driver.is_body_unfinished():
            driver.arrived = None
            super().data_received(data)
            driver.received_body(len(data))
            is_whole = not driver.is_body_unfinished()
            has_next = self._pipeline.receive_body(data, is_whole=is_whole)
            if is_whole:
                driver.happened(Event.BODY_END)
        else:
            has_next = self._pipeline.receive(data)
            if self._pipeline.is_too_long and not self._is_upgraded():
                driver.happened(Event.HEAD_TOO_LONG)
                return  # what aiohttp does not get, it does not keep
            super().data_received(data)
        if has_next and driver.state in BETWEEN_REQUESTS:
            now, arrived = time.monotonic(), driver.arrived
            self._record.since = now if arrived is None or now - arrived <= TICK_SECONDS else arrived
            driver.happened(Event.BYTES)
        else:
            driver.arrived = None  # what comes after the first bytes did not lie there at accept

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        super().pause_writing()
        self.driver.happened(Event.BUFFER_FULL)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        has_body = self.driver.is_body_unfinished()
        self.driver.happened(Event.BUFFER_LOW_IN_BODY if has_body else Event.BUFFER_LOW)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, then count it, unless the client has gone and nothing was written."""
        if self._is_last():
            resp.force_close()
        written, gone = await super().finish_response(request, resp, start_time)
        if self._is_last():  # since then: writing takes as long as the client takes to read
            written.force_close()
        if not gone:
            self._record.answered(request, written)
        driver = self.driver
        if driver.request is not request:  # it never had a handler: an expectation that failed
            self._claim(request)
        elif request.content.is_eof():  # else its body is still to come
            driver.request = None
        driver.body_was_late = False
        if driver.place is not None:
            driver.place.release()  # whether or not it has submitted a task
            driver.place = None
        driver.arrived = None
        if not written.keep_alive:
            driver.happened(Event.ANSWERED_LAST)
        elif self._pipeline.waiting:
            driver.happened(Event.ANSWERED_PIPELINED)
            if self._pipeline.is_too_long:
                driver.happened(Event.HEAD_TOO_LONG)
        else:
            driver.happened(Event.ANSWERED)
        return written, gone

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a client's mistake in a line, without a traceback per attempt in our log."""
        if isinstance(exc, ConnectionError) and (self.driver.wire is None or self.driver.wire.is_closing()):
            raise exc  # the client left while it was answered: there is nothing to send or to log
        status = responses.status_of(status, exc, body_was_late=self.driver.body_was_late)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return responses.signed(super().handle_error(request, status, exc, message))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: there is no place for another")
        response = web.Response(status=status, text=f"{HTTPStatus(status).phrase}\n")
        response.force_close()
        return responses.signed(response)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log our own mistakes; a body that cannot be decoded is the client's, whichever handler reads it."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def refuse(self, fault: Fault) -> None:
        """The request that comes next is to be answered so, whatever it asks for."""
        self._fault = fault

    def matched(self, request: web.Request, route: str | None, *, is_logged: bool) -> None:
        """The head of a request is complete and belongs to `route`; None when no route matched.

        Args:
            is_logged: whether the request log is to hold it.

        Raises:
            HTTPException: what the request is to be answered; see `refuse`.
        """
        self.driver.request = request
        self._record.route, self._record.is_logged = route, is_logged
        if self._claim(request):
            self.driver.happened(Event.REQUEST)
        else:
            self.driver.awaits_body()
            self.driver.happened(Event.REQUEST_WITH_BODY)
        if self._fault is not None:
            raise self._fault(text=f"{HTTPStatus(self._fault.status_code).phrase}\n")

    def _claim(self, request: web.BaseRequest) -> bool:
        """Take the request off the pipeline; whether all of it is here."""
        if not request.body_exists:
            self._pipeline.claim_head()
            return True
        is_whole = request.content.is_eof()
        is_chunked = hdrs.TRANSFER_ENCODING in request.headers
        self._pipeline.claim(body=None if is_chunked else request.content_length, is_whole=is_whole)
        return is_whole

    def _is_upgraded(self) -> bool:
        """Whether the present request has changed the protocol, by the rules of aiohttp's parser: what comes
        then is no head, and aiohttp bounds it.
        """
        if self.driver.request is None:
            return False
        headers = self.driver.request.headers
        says_so = "upgrade" in headers.get(hdrs.CONNECTION, "").lower()
        return says_so and headers.get(hdrs.UPGRADE, "").lower() in UPGRADES

    def _is_last(self) -> bool:
        """Whether this connection ends with its answer: in a drain, or when clients wait for its place."""
        return self.driver.closes_after_response or self._connection_limit.at_capacity
