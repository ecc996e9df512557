"""The application of the experiment: `GET /data` runs the work that the settings name.

Knows the offloader, and how a query becomes arguments.
"""

from __future__ import annotations

from aiohttp import web

from service.app.offloader import ALWAYS_OFFLOADED, Offloader
from service.app.query import Binding, QueryError
from service.work import body


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
    app[ALWAYS_OFFLOADED] = frozenset({"/data"})
    return app
