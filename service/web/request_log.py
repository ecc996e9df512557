"""What metrics and request log say of a request: which are logged, what a line says, how long it took.

Knows identities, the metrics and aiohttp's request and response. Both are written in one place, so that they
say the same. What is answered before there is a request has no line, but is counted: an early reject, a 400
for what is not HTTP, a 408 for half a head.
"""

from __future__ import annotations

import time
import zlib
from http import HTTPStatus

import structlog
from aiohttp import web

from metrics.instruments import Metrics
from service.web.identity import trace_id

log = structlog.get_logger("offloop.request")

LONGEST_PATH = 200
LONGEST_METHOD = 16


def is_logged(share: float, request_id: str, traceparent: str | None) -> bool:
    """Whether the request is among the `share` that is logged: 0 none, 1 all.

    The request's names decide, not chance: so all services that a request passes through log it or none does,
    and a larger share holds all that a smaller one does. In a trace it is OpenTelemetry's rule for consistent
    sampling, by the last 56 bits of the trace id (random, says W3C Trace Context, level 2), so that tracers
    with the same share choose the same requests.

    The `sampled` flag of `traceparent` does not decide. Any client can set it, and one that sets it on every
    request would switch the whole log on: the specification itself warns of that (Security considerations).
    The line shows it, so that the spans can be found.
    """
    if traceparent is None:
        point = zlib.crc32(request_id.encode()) / 2**32
    else:
        point = int(trace_id(traceparent)[-14:], 16) / 2**56
    return point >= 1 - share


class RequestRecord:
    """One request after another on a connection, each from its arrival to its answer."""

    __slots__ = ("_metrics", "is_logged", "route", "since")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.since = time.monotonic()
        """When the request came, by `time.monotonic()`: its first byte, as far as is known; of a pipelined
        one, the answer before it."""
        self.route: str | None = None
        """None as long as no route has matched."""
        self.is_logged = False

    def answered(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """A response was written; a pipelined request begins now."""
        now = time.monotonic()
        self._metrics.request(request.method, self.route, response.status, now - self.since)
        if self.is_logged:
            _write(request, self.route, response, now - self.since)
        self.since, self.route, self.is_logged = now, None, False

    def cut_off(self, method: str, status: HTTPStatus) -> None:
        """A response was written without aiohttp."""
        self._metrics.request(method, self.route, status, time.monotonic() - self.since)


def _write(request: web.BaseRequest, route: str | None, response: web.StreamResponse, seconds: float) -> None:
    """Log one request; the ids come from the context.

    Never the query, which may hold secrets, and of the path the route's template where one matched. `client`
    is the peer of the connection: behind a balancer that is the balancer, since `X-Forwarded-For` says what
    the client wants it to say.
    """
    target = {"route": route} if route else {"path": request.rel_url.raw_path[:LONGEST_PATH]}
    log.info(
        "request",
        method=request.method[:LONGEST_METHOD],
        **target,
        status=response.status,
        seconds=round(seconds, 6),
        bytes=request.writer.output_size,  # with its head
        client=request.remote,
    )
