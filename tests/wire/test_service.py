"""What a client gets, and what the counters say of it: values before and after, never names alone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from metrics.exposition import total
from service.net.listener import listen
from service.net.tcp import backlog
from service.web import protocol
from tests import work
from tests.support.running import Start, body_of, status_of

KEEP_ALIVE = b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n"
RECORD = {"street": "10 Downing Street", "city": "Value: 9", "count": 80}


@pytest.mark.parametrize("offload", ["inline", "thread", "process", "executor"])
async def test_data_is_answered_whatever_the_strategy(start: Start, offload: str) -> None:
    service = await start(offload=offload, workers=2)
    answer = await service.get()
    assert status_of(answer) == 200
    assert json.loads(body_of(answer)) == RECORD
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=completed}"] == 1
    assert values["offload_task_cpu_seconds_count"] == values["offload_queue_wait_seconds_count"] == 1
    assert values["offload_task_cpu_seconds_sum"] > 0
    assert values["http_requests_total{method=GET,route=/data,status=200}"] == 1
    assert values["http_request_duration_seconds_count{route=/data,status_class=2xx}"] == 1
    assert values["offload_workers"] == (1 if offload == "inline" else 2)
    assert values["offload_running"] == values["offload_queue_depth"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/nowhere", 404, "OTHER"),
        ("POST", "/data", 405, "OTHER"),
        ("HEAD", "/data", 200, "/data"),
        ("GET", "/healthz", 200, "/healthz"),
        ("GET", "/readyz", 200, "/readyz"),
        ("PROPFIND", "/data", 405, "OTHER"),
    ],
)
async def test_each_answer_is_counted_by_method_route_and_status(
    start: Start, method: str, path: str, status: int, route: str
) -> None:
    service = await start()
    assert status_of(await service.get(path, method)) == status
    label = method if method != "PROPFIND" else "OTHER"
    values = await service.scrape()
    assert values[f"http_requests_total{{method={label},route={route},status={status}}}"] == 1
    assert total(values, "http_requests_total") == 1


async def test_malformed_http_gets_400_and_is_counted(start: Start) -> None:
    service = await start()
    assert status_of(await service.exchange(b"what is this\r\n\r\n")) == 400
    values = await service.scrape()
    assert total(values, "http_requests_total") == 1
    assert [key for key in values if key.startswith("http_requests_total") and "status=400" in key]


async def test_accepted_counts_at_accept_and_completed_at_the_end(start: Start) -> None:
    service = await start()
    book = service.service.metrics.connections.snapshot
    reader, writer = await service.connect()  # not a byte sent yet
    await service.until(lambda: book().accepted == 1)
    assert (book().active, sum(book().completed.values())) == (1, 0)
    for _ in range(3):  # requests on one connection change nothing
        writer.write(KEEP_ALIVE)
        assert b"200 OK" in await reader.readuntil(b"}")
    assert (book().accepted, book().active) == (1, 1)
    writer.close()
    await writer.wait_closed()
    await service.until(lambda: book().active == 0)
    assert book().completed["closed"] == 1


async def test_a_reset_connection_is_completed_too(start: Start) -> None:
    service = await start()
    book = service.service.metrics.connections.snapshot
    for _ in range(20):
        client = socket.create_connection((service.host, service.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # RST
    await service.until(lambda: book().accepted == 20)
    await service.until(lambda: book().active == 0)


async def test_a_hand_over_that_fails_ends_its_connection_and_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    real = protocol.Protocol.__init__
    fail = iter([True, False])

    def sometimes(self: protocol.Protocol, *args: Any) -> None:
        if next(fail):
            raise RuntimeError("injected")
        real(self, *args)

    monkeypatch.setattr(protocol.Protocol, "__init__", sometimes)
    assert await service.get() == b""
    assert status_of(await service.get()) == 200
    values = await service.scrape()
    assert values["http_connections_completed_total{reason=handover}"] == 1
    assert values["http_connections_accepted_total"] == 2


@pytest.fixture
def full_listener() -> Iterator[socket.socket]:
    """A listener that nobody accepts from, with three clients in its queue."""
    with listen("127.0.0.1", 0, 7) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        yield listener
        for client in clients:
            client.close()


@pytest.mark.skipif(
    not hasattr(socket, "TCP_INFO"), reason="the kernel queue is read through Linux's TCP_INFO"
)
def test_the_kernel_queue_is_visible(full_listener: socket.socket) -> None:
    assert backlog(full_listener) == (3, 7)


def test_a_closed_listener_has_no_queue() -> None:
    listener = listen("127.0.0.1", 0, 7)
    listener.close()
    assert backlog(listener) == (0, 0)


async def test_connections_in_the_kernel_queue_are_answered_by_a_drain(start: Start) -> None:
    service = await start(accept_batch=1)
    clients = []
    for _ in range(20):  # blocking calls: the loop cannot accept before the drain begins
        client = socket.create_connection((service.host, service.port))
        client.sendall(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")
        clients.append(client)
    assert await service.service.stop() == 0
    for client in clients:
        assert b"200 OK" in client.recv(4096)
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((service.host, service.port))


async def test_a_request_that_outlives_the_drain_is_abandoned_and_counted(start: Start) -> None:
    service = await start(offload="thread", workers=1, drain_timeout=0.05, work="tests.work:until_released")
    work.RELEASED.clear()
    answer = asyncio.create_task(service.get())
    await service.shows("offload_running")
    try:
        assert await service.service.stop() == 2  # the connection and its task
    finally:
        work.RELEASED.set()
    assert (await answer).startswith(b"HTTP/1.1 503 ")
    metrics = service.service.metrics
    assert metrics.connections.snapshot().completed["abandoned"] == 1
    labels = {"method": "GET", "route": "/data", "status": "503"}
    assert metrics.registry.get_sample_value("http_requests_total", labels) == 1
    at_work = ("work_", "offload-stop")  # a thread cannot be cut off, and ends now
    await service.until(lambda: not [t for t in threading.enumerate() if t.name.startswith(at_work)])


@pytest.mark.parametrize(
    ("sent", "reads"),
    [
        (b"", b""),  # connected and silent: it may yet send
        (b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n", b"200 OK"),  # answered and idle
        (b"POST /data HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n", b"405"),  # its body never came
        (b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n\r\n", b"200 OK"),  # a stray line after it
        (b"GET /data HT", b""),  # the beginning of a request
    ],
)
async def test_no_client_can_hold_up_a_drain(start: Start, sent: bytes, reads: bytes) -> None:
    service = await start(drain_timeout=20)
    reader, writer = await service.connect()
    writer.write(sent)
    if reads:
        assert reads in await reader.readuntil(b"\r\n")
    began = asyncio.get_running_loop().time()
    assert await service.service.stop() == 0
    assert asyncio.get_running_loop().time() - began < 15  # twenty would be the drain's own deadline
    writer.close()


@pytest.mark.usefixtures("gate")
async def test_work_whose_client_has_left_is_not_started(start: Start) -> None:
    service = await start(offload="thread", workers=1, work="tests.work:waits_at_the_gate", deadline=60)
    first = asyncio.create_task(service.get())
    await service.shows("offload_running")
    _, writer = await service.connect()
    writer.write(KEEP_ALIVE)
    await service.shows("offload_queue_depth")
    writer.close()
    await writer.wait_closed()
    work.gate.set()
    assert status_of(await first) == 200
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=cancelled}"] == 1
    assert values["offload_tasks_total{outcome=completed}"] == values["offload_task_cpu_seconds_count"] == 1
    assert values["offload_queue_depth"] == 0


@pytest.mark.usefixtures("gate")
async def test_work_that_outlives_its_client_is_cancelled_and_its_cost_counts(start: Start) -> None:
    service = await start(offload="thread", workers=1, work="tests.work:waits_at_the_gate", deadline=60)
    _, writer = await service.connect()
    writer.write(KEEP_ALIVE)
    await service.shows("offload_running")
    writer.close()
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 0)
    work.gate.set()
    await service.shows("offload_running", zero=True)
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=cancelled}"] == 1
    assert values["offload_tasks_total{outcome=completed}"] == 0
    assert values["offload_task_cpu_seconds_count"] == 1


async def test_a_request_that_arrives_during_the_drain_is_answered(start: Start) -> None:
    service = await start()
    reader, writer = await service.connect()
    await service.until(lambda: service.service.metrics.connections.snapshot().active == 1)
    drained = asyncio.create_task(service.service.stop())
    await service.until(lambda: service.service.ready() == (False, "draining"))
    writer.write(KEEP_ALIVE)
    answer = await reader.read()
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    assert await drained == 0
    writer.close()


async def test_an_endless_header_gets_431(start: Start) -> None:
    service = await start()
    answer = await service.exchange(b"GET /data HTTP/1.1\r\nHost: t\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
    assert status_of(answer) == 431


async def test_a_clients_mistake_leaves_no_traceback_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start()
    assert status_of(await service.exchange(b"what is this\r\n\r\n")) == 400
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_ipv6_serves_as_well(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    service = await start(host="::1", admin_host="::1")
    assert service.url.startswith("http://[::1]:")
    assert status_of(await service.get()) == 200
    assert (await service.scrape())["http_connections_accepted_total"] == 1


async def test_work_that_raises_gets_500_without_internals(start: Start) -> None:
    service = await start(work="tests.work:fails_on_demand")
    work.failing.set()
    try:
        answer = await service.get()
    finally:
        work.failing.clear()
    assert status_of(answer) == 500
    assert b"secret" not in answer
    assert b"Traceback" not in answer
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=failed}"] == 1
    assert values["offload_tasks_total{outcome=completed}"] == 0


async def test_the_admin_port_answers_and_readiness_follows_the_state(start: Start) -> None:
    service = await start()
    for path, status in {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/else": 404}.items():
        reader, writer = await asyncio.open_connection(*service.admin_url.removeprefix("http://").split(":"))
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert status_of(await reader.read()) == status
        writer.close()
        await writer.wait_closed()
    assert service.service.ready() == (True, "serving")
    drained = asyncio.create_task(service.service.stop())
    await service.until(lambda: service.service.ready() == (False, "draining"))
    await drained
    assert service.service.ready() == (False, "stopped")


async def test_loop_lag_is_observed(start: Start) -> None:
    service = await start()
    await service.shows("event_loop_lag_seconds_count")
