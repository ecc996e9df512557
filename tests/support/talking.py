"""An application whose connections last: a WebSocket and an event stream, which end when it is told to."""

from __future__ import annotations

import asyncio
import weakref
from typing import ClassVar

from aiohttp import WSCloseCode, web


class Talking:
    """What one such application was told, and what a test holds back. `last` is the one made last."""

    last: ClassVar[Talking]

    def __init__(self) -> None:
        self.told: list[str] = []
        """`shutdown` and `cleanup`, each when it was sent."""
        self.may_end = asyncio.Event()
        """Unless it is set, `on_shutdown` waits for it once it has told everybody."""
        self.may_end.set()
        self.may_answer = asyncio.Event()
        """What the handler of /plain waits for."""
        self.failure: BaseException | None = None
        """What both signals raise after all else."""
        self.heeds_cancel = True
        """Whether `on_shutdown` ends when it is cut off."""
        self.sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()
        self._over = asyncio.Event()
        Talking.last = self

    def application(self) -> web.Application:
        """Its routes, and its two signals."""
        app = web.Application()
        app.router.add_get("/socket", self._socket)
        app.router.add_get("/stream", self._stream)
        app.router.add_get("/plain", self._plain)
        app.router.add_get("/stubborn", self._stubborn)
        app.on_shutdown.append(self._shutdown)
        app.on_cleanup.append(self._cleanup)
        return app

    async def _shutdown(self, _: web.Application) -> None:
        self.told.append("shutdown")
        self._over.set()
        await asyncio.gather(*(ws.close(code=WSCloseCode.GOING_AWAY) for ws in set(self.sockets)))
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                if self.heeds_cancel:
                    raise
        if self.failure is not None:
            raise self.failure

    async def _cleanup(self, _: web.Application) -> None:
        self.told.append("cleanup")
        if self.failure is not None:
            raise self.failure

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.add(ws)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: hello\n\n")
        await self._over.wait()
        await response.write(b"data: goodbye\n\n")
        return response

    async def _plain(self, _: web.Request) -> web.Response:
        await self.may_answer.wait()
        return web.Response(text="plain")

    async def _stubborn(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        return ws  # when its client has left, and not before


def application(_: object) -> web.Application:
    """The factory for `--app`."""
    return Talking().application()
