"""Drives one connection through the table of exchange.py, and carries out what each step asks for.

Knows the transport, the socket and the request that a handler has. Parses nothing (protocol.py) and decides
nothing: which step follows is in the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from http import HTTPStatus

from aiohttp import web

from metrics.instruments import ConnectionEnd
from service.net import tcp
from service.offload.classes import Place
from service.web import responses
from service.web.deadlines import Deadlines, Stage
from service.web.exchange import PENDING, TABLE, TIMED, Action, Event, State
from service.web.request_log import RequestRecord

SLOWEST_BYTES_PER_SECOND = 500
"""The least average rate of a body, or of an answer being read, over one deadline (mod_reqtimeout's MinRate).
A deadline for the whole would cut off honest uploads, one between two bytes would let a client drip for ever.
"""

MEASURED = frozenset({Stage.BODY, Stage.WRITE})
"""Where a client that does enough gets another deadline."""


class Driver:
    """The state of one connection, from accept on.

    Args:
        sock: the connection's socket; the transport owns it, here it is asked about the client.
        record: is told of the responses that are written here.
    """

    __slots__ = (
        "_deadlines",
        "_moved",
        "_record",
        "_sock",
        "arrived",
        "began",
        "body_was_late",
        "closes_after_response",
        "place",
        "reason",
        "request",
        "stage",
        "state",
        "wire",
    )

    def __init__(self, sock: socket.socket, deadlines: Deadlines[Driver], record: RequestRecord) -> None:
        self.state = State.FRESH
        self.stage: Stage | None = None  # set by the deadlines alone
        self.wire: asyncio.Transport | None = None
        """From `connected` until the connection is lost. aiohttp forgets its own when it closes."""
        self.began = 0.0
        """When the request began whose body is to come, by the deadlines' clock; later by the time in which
        we did not read it."""
        self.request: web.Request | None = None
        """The request that a handler has, or that is answered while part of its body is still to come."""
        self.body_was_late = False
        """Whether the handler got an exception for that."""
        self.closes_after_response = False
        """Whether the next response is the last one."""
        self.arrived: float | None = None
        """When the present request came, by `time.monotonic()`, if it lay unread in the kernel at accept."""
        self.place: Place | None = None
        """The place in the queue that is kept for the present request, until it is answered."""
        self.reason: ConnectionEnd | None = None
        """Why we ended the connection; None if we did not, or for no reason that is counted apart."""
        self._sock = sock
        self._deadlines = deadlines
        self._moved = 0  # bytes: of a body since BODY began; acknowledged when WRITE began
        self._record = record

    def connected(self, wire: asyncio.Transport) -> None:
        """The transport is there: the first deadline begins."""
        self.wire = wire
        self._deadlines.enter(self, TIMED[self.state])

    def happened(self, event: Event) -> None:
        """Take the step that follows from `event`."""
        state, action, reason = TABLE[self.state][event]
        if state is not self.state:
            self.state = state
            stage = TIMED[state]
            if stage is not self.stage:
                self._deadlines.enter(self, stage)
                if stage in MEASURED:
                    self._measure()
        if action is not Action.NOTHING and self.wire is not None:
            self.reason = self.reason or reason
            self._carry_out(action, self.wire)

    def received_body(self, count: int) -> None:
        """So many bytes of a body have come, whether or not a deadline asks for them."""
        if self.stage is Stage.BODY:
            self._moved += count

    def awaits_body(self) -> None:
        """A request has come whose body has not: the time for all of it began with its head."""
        self.began = self._deadlines.since(self)

    def evict(self) -> None:
        """End the connection for others that wait; see exchange.py for those that stay."""
        self.closes_after_response = True  # if a handler has the request, its answer is the last
        self.happened(Event.EVICT)

    def received(self) -> int:
        """Bytes of the present request's body that have come."""
        return self.request.content.total_bytes if self.request is not None else 0

    def is_listening(self) -> bool:
        """Whether we read: else nothing can come, and the handler is slower than the client."""
        return self.wire is not None and self.wire.is_reading()

    def rate(self) -> float:
        """Bytes per second of its body that the client has sent; infinite if we do not read them."""
        if self.stage is Stage.BODY and not self.is_listening():
            return math.inf
        return self.received() / max(self._deadlines.now - self.began, 1e-3)

    def drain(self) -> None:
        """End the connection without losing a request: after its answer, or once none can be on its way.

        aiohttp's own `close()` stops reading: a request of which half has arrived would hang.
        """
        self.closes_after_response = True
        self.happened(Event.DRAIN)

    def expire(self) -> None:
        """The deadline has passed: give the client another one if it did enough meanwhile, else act."""
        if self.stage is Stage.LEAVE and tcp.unacknowledged(self._sock):
            self.happened(Event.UNREAD)
        elif self.state is State.FLUSHING and self._has_read_all():
            self.happened(Event.ALL_READ)
        elif self._did_enough():
            self._deadlines.enter(self, self.stage)
            self._measure()
        else:
            self.happened(Event.LATE)

    def is_wanted(self) -> bool:
        """Whether the client is still there to read an answer."""
        return self.wire is not None and not tcp.peer_closed(self._sock)

    def is_body_unfinished(self) -> bool:
        """Whether part of the present request's body is still to come."""
        return self.request is not None and not self.request.content.is_eof()

    def has_pending_response(self) -> bool:
        """Whether the client has more to expect than the end of the connection."""
        return self.wire is not None and self.state in PENDING

    def _measure(self) -> None:
        """Begin to measure what the client does within the deadline that has begun."""
        self._moved = (tcp.acknowledged(self._sock) or 0) if self.stage is Stage.WRITE else 0

    def _did_enough(self) -> bool:
        """Whether the client did enough since the deadline began, or had nothing to do."""
        if self.stage is Stage.BODY:
            return not self.is_listening() or self._moved >= self._least(Stage.BODY)
        if self.stage is Stage.WRITE:
            if self._has_read_all():
                return True  # what produces the rest of the answer is slow
            acknowledged = tcp.acknowledged(self._sock)
            return acknowledged is not None and acknowledged - self._moved >= self._least(Stage.WRITE)
        return False

    def _has_read_all(self) -> bool:
        """Whether the client has read whatever was written so far."""
        is_buffered = self.wire is not None and self.wire.get_write_buffer_size()
        return not is_buffered and not tcp.unacknowledged(self._sock)

    def _least(self, stage: Stage) -> float:
        return SLOWEST_BYTES_PER_SECOND * self._deadlines.seconds[stage]

    def _carry_out(self, action: Action, wire: asyncio.Transport) -> None:
        match action:
            case Action.CLOSE:
                wire.close()
            case Action.ABORT:
                wire.abort()
            case Action.RESET:
                tcp.close_with_reset(self._sock)
                wire.abort()  # close() would wait for this client
            case Action.RESET_FILE:
                # Aborted in the middle of a sendfile, asyncio's transport logs an InvalidStateError. So the
                # sendfile fails first, and the handler's end closes the connection.
                tcp.close_with_reset(self._sock)
                with contextlib.suppress(OSError):  # not connected any more
                    self._sock.shutdown(socket.SHUT_RDWR)
            case Action.ANSWER_408:
                self._answer_no_request(wire, HTTPStatus.REQUEST_TIMEOUT)
            case Action.ANSWER_431:
                self._answer_no_request(wire, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            case Action.ANSWER_503:
                self._answer_503(wire)
            case Action.FAIL_BODY if self.request is not None:
                self.body_was_late = True
                self.request.content.set_exception(TimeoutError("the body came too slowly"))

    def _answer_no_request(self, wire: asyncio.Transport, status: HTTPStatus) -> None:
        wire.write(responses.plain(status))
        self._record.cut_off("OTHER", status)
        wire.close()

    def _answer_503(self, wire: asyncio.Transport) -> None:
        if self.request is None or self.request.writer.output_size:
            wire.abort()  # an answer has begun: there is no place for another
            return
        wire.write(responses.plain(HTTPStatus.SERVICE_UNAVAILABLE))
        self._record.cut_off(self.request.method, HTTPStatus.SERVICE_UNAVAILABLE)
        wire.close()
