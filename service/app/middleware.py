"""What the service adds to every application: request ids, health, a response for every failure.

Knows aiohttp and the errors of the offload. Knows no socket and no process. The protocol counts responses
(web/protocol.py), the offload counts tasks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from structlog.contextvars import bind_contextvars

from metrics.instruments import Metrics
from service.log.setup import bound
from service.offload.errors import (
    ExpiredError,
    OffloadError,
    QuarantinedError,
    RejectedError,
    TooLargeError,
    UnwantedError,
    WorkError,
)
from service.web.exchange import Event
from service.web.identity import (
    REQUEST_ID,
    REQUEST_ID_HEADER,
    SERVER,
    TRACEPARENT,
    TRACEPARENT_HEADER,
    request_id,
    traceparent,
)
from service.web.protocol import Protocol
from service.web.request_log import is_logged
from service.web.responses import Spread

log = structlog.get_logger("offloop.app")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ready = Callable[[], tuple[bool, str]]

_spread = Spread()

CLIENT_CLOSED_REQUEST = 499
"""As in nginx: no client reads it, but the metrics tell what became of the request."""


def complete(
    app: web.Application, ready: Ready, metrics: Metrics, request_log: float = 0.0
) -> web.Application:
    """Add to an application what the service promises: request ids, health, a response for every failure.

    Health is served here as well as on the admin port, so that a balancer judges the service by what clients
    get: a response from the event loop itself.

    Args:
        ready: readiness and its reason, for /readyz.
        metrics: counts the requests in flight.
        request_log: share of requests to log, from 0 to 1.

    Returns:
        The same application.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        is_ready, why = ready()
        return web.Response(text=f"{why}\n", status=200 if is_ready else 503)

    for path, handler in (("/healthz", healthz), ("/readyz", readyz)):
        app.router.add_get(path, handler)
    app.middlewares[:0] = [_announce(metrics, request_log), _answer_failures]
    app.on_response_prepare.append(_sign)
    return app


def _announce(metrics: Metrics, request_log: float) -> Middleware:
    bound_id = bound("request_id")

    @web.middleware
    async def announce(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request its id, for its handler and for every line that it logs, and tell its connection
        which route it has matched: a middleware is the first to see the whole request.

        Nothing has to be unbound, because aiohttp runs each request in a task, whose context ends with it.
        """
        headers = request.headers
        name = request[REQUEST_ID] = request_id(headers.get(REQUEST_ID_HEADER))
        bound_id.set(name)
        sent = headers.getall(TRACEPARENT_HEADER, ())
        trace = traceparent(sent) if sent else None
        if trace is not None:
            request[TRACEPARENT] = trace
            bind_contextvars(traceparent=trace)
        if isinstance(request.protocol, Protocol):
            resource = request.match_info.route.resource
            logged = request_log > 0 and is_logged(request_log, name, trace)
            request.protocol.matched(request, resource.canonical if resource else None, is_logged=logged)
        metrics.requests_in_flight += 1
        try:
            return await handler(request)
        finally:
            metrics.requests_in_flight -= 1

    return announce


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(response, web.FileResponse) and isinstance(request.protocol, Protocol):
        request.protocol.driver.happened(Event.FILE)
    headers = response.headers
    headers[hdrs.SERVER] = SERVER
    name = request.get(REQUEST_ID)
    if name is not None:  # None: an Expect header that failed, before any middleware
        headers[REQUEST_ID_HEADER] = name


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OffloadError as error:
        return failure(error)


def failure(error: OffloadError) -> web.Response:
    """The response for a task without a result. It holds no internals; the traceback goes to the log.

    503 with Retry-After if the task was rejected, 413 if its arguments never fit, 504 if it missed its
    deadline, 499 and a closed connection if the client has gone, 500 otherwise.
    """
    if isinstance(error, RejectedError):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(_spread(error.retry_after))})
    if isinstance(error, TooLargeError):
        return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if isinstance(error, ExpiredError):
        return _error(HTTPStatus.GATEWAY_TIMEOUT)
    if isinstance(error, UnwantedError):
        gone = web.Response(status=CLIENT_CLOSED_REQUEST, reason="Client Closed Request")
        gone.force_close()
        return gone
    if isinstance(error, WorkError):
        log.error("work failed", error=error.summary, traceback=error.details)
    elif not isinstance(error, QuarantinedError):  # the quarantine has its own line, one for all of these
        log.error("no answer from the work", error=repr(error))
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _error(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{status.phrase}\n", headers=headers)
