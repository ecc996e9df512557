"""The application of the experiment: `GET /data` runs the work function that the settings name.

`GET /openapi.json` describes it. Knows the offloader, and how a query becomes arguments.
"""

from __future__ import annotations

from aiohttp import web

from service.app.offloader import Offloader
from service.app.openapi import described
from service.app.query import Binding, QueryError
from service.work import body


def data_app(offload: Offloader, work: Binding) -> web.Application:
    """An application whose route GET /data calls `work` with the arguments in its query.

    The response is what `body` makes of the result. A query that does not fit is answered 400.
    """

    async def data(request: web.Request) -> web.Response:
        try:
            arguments = work.arguments(request.query)
        except QueryError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        answer = await offload(request, body, work.function, arguments)
        return web.Response(body=answer, content_type="application/json", charset="utf-8")

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(document)

    document = described(work)
    app = web.Application()
    app.router.add_get("/data", data)
    app.router.add_get("/openapi.json", openapi)
    offload.always.add("/data")
    return app
