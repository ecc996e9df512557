"""What a client gets whose requests and answers do not keep to packets: pipelines, halves, files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.web.protocol import Protocol
from tests.support.running import Routes, Start

GET = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_HEAD = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n\r\n"
HALF = b"GET /data HTTP/1.1\r\nHo"


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@pytest.mark.parametrize("whole", [GET, POST, CHUNKED, GET + POST, POST + GET])
async def test_half_a_head_behind_a_whole_request_has_the_deadline_of_a_head(
    start: Start, routes: Routes, whole: bytes
) -> None:
    routes("/echo", echo)
    service = await start(header_timeout=0.2, idle_timeout=60)
    async with asyncio.timeout(20):
        answers = await service.exchange(whole + HALF)
    assert answers.count(b"HTTP/1.1 200 OK") == whole.count(b"Host: t")
    assert answers.count(b"HTTP/1.1 408 ") == 1
    assert service.service.metrics.connections.snapshot().completed["deadline"] == 1


@pytest.mark.parametrize(
    "whole",
    [
        *(GET, POST, CHUNKED, GET + POST, POST + GET, GET + b"\r\n"),
        # A chunked body whose end is not plain: trailers, an extension, longer than what is kept.
        CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        CHUNKED_HEAD + b"5\r\nhello\r\n0;a=b\r\n\r\n",
        CHUNKED_HEAD + b"2710\r\n" + bytes(0x2710) + b"\r\n0\r\n\r\n",
    ],
)
async def test_a_whole_request_alone_leaves_its_connection_idle(
    start: Start, routes: Routes, whole: bytes
) -> None:
    routes("/echo", echo)
    service = await start(header_timeout=0.3, idle_timeout=1.0)
    async with asyncio.timeout(20):
        answers = await service.exchange(whole)
    assert answers.count(b"HTTP/1.1 200 OK") == whole.count(b"Host: t")
    assert answers.count(b"HTTP/1.1 ") == whole.count(b"Host: t")  # and no 408


@pytest.mark.parametrize("first", [GET, POST])
async def test_a_drain_answers_a_request_that_came_in_one_packet_with_another(
    start: Start, routes: Routes, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    routes("/echo", echo)
    finish, answered = Protocol.finish_response, iter([True])

    async def drain_between(self: Protocol, *arguments: Any) -> tuple[web.StreamResponse, bool]:
        outcome = await finish(self, *arguments)
        if next(answered, False):
            self.driver.drain()
        return outcome

    monkeypatch.setattr(Protocol, "finish_response", drain_between)
    service = await start()
    async with asyncio.timeout(20):
        assert (await service.exchange(first + GET)).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("prepared", ["by aiohttp", "by its handler"])
async def test_a_client_that_does_not_read_a_file_is_reset(
    start: Start, routes: Routes, tmp_path: Path, prepared: str
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(256 * 2**20)

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.FileResponse(path)
        if prepared == "by its handler":
            await response.prepare(request)
        return response

    routes("/file", send)
    service = await start(write_timeout=0.4)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    reader, writer = await service.connect()
    writer.write(b"GET /file HTTP/1.1\r\nHost: t\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")  # and then not a byte more
    book = service.service.metrics.connections.snapshot
    await service.until(lambda: book().active == 0)
    assert book().completed["deadline"] == 1
    assert reported == []
    writer.transport.abort()


async def test_a_file_that_is_read_slowly_arrives_whole(start: Start, routes: Routes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(8 * 2**20)

    async def send(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    routes("/file", send)
    service = await start(write_timeout=0.6)
    reader, writer = await service.connect()
    writer.write(b"GET /file HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    count = 0
    while piece := await reader.read(2**20):
        count += len(piece)
        await asyncio.sleep(0.05)
    assert count == 8 * 2**20
    writer.close()
