"""A wait in the kernel's accept queue is seen, and counts as any other wait."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from service.net import tcp
from service.offload.offload import Offload
from service.offload.queue import TaskQueue
from service.offload.task import Task
from service.web.deadlines import Stage
from service.web.exchange import State
from tests.support.running import Running, Start, status_of

pytestmark = pytest.mark.skipif(tcp.TCP_INFO is None, reason="asks Linux's TCP_INFO")

BLOCKED_SECONDS = 0.25
TICK_SECONDS = 0.01
"""The longest there is, at 100 Hz: the kernel counts in ticks."""

HEAD = b"GET /data HTTP/1.1\r\nHost: t\r\n"
CLOSE = b"Connection: close\r\n\r\n"


class Queued:
    """Clients whose bytes lie in the kernel because the loop, which is the test's own, is blocked.

    waited: the least and the most seconds that each of them has waited.
    """

    def __init__(self, service: Running, *sent: bytes) -> None:
        begun = time.monotonic()
        self.sockets = [socket.create_connection((service.host, service.port)) for _ in sent]
        for client, said in zip(self.sockets, sent, strict=True):
            client.sendall(said)
        self.came = begun - TICK_SECONDS, time.monotonic() + TICK_SECONDS
        time.sleep(BLOCKED_SECONDS)  # the loop is blocked: that is the case

    async def answers(self) -> list[bytes]:
        """What each is answered until its connection is closed."""
        return await asyncio.gather(*(self._read(client) for client in self.sockets))

    async def _read(self, client: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            return await reader.read()
        finally:
            writer.close()


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What `submit` is told of every request: when it came."""
    told: list[float | None] = []
    submit = Offload.submit

    async def submitted(self: Offload, *args: Any, **more: Any) -> Any:
        told.append(more["arrived"])
        return await submit(self, *args, **more)

    monkeypatch.setattr(Offload, "submit", submitted)
    return told


async def test_a_blocked_loop_shows_in_what_new_connections_have_waited(start: Start) -> None:
    service = await start()
    begun = time.monotonic()
    queued = Queued(service, *[HEAD + CLOSE] * 4, b"")
    await service.until(lambda: service.service.metrics.connections.snapshot().accepted == 5)
    most = time.monotonic() - begun + TICK_SECONDS
    queued.sockets[-1].shutdown(socket.SHUT_WR)
    await queued.answers()
    over = time.monotonic()
    values = await service.scrape()
    assert values["listener_accept_wait_seconds_count"] == 5
    assert BLOCKED_SECONDS - TICK_SECONDS <= values["listener_accept_wait_seconds_sum"] / 5 <= most
    answered = "http_request_duration_seconds_{}{{route=/data,status_class=2xx}}"
    assert values[answered.format("count")] == 4
    mean = values[answered.format("sum")] / 4
    assert BLOCKED_SECONDS - TICK_SECONDS <= mean <= over - begun + TICK_SECONDS, "it is in what they took"


@pytest.mark.parametrize(
    ("seconds", "status", "ran"), [(b"0.1", 503, 0), (b"60", 200, 1)], ids=["past its deadline", "in time"]
)
async def test_a_request_whose_deadline_passed_in_the_accept_queue_never_runs(
    start: Start, seconds: bytes, status: int, ran: int
) -> None:
    service = await start(offload="thread", workers=1, deadline=60)
    queued = Queued(service, HEAD + b"Request-Timeout: " + seconds + b"\r\n" + CLOSE)
    (answer,) = await queued.answers()
    assert status_of(answer) == status
    assert (b"\r\nRetry-After: " in answer) is not ran
    values = await service.scrape()
    assert values["offload_task_cpu_seconds_count"] == values["offload_tasks_total{outcome=completed}"] == ran
    assert values["offload_tasks_total{outcome=rejected}"] == 1 - ran


async def test_a_deadline_runs_from_the_arrival(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await start(offload="thread", workers=1, deadline=60)
    put = TaskQueue.put
    tasks: list[tuple[Task, float]] = []

    def noted(self: TaskQueue, task: Task) -> None:
        assert task.timer is not None
        tasks.append((task, task.timer.when()))
        put(self, task)

    monkeypatch.setattr(TaskQueue, "put", noted)
    queued = Queued(service, HEAD + b"Request-Timeout: 30\r\n" + CLOSE)
    assert [status_of(answer) for answer in await queued.answers()] == [200]
    ((task, expires),) = tasks
    first, last = queued.came
    assert first <= task.until - 30 <= last
    assert first <= task.limit - 60 <= last
    assert expires - 30 <= last
    assert task.submitted >= last + BLOCKED_SECONDS - 2 * TICK_SECONDS, "its wait here is another"


async def test_what_comes_after_the_accept_has_not_waited_there(
    start: Start, arrivals: list[float | None]
) -> None:
    service = await start(offload="thread", workers=1)
    first = Queued(service, HEAD + b"\r\n")
    reader, writer = await asyncio.open_connection(sock=first.sockets[0])
    await reader.readuntil(b"}")
    writer.write(HEAD + CLOSE)
    await reader.read()
    writer.close()
    half = Queued(service, HEAD)
    await service.until(lambda: service.service.metrics.connections.snapshot().accepted == 2)
    deadlines = service.service.parts.supervisor.deadlines
    await service.until(lambda: [one.state for one in deadlines.staying(Stage.HEAD)] == [State.HEAD])
    half.sockets[0].sendall(CLOSE)
    await half.answers()
    silent = Queued(service, b"")
    await service.until(lambda: service.service.metrics.connections.snapshot().accepted == 3)
    silent.sockets[0].sendall(HEAD + CLOSE)
    await silent.answers()
    came, *others = arrivals
    assert came is not None
    assert first.came[0] <= came <= first.came[1]
    assert others == [None, None, None], "the next on its connection, one in two parts, one of a late client"


async def test_once_one_has_waited_for_too_long_the_next_get_the_cheap_no(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.offload.offload.REFUSED_SECONDS", 60.0)  # the first no is still one of now
    service = await start(deadline=BLOCKED_SECONDS / 2)
    (first,) = await Queued(service, HEAD + CLOSE).answers()
    (second,) = await Queued(service, HEAD + CLOSE).answers()
    assert (status_of(first), status_of(second)) == (503, 503)
    assert b"X-Request-ID:" in first, "nothing waited, so nobody looked"
    assert b"X-Request-ID:" not in second, "before HTTP was parsed, though nothing waits"


async def test_a_tls_clients_request_comes_after_its_handshake(
    start: Start, certificate: Path, arrivals: list[float | None]
) -> None:
    service = await start(offload="thread", workers=1, tls_cert=certificate, tls_key=certificate)
    context = ssl.create_default_context(cafile=str(certificate))

    def ask() -> bytes:
        plain = socket.create_connection((service.host, service.port))
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(HEAD + CLOSE)
            return client.recv(100)

    asking = asyncio.create_task(asyncio.to_thread(ask))
    await asyncio.sleep(0)  # it has begun
    time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251  # and its handshake lies in the kernel
    assert status_of(await asking) == 200
    assert arrivals == [None]
