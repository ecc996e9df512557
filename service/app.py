"""Routes and handlers: what a client asks for, and what it is told when it cannot have it.

Knows aiohttp and the one `submit` of offload.py. Knows no socket, no process and no metric: answers
are counted by the protocol (protocol.py), tasks by offload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from service.offload import ExpiredError, Offload, RejectedError, WorkError
from service.protocol import tell_protocol
from service.work import Work

log = structlog.get_logger("offloop.app")

Ready = Callable[[], tuple[bool, str]]


def build(offload: Offload, work: Work, units: int, ready: Ready) -> web.Application:
    """The application: GET /data runs `units` of `work`; /healthz and /readyz answer from the loop.

    Health is served here as well as on the admin port because a balancer should judge the service by
    what its clients get: an answer from the loop itself.
    """

    async def data(_: web.Request) -> web.Response:
        try:
            answer = await offload.submit(work, units)
        except Exception as error:
            return failure(error)
        body = answer if isinstance(answer, bytes) else answer.encode()
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        is_ready, why = ready()
        return web.Response(text=f"{why}\n", status=200 if is_ready else 503)

    app = web.Application(middlewares=[tell_protocol])
    routes: tuple[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ...] = (
        ("/data", data),
        ("/healthz", healthz),
        ("/readyz", readyz),
    )
    for path, handler in routes:
        app.router.add_get(path, handler)
    return app


def failure(error: Exception) -> web.Response:
    """The answer for work without a result: no internals in it, the traceback goes to the log."""
    if isinstance(error, RejectedError):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
    if isinstance(error, ExpiredError):
        return _error(HTTPStatus.GATEWAY_TIMEOUT)
    if isinstance(error, WorkError):
        log.error("work failed", error=error.summary, traceback=error.details)
    else:
        log.error("no answer from the work", error=repr(error))
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _error(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{status.phrase}\n", headers=headers)
