"""The front door on real sockets: the limit, the deadlines, and faults between accept and protocol."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from aiohttp import web

from metrics.exposition import total
from service.lifecycle import parts
from service.net import listener, shortage, tcp
from service.net.accept_errors import ErrorClass, classify
from service.web.connection import Record
from service.web.driver import Driver
from tests import work
from tests.support.running import Running, Start, body_of

KEEP_ALIVE = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
BIG = 8 * 1024 * 1024  # more than the socket buffers of both sides hold


def book(service: Running) -> dict[str, int]:
    return service.service.metrics.connections.snapshot().completed


async def answered(client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    """The answer to one request on a connection that stays open."""
    reader, writer = client
    writer.write(KEEP_ALIVE)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def test_beyond_the_limit_clients_wait_in_the_kernel_and_are_served_in_turn(start: Start) -> None:
    service = await start(max_connections=2)
    assert (await service.scrape())["http_connections_limit"] == 2
    silent = [await service.connect() for _ in range(2)]
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 2)
    waiting = asyncio.create_task(service.get())
    values = await service.scrape()
    while not values["listener_backlog_connections"]:
        values = await service.scrape()
    assert values["http_connections_accepted_total"] == 2
    assert not waiting.done()
    silent[0][1].close()
    assert b"200 OK" in await waiting
    silent[1][1].close()


async def test_when_others_wait_the_longest_idle_goes_first(start: Start) -> None:
    service = await start(max_connections=3)
    idle = [await service.connect() for _ in range(3)]
    for client in idle:
        assert b"200 OK" in await answered(client)
    assert b"200 OK" in await answered(idle[0])  # now the second has been idle for longest
    assert b"200 OK" in await service.get()
    assert await idle[1][0].read() == b""
    assert book(service)["evicted"] == 1
    for client in (idle[0], idle[2]):
        assert b"200 OK" in await answered(client)
    for _, writer in idle:
        writer.close()


@pytest.mark.usefixtures("gate")
async def test_at_the_limit_an_answer_gives_its_connection_up_if_others_wait(start: Start) -> None:
    service = await start(
        max_connections=1, offload="thread", workers=1, work="tests.work:waits_at_the_gate", deadline=60
    )
    first = await service.connect()
    first[1].write(KEEP_ALIVE)
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 1)
    second = asyncio.create_task(service.get())
    await service.until(lambda: service.service.parts.connection_limit.at_capacity)
    work.gate.set()
    answer = await first[0].read()
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    assert b"200 OK" in await second
    first[1].close()


async def test_the_admin_port_answers_when_the_service_is_full(start: Start) -> None:
    service = await start(max_connections=1)
    _, writer = await service.connect()
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 1)
    assert (await service.scrape())["http_connections_active"] == 1
    writer.close()


async def test_who_was_here_between_two_scrapes_is_seen_by_every_scraper(start: Start) -> None:
    service = await start()
    book = service.service.metrics.connections
    clients = [await service.connect() for _ in range(5)]
    await service.until(lambda: book.snapshot().active == 5)
    for _, writer in clients:
        writer.close()
    await service.until(lambda: book.snapshot().active == 0)
    for _ in range(2):
        values = await service.scrape()
        assert values["http_connections_active"] == 0
        assert values["http_connections_active_peak"] == 5


HEAD = b"GET /data HTTP/1.1\r\nHost: t\r\n"


@pytest.mark.parametrize(
    "sent", [b"", b"G", HEAD, HEAD + b"X: y\r\n"], ids=["silent", "a byte", "half", "more"]
)
async def test_a_head_that_does_not_come_gets_408_and_a_closed_socket(start: Start, sent: bytes) -> None:
    service = await start(header_timeout=0.3)
    began = time.monotonic()
    answer = await service.exchange(sent)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert time.monotonic() - began >= 0.25
    values = await service.scrape()
    assert values["http_requests_total{method=OTHER,route=OTHER,status=408}"] == 1
    assert values["http_connections_completed_total{reason=deadline}"] == 1


async def test_a_dripping_head_has_one_deadline_for_the_whole(start: Start) -> None:
    service = await start(header_timeout=0.5)
    reader, writer = await service.connect()

    async def drip() -> None:
        while True:
            writer.write(b"X")
            await asyncio.sleep(0.05)

    writer.write(HEAD)
    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(20):
        assert b"408" in await reader.readline()
    dripping.cancel()
    writer.close()


async def test_the_next_head_on_a_connection_has_the_same_deadline(start: Start) -> None:
    service = await start(header_timeout=0.3, idle_timeout=60)
    client = reader, writer = await service.connect()
    assert b"200 OK" in await answered(client)
    writer.write(HEAD)
    assert b"408" in await reader.read()
    writer.close()


async def test_an_idle_connection_is_closed_without_a_word(start: Start) -> None:
    service = await start(idle_timeout=0.3)
    client = reader, writer = await service.connect()
    assert b"200 OK" in await answered(client)
    assert await reader.read() == b""
    assert book(service)["deadline"] == 1
    writer.close()


async def test_deadlines_do_not_run_while_the_loop_is_blocked(start: Start) -> None:
    service = await start(header_timeout=0.4)
    client = await service.connect()
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 1)
    time.sleep(1.0)  # noqa: ASYNC251  # blocking is the point
    assert b"200 OK" in await answered(client)
    client[1].close()


async def body_length(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


POST = b"POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"


async def test_a_body_that_stalls_gets_408(start: Start, routes: Any) -> None:
    routes("/length", body_length)
    service = await start(body_timeout=0.3)
    answer = await service.exchange(POST % 10 + b"half")
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert (await service.scrape())["http_requests_total{method=POST,route=/length,status=408}"] == 1


async def test_a_body_that_drips_gets_408_and_one_that_flows_does_not(start: Start, routes: Any) -> None:
    routes("/length", body_length)
    service = await start(body_timeout=0.4)  # 200 bytes in each 0.4 s are enough

    async def send(chunk: int, count: int) -> bytes:
        reader, writer = await service.connect()
        answer = asyncio.create_task(reader.readline())
        writer.write(POST % (chunk * count))
        for _ in range(count):
            if answer.done():
                break
            writer.write(b"x" * chunk)
            await asyncio.sleep(0.05)
        line = await answer
        writer.close()
        return line

    slow, steady = await asyncio.gather(send(1, 30), send(200, 30))
    assert b"408" in slow
    assert b"200" in steady


async def test_a_body_that_nobody_reads_delays_no_answer(start: Start) -> None:
    service = await start(body_timeout=0.3)
    answer = await service.exchange(b"GET /data HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
    assert b"200 OK" in answer


async def much(_: web.Request) -> web.Response:
    return web.Response(body=bytes(BIG))


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(bytes(65536))


@pytest.mark.parametrize("handler", [much, endless])
async def test_a_client_that_does_not_read_is_reset(start: Start, routes: Any, handler: Any) -> None:
    routes("/much", handler)
    service = await start(write_timeout=0.4)
    reader, writer = await service.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    await service.until(lambda: book(service)["deadline"] == 1)
    with pytest.raises(ConnectionError):
        await reader.read(-1)
    writer.close()


async def test_a_client_that_is_gone_without_a_word_is_found_out(start: Start, routes: Any) -> None:
    async def asked(request: web.Request) -> web.Response:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        return web.Response(text=str(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))

    routes("/asked", asked)
    service = await start()
    assert body_of(await service.get("/asked")) == b"1"


async def test_a_client_that_reads_slowly_but_steadily_gets_everything(start: Start, routes: Any) -> None:
    routes("/much", much)
    service = await start(write_timeout=0.6)
    reader, writer = await service.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    got = 0
    while chunk := await reader.read(BIG // 24):
        got += len(chunk)
        await asyncio.sleep(0.05)
    assert got > BIG
    assert book(service)["deadline"] == 0
    writer.close()


async def test_an_error_in_connection_made_costs_one_connection(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    real = web.RequestHandler.connection_made
    fail = iter([True, False])

    def sometimes(self: web.RequestHandler, transport: asyncio.BaseTransport) -> None:
        if next(fail):
            raise RuntimeError("injected")
        real(self, transport)

    monkeypatch.setattr(web.RequestHandler, "connection_made", sometimes)
    with contextlib.suppress(ConnectionError):  # some loops send FIN, some RST
        assert await service.get() == b""
    assert b"200 OK" in await service.get()
    assert book(service)["handover"] == 1


async def test_sockets_that_are_dead_at_hand_over_leave_nothing(start: Start) -> None:
    service = await start()
    for _ in range(50):  # blocking: the loop accepts them when they are dead already
        client = socket.create_connection((service.host, service.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.close()
    await service.until(lambda: sum(book(service).values()) == 50)
    assert b"200 OK" in await service.get()


async def test_an_answer_being_written_when_a_drain_begins_ends_its_connection(
    start: Start, routes: Any
) -> None:
    routes("/much", much)
    service = await start(drain_timeout=20)
    reader, writer = await service.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: t\r\n\r\n")
    await service.until(lambda: total_bytes(service) > 0)
    drained = asyncio.create_task(service.service.stop())
    await service.until(lambda: service.service.ready() == (False, "draining"))
    await asyncio.sleep(0.05)  # the drain has passed this connection by: it is handled
    assert len(await reader.read(-1)) > BIG
    async with asyncio.timeout(10):
        assert await drained == 0
    writer.close()


def total_bytes(service: Running) -> int:
    """Bytes of answers that the kernel has not been acknowledged yet, over all connections."""
    live = cast("set[Record]", service.service.metrics.connections._live)
    return sum(tcp.unacknowledged(record.socket) for record in live)


async def test_a_body_that_waits_for_its_handler_is_not_late(start: Start, routes: Any) -> None:
    async def reads_late(request: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return await body_length(request)

    routes("/late", reads_late)
    service = await start(body_timeout=0.3)
    size = 600_000  # more than aiohttp takes in before somebody reads; less than it refuses
    answer = await service.exchange(
        b"POST /late HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        + bytes(size)
    )
    assert b"200 OK" in answer
    assert answer.endswith(b"%d" % size)


async def test_a_handler_that_fails_in_the_middle_of_its_answer_frees_its_place(
    start: Start, routes: Any
) -> None:
    async def fails_midway(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(bytes(60_000))
        raise ZeroDivisionError

    routes("/midway", fails_midway)
    service = await start()
    answer = await service.exchange(b"GET /midway HTTP/1.1\r\nHost: t\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 0)


@pytest.mark.parametrize("path", ["/data", "/length"])
async def test_a_body_that_cannot_be_decoded_is_the_clients_mistake(
    start: Start, routes: Any, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    routes("/length", body_length)
    service = await start()
    head = f"GET {path} HTTP/1.1\r\nHost: t\r\nContent-Encoding: deflate\r\nContent-Length: 9\r\n\r\n"
    async with asyncio.timeout(20):
        reader, writer = await service.connect()
        writer.write(head.encode())
        await asyncio.sleep(0.05)  # the handler has begun, or has answered already
        writer.write(b"not zlib!")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200" if path == "/data" else b"HTTP/1.1 400")
    assert not [record for record in caplog.records if record.exc_info]


async def test_empty_lines_begin_no_request(start: Start) -> None:
    service = await start(header_timeout=0.3)
    client = await service.connect()
    assert b"200 OK" in await answered(client)
    client[1].write(b"\r\n")
    await asyncio.sleep(0.6)
    assert b"200 OK" in await answered(client)
    client[1].close()


async def test_one_deadline_that_fails_does_not_end_the_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fail = Driver.expire, iter([True])

    def sometimes(self: Driver) -> None:
        if next(fail, False):
            raise RuntimeError("injected")
        real(self)

    monkeypatch.setattr(Driver, "expire", sometimes)
    service = await start(header_timeout=0.3)
    answers = await asyncio.gather(*(service.exchange(b"") for _ in range(3)))
    assert [b"408" in answer for answer in answers] == [True] * 3


class FaultyListener(socket.socket):
    """A real listener whose accept fails as often as a test wants."""

    faults: Iterator[int] = iter(())

    def accept(self) -> tuple[socket.socket, Any]:
        for code in self.faults:
            raise OSError(code, "injected")
        return super().accept()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[FaultyListener]:
    real = listener.listen
    monkeypatch.setattr(parts, "listen", lambda *where: FaultyListener(fileno=real(*where).detach()))
    monkeypatch.setattr(shortage, "PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(shortage, "CALM_SECONDS", 0.005)
    return FaultyListener


async def test_a_burst_of_any_errno_on_a_real_listener_loses_no_client(
    start: Start, faulty: type[FaultyListener], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    survived = [code for code in sorted(errno.errorcode) if classify(code) is not ErrorClass.BROKEN]
    survived.remove(errno.EAGAIN)  # no error: the queue is empty
    for number, code in enumerate(survived, 1):
        monkeypatch.setattr(faulty, "faults", iter([code] * 3))
        assert b"200 OK" in await service.get(), errno.errorcode[code]
        values = await service.scrape()
        assert total(values, "listener_accept_errors_total", errno=errno.errorcode[code]) == 3
        assert values["listener_accept_paused"] == 0
        assert values["http_connections_accepted_total"] == number


@pytest.mark.parametrize("code", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT])
async def test_a_broken_listener_is_told_and_the_drain_answers_whom_it_still_can(
    start: Start, faulty: type[FaultyListener], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    service = await start()
    monkeypatch.setattr(faulty, "faults", iter([code]))
    client = asyncio.create_task(service.get())
    async with asyncio.timeout(20):
        await service.service.broken.wait()
    await service.service.stop()
    assert b"200 OK" in await client


async def test_a_shortage_for_a_while_recovers_by_itself(
    start: Start, faulty: type[FaultyListener], monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_it_lasts() -> Iterator[int]:
        end = time.monotonic() + 0.5
        for count in itertools.count():
            if count >= 5 and time.monotonic() >= end:
                return
            yield errno.EMFILE

    monkeypatch.setattr(faulty, "faults", while_it_lasts())
    service = await start()
    answers = await asyncio.gather(*(service.get() for _ in range(20)))
    assert all(b"200 OK" in answer for answer in answers)
    assert (await service.scrape())["listener_accept_pauses_total"] >= 5


async def test_a_shortage_in_the_last_moment_is_waited_out(
    start: Start, faulty: type[FaultyListener], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    clients = [socket.create_connection((service.host, service.port)) for _ in range(3)]
    for client in clients:
        client.sendall(KEEP_ALIVE)
    monkeypatch.setattr(faulty, "faults", iter([errno.EMFILE] * 3))
    assert await service.service.stop() == 0
    for client in clients:
        assert client.recv(12) == b"HTTP/1.1 200"
        client.close()
