"""Routes and handlers: what a client asks for, and what it is told when it cannot have it.

Knows aiohttp and offload.py. Knows no socket and no process. Answers are counted by the protocol
(protocol.py), tasks by the offload; only what is refused before there is a protocol is counted here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import ParamSpec, TypeVar

import structlog
from aiohttp import web

from metrics.instruments import Metrics
from service.binding import Binding, QueryError
from service.offload import (
    ExpiredError,
    Offload,
    OffloadError,
    RejectedError,
    UnwantedError,
    WorkError,
)
from service.protocol import Protocol, tell_protocol
from service.work import body

log = structlog.get_logger("offloop.app")
T = TypeVar("T")
P = ParamSpec("P")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ready = Callable[[], tuple[bool, str]]
Factory = Callable[["Offloader"], web.Application]

CLIENT_CLOSED_REQUEST = 499  # nginx's: nobody reads it, but the metrics say what became of the request


class Offloader:
    """What handlers call, `await offload(request, function, *args)`, and what the door asks (refusal.py).

    Args:
        deadline: seconds that a request may take at most.
    """

    def __init__(self, offload: Offload, deadline: float, metrics: Metrics) -> None:
        self._offload = offload
        self._deadline = deadline
        self._metrics = metrics
        self.always: set[str] = set()
        """Paths whose every request needs a worker: those may be refused before they are parsed."""

    def is_crowded(self) -> bool:
        """Whether requests wait that no worker has yet."""
        return self._offload.is_crowded()

    def refusal(self) -> int | None:
        """Seconds after which to come again, if a request that came now could not be admitted."""
        return self._offload.refusal(self._deadline)

    def expect(self) -> None:
        """A request that could be admitted is on its way."""
        self._offload.expect()

    def reject(self, path: str) -> None:
        """Count a request that was refused at the door."""
        self._offload.reject()
        self._metrics.request("GET", path, HTTPStatus.SERVICE_UNAVAILABLE, 0.0)

    async def __call__(
        self, request: web.Request, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(*args, **kwargs)` on a worker, for this request and no longer than it lasts.

        Arguments and result are pickled. What goes wrong comes as an `OffloadError`, which the chassis
        answers with 503, 504 or 500 unless the handler does; there is nothing to clean up.
        """
        protocol = request.protocol
        return await self._offload.submit(
            functools.partial(function, **kwargs) if kwargs else function,
            *args,
            deadline=self._deadline_of(request),
            is_wanted=protocol.is_wanted if isinstance(protocol, Protocol) else None,
        )

    def _deadline_of(self, request: web.Request) -> float:
        said = request.headers.get("Request-Timeout")
        if said is None:
            return self._deadline
        try:
            seconds = float(said)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise web.HTTPBadRequest(text="Request-Timeout is not a number of seconds above 0\n")
        return min(seconds, self._deadline)


def data_app(offload: Offloader, work: Binding) -> web.Application:
    """The application of the experiment: GET /data runs `work`."""

    async def data(request: web.Request) -> web.Response:
        try:
            arguments = work.arguments(request.query)
        except QueryError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        answer = await offload(request, body, work.function, arguments)
        return web.Response(body=answer, content_type="application/json", charset="utf-8")

    app = web.Application()
    app.router.add_get("/data", data)
    offload.always.add("/data")
    return app


def complete(app: web.Application, ready: Ready) -> web.Application:
    """Add to an application what the chassis promises: health, and an answer for every failure.

    Health is served here as well as on the admin port because a balancer should judge the service by
    what its clients get: an answer from the loop itself.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        is_ready, why = ready()
        return web.Response(text=f"{why}\n", status=200 if is_ready else 503)

    for path, handler in (("/healthz", healthz), ("/readyz", readyz)):
        app.router.add_get(path, handler)
    app.middlewares[:0] = [tell_protocol, _answer_failures]
    return app


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OffloadError as error:
        return failure(error)


def failure(error: OffloadError) -> web.Response:
    """The answer for work without a result: no internals in it, the traceback goes to the log."""
    if isinstance(error, RejectedError):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(error.retry_after)})
    if isinstance(error, ExpiredError):
        return _error(HTTPStatus.GATEWAY_TIMEOUT)
    if isinstance(error, UnwantedError):
        gone = web.Response(status=CLIENT_CLOSED_REQUEST, reason="Client Closed Request")
        gone.force_close()
        return gone
    if isinstance(error, WorkError):
        log.error("work failed", error=error.summary, traceback=error.details)
    else:
        log.error("no answer from the work", error=repr(error))
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _error(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{status.phrase}\n", headers=headers)
