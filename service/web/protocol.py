"""The HTTP protocol of one connection: aiohttp's, with deadlines, counting and an orderly end.

Turns what aiohttp, the transport and the deadlines report into events of exchange.py, and carries out what
follows. Knows aiohttp's `RequestHandler`. Accepts no connection and does not decide how many there may be.

aiohttp itself closes a connection that is silent, before or between requests, after an hour by default,
and puts no limit on a dripping head, a body or an unread answer: a hundred such sockets then fill a
connection limit. So every state in which the client must do something has a deadline here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import hdrs, web

from metrics.instruments import ConnectionEnd, Metrics
from service.net import tcp
from service.net.connection_limit import ConnectionLimit
from service.web import responses
from service.web.deadlines import Deadlines, Stage
from service.web.exchange import PENDING, TABLE, TIMED, Action, Event, State, Step
from service.web.pipeline import Pipeline
from service.web.progress import Progress
from service.web.request_log import RequestRecord

log = structlog.get_logger("offloop.protocol")

LINGER_SECONDS = 1.0
"""After an answer that did not need the request's body, the rest of it is read for at most this long, so that
the client sees the answer and not a reset; aiohttp's own default of 10 s lets a silent client hold a task."""

NEVER_SECONDS = 365 * 24 * 3600.0


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
        "_body_was_late",
        "_closes_after_response",
        "_connection_limit",
        "_deadlines",
        "_ended",
        "_pipeline",
        "_progress",
        "_reason",
        "_record",
        "_request",
        "_sock",
        "_wire",
        "stage",
        "state",
    )

    def __init__(
        self,
        manager: web.Server,
        sock: socket.socket,
        ended: Callable[[ConnectionEnd], None],
        deadlines: Deadlines[Protocol],
        connection_limit: ConnectionLimit,
        metrics: Metrics,
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=NEVER_SECONDS,  # the state IDLE has its own
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's documented "no access log"
        )
        self.state = State.FRESH
        self.stage: Stage | None = None  # set by the deadlines alone
        self._deadlines = deadlines
        self._connection_limit = connection_limit
        self._ended = ended
        self._sock = sock
        self._wire: asyncio.Transport | None = None  # aiohttp forgets its own when it closes
        self._pipeline = Pipeline()
        self._request: web.Request | None = None  # with its handler, or answered with a body still to come
        self._body_was_late = False
        self._record = RequestRecord(metrics)
        self._progress = Progress(sock, deadlines.seconds)
        self._closes_after_response = False
        self._reason: ConnectionEnd | None = None  # why we ended it ourselves

    # What aiohttp and the transport report.

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
        self._wire = wire
        self._enter(TIMED[self.state])

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the record, whatever aiohttp's own cleaning up does."""
        try:
            self.happened(Event.LOST)
            self._wire = self._request = None
            self._ended(self._reason or (ConnectionEnd.CLOSED if exc is None else ConnectionEnd.ERROR))
        finally:
            super().connection_lost(exc)

    async def start(self) -> None:
        """Serve requests until there is no next one; then the client has only to read, and to close."""
        try:
            await super().start()
        finally:
            self.happened(Event.SERVED)

    def data_received(self, data: bytes) -> None:
        """Note where a request begins and where its body ends, and let aiohttp parse."""
        if self._is_body_unfinished():
            super().data_received(data)
            self._progress.received(len(data))
            is_whole = not self._is_body_unfinished()
            has_next = self._pipeline.receive_body(data, is_whole=is_whole)
            if is_whole:
                self.happened(Event.BODY_END)
        else:
            has_next = self._pipeline.receive(data)
            super().data_received(data)
        if has_next and self._is_between_requests():
            self._record.begin()
            self.happened(Event.BYTES)

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        super().pause_writing()
        self.happened(Event.BUFFER_FULL)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self.happened(Event.BUFFER_LOW_IN_BODY if self._is_body_unfinished() else Event.BUFFER_LOW)

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
        self._record.end()
        if self._request is not request:  # answered before there was a handler: an expectation that failed
            self._claim(request)
        self._body_was_late = False
        if not self._is_body_unfinished():
            self._request = None
        if not written.keep_alive:
            self.happened(Event.ANSWERED_LAST)
        else:
            self.happened(Event.ANSWERED_PIPELINED if self._pipeline.waiting else Event.ANSWERED)
        return written, gone

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a client's mistake in a line, without a traceback per attempt in our log."""
        if isinstance(exc, ConnectionError) and (self._wire is None or self._wire.is_closing()):
            raise exc  # the client left while it was answered: there is nothing to send or to log
        status = responses.status_of(status, exc, body_was_late=self._body_was_late)
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

    # What the middleware and the manager of all connections say and ask.

    def matched(self, request: web.Request, route: str | None, *, is_logged: bool) -> None:
        """The head of a request is complete and belongs to `route`; None when no route matched.

        Args:
            is_logged: whether the request log is to hold it.
        """
        self._request = request
        self._record.matched(route, is_logged=is_logged)
        self._claim(request)
        self.happened(Event.REQUEST_WITH_BODY if self._is_body_unfinished() else Event.REQUEST)

    def is_wanted(self) -> bool:
        """Whether the client is still there to read an answer."""
        return self._wire is not None and not tcp.peer_closed(self._sock)

    def has_pending_response(self) -> bool:
        """Whether the client has more to expect than the end of the connection."""
        return self._wire is not None and self.state in PENDING

    def close_after_response(self) -> None:
        """Let the next response be the last one."""
        self._closes_after_response = True

    def drain(self) -> None:
        """End this connection without losing a request: after its answer, or once none can be on its way.

        aiohttp's own `close()` stops reading: a request of which half has arrived would hang.
        """
        self._closes_after_response = True
        self.happened(Event.DRAIN)

    def expire(self) -> None:
        """The deadline has passed: give the client another one if it did enough meanwhile, else act."""
        if self._wire is not None and self._progress.is_enough(self.stage, self._wire):
            self._enter(self.stage)
        elif self.stage is Stage.LEAVE and self._progress.has_unread():
            self.happened(Event.UNREAD)
        else:
            self.happened(Event.LATE)

    def happened(self, event: Event) -> None:
        """Take the step that follows from `event`."""
        step = TABLE[self.state][event]
        if step.state is not self.state:
            self.state = step.state
            if (stage := TIMED[step.state]) is not self.stage:
                self._enter(stage)
        if step.action is not Action.NOTHING and self._wire is not None:
            self._reason = self._reason or step.reason
            self._carry_out(step, self._wire)

    # How it is done.

    def _enter(self, stage: Stage | None) -> None:
        self._deadlines.enter(self, stage)
        self._progress.begin(stage)

    def _carry_out(self, step: Step, wire: asyncio.Transport) -> None:
        match step.action:
            case Action.CLOSE:
                wire.close()
            case Action.ABORT:
                wire.abort()
            case Action.RESET:
                tcp.close_with_reset(self._sock)
                wire.abort()  # close() would wait for this client
            case Action.ANSWER_408:
                wire.write(responses.TOO_SLOW)
                self._record.cut_off("OTHER", HTTPStatus.REQUEST_TIMEOUT)
                wire.close()
            case Action.ANSWER_503:
                self._apologise(wire)
            case Action.FAIL_BODY if self._request is not None:
                self._body_was_late = True
                self._request.content.set_exception(TimeoutError("the body came too slowly"))

    def _apologise(self, wire: asyncio.Transport) -> None:
        if self._request is None or self._request.writer.output_size:
            wire.abort()
            return
        wire.write(responses.SHUT_DOWN)
        self._record.cut_off(self._request.method, HTTPStatus.SERVICE_UNAVAILABLE)
        wire.close()

    def _claim(self, request: web.BaseRequest) -> None:
        body: int | None = 0
        if request.body_exists:
            body = None if hdrs.TRANSFER_ENCODING in request.headers else request.content_length
        self._pipeline.claim(body=body, is_whole=request.content.is_eof())

    def _is_last(self) -> bool:
        """Whether this connection ends with its answer: in a drain, or when others wait for its place."""
        return self._closes_after_response or self._connection_limit.at_capacity

    def _is_between_requests(self) -> bool:
        return self.state in (State.FRESH, State.IDLE, State.ARRIVING)

    def _is_body_unfinished(self) -> bool:
        return self._request is not None and not self._request.content.is_eof()
