"""The usual designs with which offloop is compared, each as its own documentation shows it.

All answer `/data` with the same work and `/healthz` with a word. The work is given by name, so that nothing
here imports the service.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_IN_FLIGHT = 64
"""Of the bounded design: a round number, as is often chosen."""

Work = Callable[[int], bytes]


def work_of(name: str) -> Work:
    """The function that `package.module:name` names."""
    module, _, attribute = name.partition(":")
    function: Work = getattr(importlib.import_module(module), attribute)
    return function


async def healthz(_: web.Request) -> web.Response:
    """The trivial route."""
    return web.Response(text="ok\n")


def inline(work: Work, units: int) -> web.Application:
    """aiohttp with the work in the handler."""

    async def data(_: web.Request) -> web.Response:
        return web.Response(body=work(units), content_type="application/json")

    return _routes(data)


def pool(work: Work, units: int, workers: int) -> web.Application:
    """aiohttp and a ProcessPoolExecutor: asyncio's documentation of run_in_executor."""

    async def data(request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(request.app[POOL], work, units)
        return web.Response(body=body, content_type="application/json")

    return _with_pool(_routes(data), workers)


def bounded(work: Work, units: int, workers: int) -> web.Application:
    """The same with at most `MOST_IN_FLIGHT` requests; handlers of disconnected clients are cancelled."""
    in_flight = 0

    async def data(request: web.Request) -> web.Response:
        nonlocal in_flight
        if in_flight >= MOST_IN_FLIGHT:
            return web.Response(status=503, headers={"Retry-After": "1"})
        in_flight += 1
        try:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(request.app[POOL], work, units)
        finally:
            in_flight -= 1
        return web.Response(body=body, content_type="application/json")

    return _with_pool(_routes(data), workers)


def fastapi(work: Work, units: int) -> FastAPI:
    """A plain `def`, which FastAPI runs in its thread pool: its documentation on concurrency."""
    from fastapi import FastAPI, Response  # half a second that the other designs should not wait

    app = FastAPI()

    @app.get("/data")
    def data() -> Response:
        return Response(work(units), media_type="application/json")

    @app.get("/healthz")
    def health() -> str:
        return "ok"

    return app


def wsgi(name: str, units: int) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """A WSGI application for gunicorn's synchronous workers."""
    work = work_of(name)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = work(units) if environ["PATH_INFO"] == "/data" else b"ok\n"
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


POOL: web.AppKey[ProcessPoolExecutor] = web.AppKey("pool", ProcessPoolExecutor)


def _routes(data: Callable[[web.Request], Any]) -> web.Application:
    app = web.Application()
    app.router.add_get("/data", data)
    app.router.add_get("/healthz", healthz)
    return app


def _with_pool(app: web.Application, workers: int) -> web.Application:
    async def run(app: web.Application, workers: int) -> AsyncIterator[None]:
        with ProcessPoolExecutor(workers) as executor:
            app[POOL] = executor
            yield

    app.cleanup_ctx.append(functools.partial(run, workers=workers))
    return app
