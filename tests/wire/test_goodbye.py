"""An application is told that the service stops, while its clients can still hear it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType

from service.lifecycle import parts
from service.lifecycle.states import State
from tests.conftest import Logged
from tests.support.running import Running, Start
from tests.support.talking import Talking

APP = "tests.support.talking:application"
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GOING_AWAY = b"\x88\x02" + struct.pack("!H", WSCloseCode.GOING_AWAY)  # RFC 6455, 5.5.1


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


async def draining(service: Running) -> asyncio.Task[int]:
    stopping = asyncio.create_task(service.service.stop())
    await service.until(lambda: service.service.life.state is State.DRAINING)
    return stopping


async def test_a_websocket_gets_its_close_frame_and_a_stream_its_end(
    start: Start, client: aiohttp.ClientSession
) -> None:
    service = await start(app=APP, drain_timeout=10)
    async with (
        client.ws_connect(f"{service.url}/socket") as ws,
        client.get(f"{service.url}/stream") as stream,
    ):
        await ws.send_str("there?")
        assert (await ws.receive()).data == "there?"
        assert await stream.content.readline() == b"data: hello\n"
        stopping = await draining(service)
        ending = await ws.receive()
        assert (ending.type, ending.data) == (WSMsgType.CLOSE, WSCloseCode.GOING_AWAY)
        assert await stream.read() == b"\ndata: goodbye\n\n"  # raises if the last chunk is missing
    assert await stopping == 0
    assert Talking.last.told == ["shutdown", "cleanup"]


async def test_a_socket_that_is_opened_while_we_drain_is_told_too(
    start: Start, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ARRIVE_SECONDS", 20.0)
    service = await start(app=APP, drain_timeout=60)
    reader, writer = await service.connect()
    await service.shows("http_connections_active")
    stopping = await draining(service)
    await service.until(lambda: any(line["event"] == "listener closed" for line in logged()))
    await service.scrape()  # meanwhile the loop turns: nothing but this client is left to wait for
    assert Talking.last.told == []
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await reader.readexactly(4) == GOING_AWAY
    writer.write(b"\x88\x82" + bytes(4) + GOING_AWAY[2:])  # masked by zeros, and echoed
    with contextlib.suppress(ConnectionResetError):  # aiohttp closes before it has read that
        assert await reader.read() == b""
    writer.close()
    assert await stopping == 0


async def test_plain_requests_do_not_wait_for_the_application(
    start: Start, client: aiohttp.ClientSession
) -> None:
    service = await start(app=APP, drain_timeout=10)
    talking = Talking.last
    talking.may_end.clear()
    running = asyncio.create_task(service.get("/plain"))
    arriving = await service.connect()
    async with client.ws_connect(f"{service.url}/stubborn", autoping=True) as ws:
        await service.until(lambda: service.service.metrics.connections.snapshot().active == 3)
        stopping = await draining(service)
        arriving[1].write(b"GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n")
        assert b"draining" in await arriving[0].read()
        arriving[1].close()
        await service.until(lambda: talking.told == ["shutdown"])
        talking.may_answer.set()
        assert (await running).endswith(b"plain")
        await ws.ping(b"still there?")  # and so does a socket: aiohttp answers its pings
        await ws.close()
    assert not stopping.done()
    talking.may_end.set()
    assert await stopping == 0


async def test_a_silent_client_does_not_keep_the_application_from_being_told(start: Start) -> None:
    service = await start(app=APP, drain_timeout=30)
    _, writer = await service.connect()
    await service.shows("http_connections_active")
    assert await service.service.stop() == 0
    writer.close()
    assert Talking.last.told == ["shutdown", "cleanup"]


async def test_the_notice_tells_the_application_nothing(start: Start) -> None:
    service = await start(app=APP, drain_notice=60)
    notice = asyncio.create_task(service.service.lame_duck())
    await service.until(lambda: service.service.life.state is State.LAME_DUCK)
    await service.get("/healthz")
    assert Talking.last.told == []
    service.service.broken.set()  # what ends a notice early
    await notice
    assert await service.service.stop() == 0
    assert Talking.last.told == ["shutdown", "cleanup"]


@pytest.mark.parametrize("heeds_cancel", [True, False])
async def test_an_application_that_takes_longer_than_the_drain_is_cut_off(
    start: Start, logged: Logged, heeds_cancel: bool
) -> None:
    service = await start(app=APP, drain_timeout=0.3)
    Talking.last.may_end.clear()
    Talking.last.heeds_cancel = heeds_cancel
    assert await service.service.stop() == 1
    assert Talking.last.told == ["shutdown", "cleanup"]
    Talking.last.may_end.set()
    assert [line for line in logged() if line["event"] == "on_shutdown of the application cut off"]


@pytest.mark.parametrize("failure", [LookupError("who?"), asyncio.CancelledError()], ids=repr)
async def test_an_application_that_fails_when_told_is_cleaned_up_all_the_same(
    start: Start, logged: Logged, failure: BaseException
) -> None:
    service = await start(app=APP)
    Talking.last.failure = failure
    assert await service.service.stop() == 1
    assert Talking.last.told == ["shutdown", "cleanup"]
    failed = [line for line in logged() if line["event"].endswith(" of the application failed")]
    assert [line["event"].split(" ")[0] for line in failed] == ["on_shutdown", "clean-up"]
    assert all(type(failure).__name__ in str(line) for line in failed)


async def test_a_socket_that_stays_although_it_was_told_is_cut_off_at_the_deadline(
    start: Start, client: aiohttp.ClientSession
) -> None:
    service = await start(app=APP, drain_timeout=0.3)
    async with client.ws_connect(f"{service.url}/stubborn") as ws:
        stopping = await draining(service)
        assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
    assert await stopping == 1
    assert Talking.last.told == ["shutdown", "cleanup"]
