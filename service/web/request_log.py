"""The request log: which requests it holds, and what a line of it says.

Knows identities and aiohttp's request and answer. The protocol (web/protocol.py) calls it where it counts the
answer, so that log and metrics tell the same story. What is answered before there is a request has no line: a
refusal at the door, a 400 for what is not HTTP, a 408 for half a head. They are counted.
"""

from __future__ import annotations

import zlib

import structlog
from aiohttp import web

from service.web.identity import trace_id

log = structlog.get_logger("offloop.request")

LONGEST_PATH = 200
LONGEST_METHOD = 16


def is_logged(share: float, request_id: str, traceparent: str | None) -> bool:
    """Whether the request is among the `share` that is logged: 0 none, 1 all.

    Its names decide and no dice, so that all services a request passes through log it or none does, and a
    larger share holds all that a smaller one does. In a trace it is OpenTelemetry's rule for consistent
    sampling, by the last 56 bits of the trace id (random, says W3C Trace Context, level 2), so that tracers
    with the same share choose the same requests.

    The `sampled` flag of `traceparent` is not asked. Anybody can set it, and a client that sets it on every
    request would switch the whole log on: the specification itself warns of that (Security considerations).
    It stands in the line, for whoever looks for the spans.
    """
    if traceparent is None:
        point = zlib.crc32(request_id.encode()) / 2**32
    else:
        point = int(trace_id(traceparent)[-14:], 16) / 2**56
    return point >= 1 - share


def write(request: web.BaseRequest, route: str | None, answer: web.StreamResponse, seconds: float) -> None:
    """Log one answered request; the ids come from the context.

    Never the query, which may hold secrets, and of the path the route's template where one matched. `client`
    is the peer of the connection: behind a balancer that is the balancer, since `X-Forwarded-For` says what
    the client wants it to say.
    """
    target = {"route": route} if route else {"path": request.rel_url.raw_path[:LONGEST_PATH]}
    log.info(
        "request",
        method=request.method[:LONGEST_METHOD],
        **target,
        status=answer.status,
        seconds=round(seconds, 6),
        bytes=request.writer.output_size,  # with its head
        client=request.remote,
    )
