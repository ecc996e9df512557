"""What a client gets when workers are busy, late or missing, and that every count adds up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from metrics.exposition import total
from metrics.instruments import ConnectionEnd
from service.app.offloader import Offloader
from service.lifecycle.states import State
from service.net import refusing, tcp
from service.offload import admission
from service.offload.classes import Place
from service.offload.lane_pool import LanePool
from service.web import connection, early_reject
from service.web.early_reject import Verdict
from tests import work
from tests.support.running import Running, Start, body_of, status_of

ROOT = Path(__file__).parents[2]


processes = pytest.mark.parametrize("offload", ["process", "executor"])
"""What is promised of processes, whoever keeps them."""


async def busy(
    start: Start, path: str = "/data", **more: object
) -> tuple[Running, list[asyncio.Task[bytes]]]:
    """A service whose one worker is at the gate with one request, while another waits."""
    settings: dict[str, object] = {"offload": "thread", "workers": 1, "work": "tests.work:waits_at_the_gate"}
    service = await start(**{**settings, "queue_wait": 1e-9, **more})
    waiting = []
    for count in (1, 2):
        waiting.append(asyncio.create_task(service.get(path)))
        await service.until(lambda count=count: in_offload(service) == count)  # type: ignore[misc]
    service.clients = waiting  # else they end with the test, before the drain has answered them
    return service, waiting


def in_offload(service: Running) -> int:
    offload = service.service.parts.offload
    return offload.running + offload.waiting


@pytest.mark.usefixtures("gate")
async def test_who_cannot_be_served_in_time_is_told_so_at_once(start: Start) -> None:
    service, waiting = await busy(start)
    work_before = in_offload(service)
    answers = [await service.get() for _ in range(5)]
    for answer in answers:
        assert status_of(answer) == 503
        assert re.search(rb"\r\nRetry-After: [1-9]\d*\r\n", answer)
        assert body_of(answer) == b"Service Unavailable\n"
    assert in_offload(service) == work_before
    assert status_of(await service.get("/healthz")) == 200, "what needs no worker is served"
    work.gate.set()
    assert [status_of(answer) for answer in await asyncio.gather(*waiting)] == [200, 200]
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=rejected}"] == 5
    assert values["offload_tasks_total{outcome=completed}"] == 2
    assert total(values, "http_requests_total", route="/data", status="503") == 5
    assert values["http_connections_completed_total{reason=closed}"] == 8


@pytest.mark.usefixtures("gate")
async def test_refusals_hide_nothing_of_what_an_answer_took(start: Start) -> None:
    service = await start(offload="thread", workers=1, work="tests.work:waits_at_the_gate", queue_wait=1e-9)
    clock = asyncio.get_running_loop().time

    async def timed() -> float:
        began = clock()
        assert status_of(await service.get()) == 200
        return clock() - began

    waiting: list[asyncio.Task[float]] = []
    for count in (1, 2):
        waiting.append(asyncio.create_task(timed()))
        await service.until(lambda count=count: in_offload(service) == count)  # type: ignore[misc]
    held = clock()
    for _ in range(20):
        assert status_of(await service.get()) == 503
    assert (await service.scrape())["http_requests_in_flight"] == 2
    least = clock() - held
    work.gate.set()
    most = sum(await asyncio.gather(*waiting)) / 2
    values = await service.scrape()
    duration, of = "http_request_duration_seconds", "{route=/data,status_class=2xx}"
    assert total(values, "http_requests_total", status="503") == 20
    assert total(values, f"{duration}_count") == values[f"{duration}_count{of}"] == 2
    assert least <= values[f"{duration}_sum{of}"] / 2 <= most, "the clients' mean"
    assert total(values, f"{duration}_bucket", le="0.0005") == 0, "nothing took no time"
    assert values["http_requests_in_flight"] == 0


@pytest.mark.usefixtures("gate")
async def test_the_predicted_wait_is_what_the_gate_goes_by(start: Start) -> None:
    service, waiting = await busy(start)
    admission = service.service.parts.offload._queue.admission
    admission.seconds = 2.0
    assert (await service.scrape())["offload_predicted_wait_seconds"] == 3.0, "one waits, one is half done"
    work.gate.set()
    await asyncio.gather(*waiting)
    assert (await service.scrape())["offload_predicted_wait_seconds"] == 0


@pytest.mark.usefixtures("gate")
async def test_the_cheap_no_and_the_long_way_round_say_the_same(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = await busy(start)
    cheap = await service.get()
    assert b"X-Request-ID:" not in cheap, "it is the cheap one"
    monkeypatch.setattr(early_reject.EarlyReject, "__call__", lambda *_: Verdict.PASSED)
    slow = await service.get()
    assert b"X-Request-ID:" in slow

    def known(answer: bytes) -> dict[bytes, bytes]:
        lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:]) | {b"date": b"some time"}
        assert fields.pop(b"retry-after") in {b"1", b"2"}, "it is spread"
        return {b"": lines[0], **{name: fields[name] for name in fields.keys() - {b"x-request-id"}}}

    assert known(cheap) == known(slow)
    assert body_of(cheap) == body_of(slow)
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=rejected}"] == 2


async def test_who_comes_while_the_breaker_is_open_gets_the_cheap_no(start: Start) -> None:
    service = await start(offload="thread", workers=1)
    pool = service.service.parts.offload._pool
    assert isinstance(pool, LanePool)
    while pool.healthy:
        pool._count_death()
    answer = await service.get("/data")
    assert status_of(answer) == 503
    assert b"X-Request-ID:" not in answer
    pool._succeeded()
    assert status_of(await service.get("/data")) == 200


def gated_application(offload: Offloader) -> web.Application:
    """Every GET of /gated and of /open waits at the gate; only of /gated does the application say so."""

    async def wait(request: web.Request) -> web.Response:
        return web.Response(body=await offload(request, work.waits_at_the_gate, 2))

    app = web.Application()
    app.router.add_get("/gated", wait)
    app.router.add_get("/open", wait)
    offload.always.add("/gated")
    return app


@pytest.mark.usefixtures("gate")
async def test_an_application_says_which_paths_are_refused_early(start: Start) -> None:
    application = f"{__name__}:gated_application"
    service = await start(offload="thread", workers=1, app=application, queue_wait=1e-9)
    service.clients = []
    for count in (1, 2):
        service.clients.append(asyncio.create_task(service.get("/gated")))
        await service.until(lambda count=count: in_offload(service) == count)  # type: ignore[misc]
    early, late = await service.get("/gated"), await service.get("/open")
    assert (status_of(early), status_of(late)) == (503, 503)
    assert b"X-Request-ID:" not in early
    assert b"X-Request-ID:" in late, "it went through the HTTP server"
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=rejected}"] == 2
    assert total(values, "http_requests_total", route="/gated", status="503") == 1


async def arrived_before_it_is_accepted(service: Running, sent: bytes) -> bytes:
    """The answer to a client whose request is here when it is accepted: only such a one is recognised."""
    client = socket.create_connection((service.host, service.port))  # blocks, and so does the service's loop
    client.sendall(sent)
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        return await reader.read()
    finally:
        writer.close()


def application_of_surprises(offload: Offloader) -> web.Application:
    """Every GET of /gated waits at the gate. The rest are said to, and do not."""

    async def wait(request: web.Request) -> web.Response:
        return web.Response(body=await offload(request, work.waits_at_the_gate, 2))

    async def answers(_: web.Request) -> web.Response:
        return web.Response(text="from a cache\n")

    async def fails(_: web.Request) -> web.Response:
        raise LookupError

    app = web.Application()
    app.router.add_get("/gated", wait)
    app.router.add_get("/cached", answers)
    app.router.add_get("/fails", fails)
    app.router.add_post("/posted", answers)
    offload.always |= {"/gated", "/cached", "/fails", "/posted", "/nowhere"}
    return app


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /gated HTTP/1.1\r\n\r\n", 400),
        (b"GET /gated HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n", 400),
        (b"GET /gated HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n", 400),
        (b"GET /gated HTTP/1.1\r\nHost: t\r\nRequest-Timeout: soon\r\nConnection: close\r\n\r\n", 400),
        (b"GET /cached HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 200),
        (b"GET /fails HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 500),
        (b"GET /posted HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 405),
        (b"GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 404),
        (b"GET /gated HTTP/1.1\r\nHost: t\r\n\r\n", 0),  # and its connection is lost before HTTP
    ],
)
@pytest.mark.usefixtures("gate")
async def test_a_request_that_never_reaches_the_queue_keeps_no_place_in_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int
) -> None:
    monkeypatch.setattr(admission, "MOST_WAITING", 4)
    service, waiting = await busy(
        start, app=f"{__name__}:application_of_surprises", path="/gated", queue_wait=1000
    )
    with monkeypatch.context() as patch:
        if not status:
            patch.setattr(web.RequestHandler, "connection_made", lambda *_: 1 / 0)
        for _ in range(12):
            with contextlib.suppress(ConnectionError):
                answer = await arrived_before_it_is_accepted(service, sent)
                assert not status or status_of(answer) == status
    waiting.append(asyncio.create_task(service.get("/gated")))
    await service.until(lambda: waiting[-1].done() or in_offload(service) == 3)
    work.gate.set()
    assert [status_of(answer) for answer in await asyncio.gather(*waiting)] == [200] * 3


@pytest.mark.usefixtures("gate")
async def test_who_asks_a_moment_after_connecting_is_refused_as_cheaply(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = await busy(start)
    looks: list[Verdict | Place] = []
    check = early_reject.EarlyReject.__call__

    def checked(self: early_reject.EarlyReject, sock: socket.socket, *told: Any) -> Verdict | Place:
        looks.append(check(self, sock, *told))
        return looks[-1]

    monkeypatch.setattr(early_reject.EarlyReject, "__call__", checked)
    monkeypatch.setattr(connection, "PATIENCE", (0.0, 0.2))
    reader, writer = await service.connect()
    await service.until(lambda: len(looks) == 2)
    writer.write(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")
    assert status_of(await reader.read()) == 503
    writer.close()
    await writer.wait_closed()
    assert looks == [Verdict.SILENT, Verdict.SILENT, Verdict.REFUSED]


@pytest.mark.usefixtures("gate")
async def test_who_has_too_many_connections_is_closed_and_counted_so_while_others_are_refused(
    start: Start,
) -> None:
    service, _ = await busy(start, max_connections_per_client=2)
    with socket.create_connection((service.host, service.port)) as client:
        # Before the loop can turn: the request is there at accept.
        client.sendall(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")
        completed = service.service.metrics.connections.snapshot
        await service.until(lambda: completed().completed[ConnectionEnd.CLIENT_LIMIT] == 1)
    values = await service.scrape()
    assert total(values, "http_requests_total", status="503") == 0


@pytest.mark.skipif(tcp.TCP_DEFER_ACCEPT is None, reason="asks for Linux's TCP_DEFER_ACCEPT")
@pytest.mark.usefixtures("gate")
async def test_who_is_silent_while_others_are_refused_is_held_back_and_no_drain_loses_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusing, "LASTS_SECONDS", 60.0)
    service, waiting = await busy(start)
    connections = service.service.metrics.connections
    assert status_of(await service.get()) == 503
    before = connections.snapshot().accepted
    silent = socket.create_connection((service.host, service.port))
    assert status_of(await service.get()) == 503
    assert connections.snapshot().accepted == before + 1, "it is before the other in the kernel"
    reader, writer = await asyncio.open_connection(sock=silent)
    stopping = asyncio.create_task(service.service.stop())
    await service.until(lambda: service.service.life.state is State.DRAINING)
    work.gate.set()
    writer.write(b"GET /data HTTP/1.1\r\nHost: t\r\n\r\n")
    assert status_of(await reader.read()) in (200, 503)
    writer.close()
    assert [status_of(answer) for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert await stopping == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /data?a=b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 503),
        (b"HEAD /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 503),
        (b"GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 404),
        (b"POST /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"GET /data HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 503),
        (
            b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
            b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
            200,
        ),
        (b"GET /data nonsense\r\n\r\n", 400),
    ],
)
@pytest.mark.usefixtures("gate")
async def test_only_what_is_understood_is_refused_early(start: Start, sent: bytes, status: int) -> None:
    service, _ = await busy(start)
    assert status_of(await service.exchange(sent)) == status


@pytest.mark.usefixtures("gate")
async def test_a_request_past_its_deadline_gets_504(start: Start) -> None:
    service, waiting = await busy(start, deadline=2, queue_wait="off")
    assert [status_of(answer) for answer in await asyncio.gather(*waiting)] == [504, 504]
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=expired}"] == 2


@pytest.mark.usefixtures("gate")
async def test_a_request_may_ask_for_a_shorter_deadline(start: Start) -> None:
    service = await start(offload="thread", workers=1, work="tests.work:waits_at_the_gate", deadline=60)
    head = b"GET /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
    seconds, milliseconds = b"Request-Timeout: ", b"x-envoy-expected-rq-timeout-ms: "
    for shorter in (
        seconds + b"0.05",
        milliseconds + b"50",
        seconds + b"0.05\r\n" + milliseconds + b"60000",
        seconds + b"60\r\n" + milliseconds + b"50",
    ):
        assert status_of(await service.exchange(head + shorter + b"\r\n\r\n")) == 504
    for name in (seconds, milliseconds):
        for nonsense in (b"soon", b"-1", b"0", b"nan"):
            answer = await service.exchange(head + name + nonsense + b"\r\n\r\n")
            assert status_of(answer) == 400
            assert name[:-2] in body_of(answer)


@processes
async def test_a_worker_that_dies_costs_no_request(start: Start, offload: str) -> None:
    service = await start(offload=offload, workers=1, work="tests.work:kills_its_worker_once")
    assert status_of(await service.get()) == 200
    values = await service.scrape()
    assert values["offload_worker_restarts_total{reason=crashed}"] == 1
    assert values["offload_tasks_total{outcome=completed}"] == 1


@processes
async def test_inputs_that_all_differ_and_kill_get_500_until_the_breaker_opens_and_readiness_follows(
    start: Start, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "FIRST_PROBE_SECONDS", 10.0)  # on a busy machine a probe would be due
    service = await start(offload=offload, workers=1, work="tests.work:kills_if_poison")
    answers = [status_of(await service.get(f"/data?name=poison{number}")) for number in range(4)]
    assert answers[0] == 500
    assert answers[-1] == 503
    assert status_of(await service.get("/readyz")) == 503
    assert service.service.ready() == (False, "workers keep dying")


@pytest.mark.parametrize("offload", ["inline", "process", "executor"])
@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("?width=3", 200, {"area": 6.0}),
        ("?width=3&height=0.5&colour=red", 200, {"area": 1.5, "colour": "red"}),
        ("", 400, "width"),
        ("?width=wide", 400, "width: Input should be a valid integer"),
    ],
)
async def test_the_query_becomes_the_arguments_of_the_work(
    start: Start, offload: str, query: str, status: int, body: object
) -> None:
    service = await start(offload=offload, workers=1, work="tests.work:area")
    answer = await service.get(f"/data{query}")
    assert status_of(answer) == status
    if status == 200:
        assert json.loads(body_of(answer)) == body
    else:
        assert str(body).encode() in body_of(answer)


@processes
async def test_what_the_work_raises_is_for_the_log_alone(
    start: Start, capsys: pytest.CaptureFixture[str], offload: str
) -> None:
    service = await start(offload=offload, workers=1, work="tests.work:fails_in_a_worker")
    answer = await service.get("/data?name=x")
    assert status_of(answer) == 500
    assert b"secret" not in answer
    assert "LookupError: secret x" in "".join(capsys.readouterr())


async def test_a_task_past_its_deadline_is_answered_504_and_keeps_its_place_in_an_executor(
    start: Start, tmp_path: Path
) -> None:
    service = await start(offload="executor", workers=1, work="tests.work:waits_for", deadline=3)
    go = tmp_path / "go"
    path = f"/data?begun={tmp_path / 'begun'}&go={go}"
    assert status_of(await service.get(path)) == 504
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=expired}"] == 1
    assert values["offload_running"] == 1
    assert values["offload_worker_restarts_total{reason=deadline}"] == 0
    go.touch()
    await service.until(lambda: in_offload(service) == 0)
    assert status_of(await service.get(path)) == 200
    values = await service.scrape()
    assert values["offload_task_cpu_seconds_count"] == 2
    assert values["offload_worker_restarts_total{reason=crashed}"] == 0


def readme_example() -> str:
    """The example application of the README."""
    found = re.search(r"<!-- app:begin -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found.group(1)


@pytest.mark.parametrize("offload", ["thread", "executor"])
async def test_the_application_of_the_readme_runs_on_the_chassis(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    (tmp_path / "thumbnails.py").write_text(readme_example())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    service = await start(offload=offload, workers=1, app="thumbnails:application")
    answer = await service.exchange(
        b"POST /digest HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert status_of(answer) == 200
    assert json.loads(body_of(answer))["sha256"].startswith("ba7816bf")
    assert status_of(await service.get("/healthz")) == 200
    assert status_of(await service.get("/data")) == 404
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=completed}"] == 1
    assert values["http_requests_total{method=POST,route=/digest,status=200}"] == 1


@processes
async def test_a_result_above_the_limit_is_answered_500_and_logged_with_its_size(
    start: Start, offload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await start(offload=offload, workers=1, work="tests.work:as_large_as_asked", max_result=1)
    assert len(body_of(await service.get("/data?size=1000000"))) == 1_000_000
    assert status_of(await service.get("/data?size=2000000")) == 500
    assert "the result has 20000" in "".join(capsys.readouterr())
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=failed}"] == 1
    assert values["offload_worker_restarts_total{reason=crashed}"] == 0


@processes
async def test_a_request_that_never_fits_into_the_budget_of_bytes_gets_413(
    start: Start, offload: str
) -> None:
    application = f"{__name__}:measuring_application"
    service = await start(offload=offload, workers=1, app=application, max_queue_bytes=2**20)
    for size, status in ((1_000_000, 200), (1_048_576, 413)):
        head = f"POST /length HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        answer = await service.exchange(head.encode() + bytes(size))
        assert status_of(answer) == status
    assert b"Retry-After" not in answer
    values = await service.scrape()
    assert values["offload_tasks_total{outcome=failed}"] == 1
    assert values["offload_tasks_total{outcome=rejected}"] == 0


def measuring_application(offload: Offloader) -> web.Application:
    """Sends each body to a worker."""

    async def measure(request: web.Request) -> web.Response:
        return web.Response(text=str(await offload(request, len, await request.read())))

    app = web.Application()
    app.router.add_post("/length", measure)
    return app
