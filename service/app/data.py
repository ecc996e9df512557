"""The application of the experiment: `GET /data` runs the work function that the settings name.

Knows the offloader, and how a query becomes arguments.
"""

from __future__ import annotations

from aiohttp import web

from service.app.offloader import Offloader
from service.app.query import Binding, QueryError
from service.work import body


def data_app(offload: Offloader, work: Binding) -> web.Application:
    """An application whose only route, GET /data, calls `work` with the arguments in its query.

    The response is what `body` makes of the result. A query that does not fit is answered 400.
    """

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
