"""Clients that hold what others wait for: slowly sent requests, many bodies, one client's crowd."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from aiohttp import web

from service.web import supervisor
from service.web.deadlines import Stage
from tests.support.running import Routes, Running, Start, status_of

POST = b"POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def length(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(await request.read())}\n")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, routes: Routes) -> None:
    """Whoever is slow is known to be after a moment."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.05)
    routes("/length", length)


def completed(service: Running, reason: str) -> int:
    return service.service.metrics.connections.snapshot().completed[reason]


def active(service: Running) -> int:
    return service.service.metrics.connections.snapshot().active


async def drip(client: Client, piece: bytes) -> bytes:
    """Send a piece every 20 ms until an answer has begun; returns its first line."""
    reader, writer = client
    line = asyncio.create_task(reader.readline())
    try:
        while not line.done():
            with contextlib.suppress(ConnectionError):
                writer.write(piece)
                await writer.drain()
            await asyncio.wait([line], timeout=0.02)
        return await line
    finally:
        line.cancel()
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.usefixtures("impatient")
async def test_a_request_has_a_time_in_which_all_of_it_must_be_here(start: Start) -> None:
    service = await start(receive_timeout=0.8, body_timeout=0.3)
    clock = service.service.parts.supervisor.deadlines
    began = clock.now
    client = await service.connect()
    client[1].write(POST % 10**6)
    async with asyncio.timeout(20):
        assert b" 408 " in await drip(client, b"x" * 100)  # ten times what a body must average
    assert clock.now - began >= 0.8
    values = await service.scrape()
    assert values["http_requests_total{method=POST,route=/length,status=408}"] == 1


@pytest.mark.usefixtures("impatient")
async def test_the_head_counts_against_that_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REST_SECONDS", supervisor.SWEEP_SECONDS)  # the clock goes in small steps
    service = await start(receive_timeout=1.0, header_timeout=5)
    clock = service.service.parts.supervisor.deadlines
    client = await service.connect()
    client[1].write(POST[:20])
    await service.until(lambda: bool(clock.staying(Stage.HEAD)))
    first = clock.now
    await service.until(lambda: clock.now >= first + 0.8)
    client[1].write((POST % 10**6)[20:])
    began = clock.now
    async with asyncio.timeout(20):
        assert b" 408 " in await drip(client, b"x" * 100)
    assert clock.now - began < 0.95  # else the head would have had its own second


@pytest.mark.usefixtures("impatient")
async def test_a_handler_that_reads_late_takes_nothing_of_that_time(start: Start, routes: Routes) -> None:
    async def late(request: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return await length(request)

    routes("/late", late)
    service = await start(receive_timeout=0.4, body_timeout=0.3)
    size = 600_000  # more than aiohttp takes in before a handler reads
    head = (POST % size).replace(b"length", b"late").replace(b"Host", b"Connection: close\r\nHost")
    assert (await service.exchange(head + bytes(size))).endswith(b"%d\n" % size)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "sent", [POST % 10**6, b"", b"GET / HTTP/1.1\r\nX: "], ids=["bodies", "nothing", "heads"]
)
async def test_slow_requests_in_all_places_keep_no_good_client_out(start: Start, sent: bytes) -> None:
    service = await start(max_connections=20, header_timeout=60)
    slow = []
    for _ in range(20):
        client = await service.connect()
        client[1].write(sent)
        slow.append(asyncio.create_task(drip(client, b"x" * 40 if sent else b"")))
    await service.until(lambda: active(service) == 20)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(service.get() for _ in range(5)))
        assert [status_of(answer) for answer in answers] == [200] * 5
        assert completed(service, "evicted") >= 1
        left = [task for task in slow if task.done()]
        assert [task.result()[9:12] for task in left] == [b"408"] * len(left)
        values = await service.scrape()
        assert values["http_connections_completed_total{reason=evicted}"] <= 10, "no more than are waited for"
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


@pytest.mark.usefixtures("impatient")
async def test_who_works_or_sends_at_a_fair_rate_keeps_its_place(
    start: Start, routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FAIR_BYTES_PER_SECOND", 10_000)
    go = asyncio.Event()

    async def works(_: web.Request) -> web.Response:
        await go.wait()
        return web.Response()

    routes("/works", works)
    service = await start(max_connections=2)
    working = asyncio.create_task(service.get("/works"))
    await service.until(lambda: active(service) == 1)
    reader, writer = await service.connect()
    writer.write(POST % 400_000)
    waiting = asyncio.create_task(service.get())
    for _ in range(40):
        writer.write(bytes(10_000))
        await asyncio.sleep(0.03)
    assert b" 200 " in await reader.readline()
    writer.close()
    assert status_of(await waiting) == 200
    go.set()
    assert status_of(await working) == 200
    assert completed(service, "evicted") == 0


@pytest.mark.usefixtures("impatient")
async def test_all_bodies_together_have_a_bound_and_the_slowest_goes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MOST_BODY_BYTES", 1_200_000)
    service = await start()
    size, first = 500_000, (300_000, 450_000, 490_000)  # two of them never exceed it
    clients: list[Client] = []
    for sent in first:
        clients.append(await service.connect())
        clients[-1][1].write(POST % size + bytes(sent))
    async with asyncio.timeout(20):
        assert b" 408 " in await clients[0][0].readline()  # it has sent least
        for number in (1, 2):
            if number == 1:
                await service.until(lambda: completed(service, "evicted") == 1)
            clients[number][1].write(bytes(size - first[number]))
            assert b" 200 " in await clients[number][0].readline()
    for _, writer in clients:
        writer.close()


class Crowd:
    """Connections from several loopback addresses."""

    def __init__(self, service: Running) -> None:
        self._service, self.sockets = service, list[socket.socket]()

    def join(self, address: str) -> socket.socket:
        client = socket.socket()
        self.sockets.append(client)
        client.bind((address, 0))
        client.connect((self._service.host, self._service.port))
        client.setblocking(False)
        return client


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


async def test_one_client_has_so_many_connections_and_no_more(
    start: Start, sockets: list[socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    service = await start(max_connections_per_client=3)
    crowd = Crowd(service)
    crowd.sockets = sockets
    for _ in range(3):
        crowd.join("127.0.0.2")
    await service.until(lambda: active(service) == 3)
    with contextlib.suppress(ConnectionError):
        assert await loop.sock_recv(crowd.join("127.0.0.2"), 10) == b""
    await service.until(lambda: completed(service, "client_limit") == 1)
    assert active(service) == 3
    assert status_of(await service.get()) == 200, "another client is served"
    said = "".join(capsys.readouterr())
    assert "max-connections-per-client" in said
    assert "127.0.0.2" in said
    sockets[0].close()
    await service.until(lambda: active(service) == 2)
    again = crowd.join("127.0.0.2")
    await loop.sock_sendall(again, b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert status_of(await loop.sock_recv(again, 1000)) == 200
    values = await service.scrape()
    assert values["http_connections_completed_total{reason=client_limit}"] == 1


async def test_by_default_loopback_has_every_place(start: Start, sockets: list[socket.socket]) -> None:
    service = await start(max_connections=4)
    crowd = Crowd(service)
    crowd.sockets = sockets
    for _ in range(4):
        crowd.join("127.0.0.2")
    await service.until(lambda: active(service) == 4)
    assert completed(service, "client_limit") == 0
