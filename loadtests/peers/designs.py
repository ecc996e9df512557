"""The usual designs with which offloop is compared, each as its own documentation shows it.

All answer `/data` with the same work and `/healthz` with a word. The work is given by name, so that nothing
here imports the service. The one that is no Python is in hyper/, see cargo.py.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_IN_FLIGHT = 64
"""Of the bounded designs: a round number, as is often chosen."""

Work = Callable[[int], bytes]
Handler = Callable[[web.Request], Awaitable[web.Response]]


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
    return _with_pool(_routes(_in_pool(work, units)), lambda: ProcessPoolExecutor(workers))


def bounded(work: Work, units: int, workers: int) -> web.Application:
    """The same with at most `MOST_IN_FLIGHT` requests; handlers of disconnected clients are cancelled."""
    return _with_pool(_routes(_bounded(_in_pool(work, units))), lambda: ProcessPoolExecutor(workers))


def loky(work: Work, units: int, workers: int) -> web.Application:
    """The bounded one with loky's pool; its reusable one ends workers that are idle for 10 s."""
    from loky import ProcessPoolExecutor as Loky  # in an extra of its own

    return _with_pool(_routes(_bounded(_in_pool(work, units))), lambda: Loky(workers))


def anyio(work: Work, units: int, workers: int, *, most_64: bool) -> web.Application:
    """aiohttp and anyio.to_process: at most `workers` processes, for which any number of requests waits.

    A client that leaves no longer waits, and the process that works for it is killed ("cancellable"). As its
    documentation shows it, or with the bound of the others.
    """
    from anyio import CapacityLimiter, to_process  # in an extra of its own

    limiter = CapacityLimiter(workers)

    async def call() -> bytes:
        return await to_process.run_sync(work, units, cancellable=True, limiter=limiter)

    async def data(_: web.Request) -> web.Response:
        return web.Response(body=await call(), content_type="application/json")

    async def start(_: web.Application) -> None:  # all processes, as those of the pools are: not under load
        await asyncio.gather(*(call() for _ in range(workers)))

    app = _routes(_bounded(data) if most_64 else data)
    app.on_startup.append(start)
    return app


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


POOL: web.AppKey[Executor] = web.AppKey("pool", Executor)


def _routes(data: Handler) -> web.Application:
    app = web.Application()
    app.router.add_get("/data", data)
    app.router.add_get("/healthz", healthz)
    return app


def _in_pool(work: Work, units: int) -> Handler:
    async def data(request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(request.app[POOL], work, units)
        return web.Response(body=body, content_type="application/json")

    return data


def _bounded(handler: Handler) -> Handler:
    in_flight = 0

    async def data(request: web.Request) -> web.Response:
        nonlocal in_flight
        if in_flight >= MOST_IN_FLIGHT:
            return web.Response(status=503, headers={"Retry-After": "1"})
        in_flight += 1
        try:
            return await handler(request)
        finally:
            in_flight -= 1

    return data


def _with_pool(app: web.Application, make: Callable[[], Executor]) -> web.Application:
    async def run(app: web.Application) -> AsyncIterator[None]:
        with make() as executor:
            app[POOL] = executor
            yield

    app.cleanup_ctx.append(run)
    return app
