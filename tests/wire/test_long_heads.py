"""The cap on a whole head: 431 while it comes, and nobody else is taken for one that is too long."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.web.pipeline import LONGEST_HEAD
from tests.support.running import Routes, Running, Start

GET = b"GET /data HTTP/1.1\r\nHost: t\r\n"
LAST = b"Connection: close\r\n\r\n"
FIELD = b"X: " + b"y" * 8000 + b"\r\n"
ENOUGH = LONGEST_HEAD // len(FIELD) + 1  # fields for a head that is too long


async def length(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(await request.read())} bytes\n")


async def answers(service: Running, packets: list[bytes], sent: asyncio.Event | None = None) -> bytes:
    """What comes back for these packets: each is read by itself, or nearly; `sent` is set after the last."""
    reader, writer = await service.connect()
    async with asyncio.timeout(30):
        for packet in packets:
            writer.write(packet)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0.02)
        if sent is not None:
            sent.set()
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "packets",
    [
        [GET, *[FIELD] * ENOUGH],
        [GET + FIELD * ENOUGH],
        [GET + FIELD * ENOUGH + LAST],
        [GET, *[FIELD] * (ENOUGH - 1), FIELD + LAST],
        [GET[:1], GET[1:] + FIELD * ENOUGH],
        [GET + b"\r\n" + GET, *[FIELD] * ENOUGH],
    ],
    ids=["field by field", "at once", "whole", "in the last packet", "from its first byte", "the second"],
)
async def test_a_head_that_is_too_long_gets_431_while_it_comes(start: Start, packets: list[bytes]) -> None:
    service = await start(header_timeout=3)
    answer = await answers(service, packets)
    assert answer.count(b"HTTP/1.1 431 Request Header Fields Too Large\r\n") == 1, answer
    assert answer.count(b"HTTP/1.1 200 ") == packets[0].count(b"\r\n\r\nGET")
    values = await service.scrape()
    assert values["http_requests_total{method=OTHER,route=OTHER,status=431}"] == 1
    assert values["http_connections_completed_total{reason=closed}"] == 1


async def test_a_long_head_behind_a_request_at_work_waits_for_its_answer(
    start: Start, routes: Routes
) -> None:
    go, sent = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await go.wait()
        return web.Response()

    routes("/slow", slow)
    service = await start(header_timeout=3)
    client = asyncio.create_task(
        answers(service, [GET.replace(b"data", b"slow") + b"\r\n", *[GET + FIELD * 9] * 3], sent)
    )
    await sent.wait()
    go.set()
    answer = await client
    assert [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] == [b"200", b"431"]


@pytest.mark.parametrize(
    "packets",
    [
        [GET + FIELD * (ENOUGH - 1) + LAST],
        [GET, *[FIELD] * (ENOUGH - 1), LAST],
        [b"POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n" + LAST + bytes(200_000)],
        [b"POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n" + LAST, *[bytes(40_000)] * 5],
        [(GET + FIELD + b"\r\n") * ENOUGH + GET + LAST],
        [
            GET.replace(b"data", b"slow") + b"\r\n",
            b"POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n" + LAST,
            *[bytes(20_000)] * 3,
        ],
    ],
    ids=["at once", "field by field", "a body", "body by body", "many heads", "a body behind a request"],
)
async def test_what_is_no_long_head_is_answered(start: Start, routes: Routes, packets: list[bytes]) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    routes("/length", length)
    routes("/slow", slow)
    service = await start()
    answer = await answers(service, packets)
    assert answer.count(b"HTTP/1.1 200 OK") == b"".join(packets).count(b"Host: t"), answer
    assert answer.count(b"HTTP/1.1") == answer.count(b"HTTP/1.1 200 OK")


async def test_the_frames_of_a_websocket_are_no_head(start: Start, routes: Routes) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{len(message.data)}")
        return socket

    routes("/socket", echo)
    service = await start()
    sent: list[Any] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{service.url}/socket") as socket:
        for _ in range(3):
            await socket.send_str("x" * 3 * LONGEST_HEAD)
            sent.append(await socket.receive_str())
    assert sent == [str(3 * LONGEST_HEAD)] * 3
