"""Names on real connections: echoed, in every line of a request and in no other; and the request log."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
import structlog
from aiohttp import web

from service.log import setup as logs
from service.web.identity import REQUEST_ID, TRACEPARENT
from tests import work
from tests.conftest import Logged
from tests.support.running import Routes, Running, Start, body_of, status_of

TRACEPARENT_SENT = "00-12345678901234567890123456789012-1234567890123456-01"
log = structlog.get_logger("tests.handler")
library = logging.getLogger("tests.library")


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: t", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def header(answer: bytes, name: str) -> str | None:
    """The one header of this name; None without it."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    found = [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}: ")]
    assert len(found) <= 1
    return found[0] if found else None


async def talk(service: Running, *requests: bytes) -> list[bytes]:
    """Answers to requests on one connection, one after the other."""
    reader, writer = await service.connect()
    answers = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        answers.append(head + await reader.readexactly(int(header(head, "Content-Length") or 0)))
    writer.close()
    await writer.wait_closed()
    return answers


async def says_its_names(request: web.Request) -> web.Response:
    """Logs once by structlog and once by logging; answers with its names."""
    log.info("ours", says=request.query.get("says"))
    library.info("theirs")
    return web.Response(text=f"{request[REQUEST_ID]} {request.get(TRACEPARENT)}")


@pytest.fixture
def names(routes: Routes) -> None:
    routes("/names", says_its_names)


@pytest.mark.usefixtures("names")
async def test_a_request_has_the_name_that_its_client_gave_it(start: Start) -> None:
    service = await start()
    (answer,) = await talk(service, get("/names", X_Request_ID="abc-1", TraceParent=TRACEPARENT_SENT))
    assert header(answer, "X-Request-ID") == "abc-1"
    assert body_of(answer).decode() == f"abc-1 {TRACEPARENT_SENT}"


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("said", [{}, {"X_Request_ID": "no\tgood", "traceparent": "00-no-good-01"}])
async def test_without_a_good_name_it_gets_one_of_its_own(start: Start, said: dict[str, str]) -> None:
    service = await start()
    first, second = await talk(service, get("/names", **said), get("/names", **said))
    made = {header(first, "X-Request-ID"), header(second, "X-Request-ID")}
    assert len(made) == 2
    assert not made & {None, "no\tgood"}
    assert body_of(first).decode() == f"{header(first, 'X-Request-ID')} None"


@pytest.mark.usefixtures("names")
async def test_every_line_of_a_request_bears_its_names_and_no_others(start: Start, logged: Logged) -> None:
    service = await start()
    await asyncio.gather(
        talk(
            service,
            get("/names?says=a1", X_Request_ID="a1", traceparent=TRACEPARENT_SENT),
            get("/names?says=a2", X_Request_ID="a2"),
            get("/names?says=a3", X_Request_ID="a3"),
        ),
        talk(service, get("/names?says=b1", X_Request_ID="b1"), get("/names?says=b2", X_Request_ID="b2")),
    )
    ours = {line["says"]: line for line in logged() if line["event"] == "ours"}
    assert {says: line["request_id"] for says, line in ours.items()} == {says: says for says in ours}
    assert len(ours) == 5
    assert [says for says, line in ours.items() if "traceparent" in line] == ["a1"]
    assert ours["a1"]["traceparent"] == TRACEPARENT_SENT
    a, b = ({line["connection"] for says, line in ours.items() if says[0] == one} for one in "ab")
    assert (len(a), len(b), a & b) == (1, 1, set())
    theirs = [line for line in logged() if line["event"] == "theirs"]
    assert sorted(line["request_id"] for line in theirs) == sorted(ours)
    assert {line["connection"] for line in theirs} == a | b


async def test_lines_between_requests_and_after_them_bear_no_requests_name(
    start: Start, logged: Logged, routes: Routes
) -> None:
    async def hangs_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()  # ends the connection from within the request's context
        return web.Response()

    routes("/gone", hangs_up)
    routes("/names", says_its_names)
    service = await start(max_connections=1)
    reader, writer = await service.connect()
    writer.write(get("/gone", X_Request_ID="gone", traceparent=TRACEPARENT_SENT))
    waiting = asyncio.create_task(talk(service, get("/names", X_Request_ID="next")))
    assert await reader.read() == b""
    writer.close()
    await waiting
    (line,) = [line for line in logged() if line["event"] == "ours"]
    assert line["request_id"] == "next"
    assert "traceparent" not in line
    await service.service.stop()
    for line in logged():
        if line["logger"].startswith("offloop"):
            assert not {"request_id", "traceparent", "connection"} & line.keys()


async def test_what_the_chassis_and_aiohttp_say_of_a_failure_bears_its_name(
    start: Start, logged: Logged, routes: Routes
) -> None:
    async def fails(_: web.Request) -> web.Response:
        raise ZeroDivisionError("secret")

    routes("/fails", fails)
    service = await start(work="tests.work:fails_on_demand")
    work.failing.set()
    try:
        await talk(service, get("/data", X_Request_ID="one"))
        await talk(service, get("/fails", X_Request_ID="two"))
    finally:
        work.failing.clear()
    ours, theirs = (line for line in logged() if line["level"] == "error")
    assert (ours["logger"], ours["event"], ours["request_id"]) == ("offloop.app", "work failed", "one")
    assert "secret" in ours["traceback"]
    assert (theirs["logger"], theirs["request_id"]) == ("aiohttp.server", "two")
    assert "secret" in theirs["exception"]
    assert ours["connection"] != theirs["connection"]


async def test_a_flood_of_failures_is_bounded_in_the_log(
    start: Start, logged: Logged, routes: Routes
) -> None:
    async def fails(_: web.Request) -> web.Response:
        raise ZeroDivisionError

    routes("/fails", fails)
    service = await start()
    begun, failures, most = time.monotonic(), 0, float(logs.SERIOUS.burst)
    while failures < most + 20:  # a slow machine needs more of them
        await service.get("/fails")
        failures += 1
        most = logs.SERIOUS.burst + logs.SERIOUS.per_second * (time.monotonic() - begun)
    await service.service.stop()
    said = logged()
    assert sum(line["logger"] == "aiohttp.server" for line in said) <= most < failures
    steps = {line["event"] for line in said if line["logger"].startswith("offloop.")}
    assert {"ready", "draining", "listener closed", "connections ended", "workers stopped"} <= steps


def requests_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["logger"] == "offloop.request"]


async def test_a_line_of_the_request_log_says_what_was_asked_and_answered(
    start: Start, logged: Logged
) -> None:
    service = await start(request_log=1)
    answer, _, _ = await talk(
        service,
        get("/data?secret=1", X_Request_ID="one", traceparent=TRACEPARENT_SENT, X_Forwarded_For="1.2.3.4"),
        get("/no/such" + "/x" * 200 + "?secret=2", X_Request_ID="two"),
        get("/data", Request_Timeout="soon", X_Request_ID="three"),
    )
    await service.until(lambda: len(requests_in(logged())) == 3)
    first, second, third = requests_in(logged())
    assert first.pop("timestamp")
    assert 0 < first.pop("seconds") < 20
    assert first.pop("connection") == second["connection"] == third["connection"]
    assert first == {
        "event": "request",
        "logger": "offloop.request",
        "level": "info",
        "method": "GET",
        "route": "/data",
        "status": 200,
        "bytes": len(answer),
        "client": "127.0.0.1",
        "request_id": "one",
        "traceparent": TRACEPARENT_SENT,
    }
    assert second["path"].startswith("/no/such/x")
    assert len(second["path"]) == 200
    assert (second["status"], second["request_id"], "route" in second) == (404, "two", False)
    assert (third["status"], third["request_id"]) == (400, "three")
    assert "secret" not in str(requests_in(logged()))


async def test_the_request_log_is_off_unless_switched_on(start: Start, logged: Logged) -> None:
    service = await start()
    await service.get()
    assert requests_in(logged()) == []


async def test_the_request_log_holds_the_share_that_was_asked_for(start: Start, logged: Logged) -> None:
    low, high = (f"00-{'1' * 31}2-{'2' * 16}-01", f"00-{'f' * 32}-{'2' * 16}-00")
    service = await start(request_log=0.5)
    await talk(service, get("/data", traceparent=low), get("/data", traceparent=high))
    await service.until(lambda: bool(requests_in(logged())))
    (line,) = requests_in(logged())
    assert line["traceparent"] == high


async def test_what_was_no_request_is_counted_and_not_in_the_request_log(
    start: Start, logged: Logged
) -> None:
    service = await start(request_log=1)
    reader, writer = await service.connect()
    for request, status in ((get("/data"), b" 200 "), (b"what is this\r\n\r\n", b" 400 ")):
        writer.write(request)
        assert status in await reader.readuntil(b"\r\n\r\n")
    await reader.read()
    writer.close()
    assert [line["status"] for line in requests_in(logged())] == [200]
    assert (await service.scrape())["http_requests_total{method=OTHER,route=OTHER,status=400}"] == 1


POST = b"POST /data HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, b"what is this\r\n\r\n"),
        (400, b"GET /data?width=secret HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"),
        (400, get("/data", Request_Timeout="secret", Connection="close")),
        (404, get("/secret", Connection="close")),
        (405, POST + b"\r\n"),
        (408, b"GET /data HT"),
        (413, b"POST /reads HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 9\r\n\r\nsecrets!!"),
        (417, get("/data", Expect="more", Connection="close")),
        (431, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"),
        (500, get("/fails", Connection="close")),
        (500, get("/fails", Connection="close", Accept="text/html")),
        (500, get("/returns-nothing", Connection="close")),
        (500, get("/data?width=3", Connection="close")),
        (504, get("/times-out", Connection="close")),
    ],
)
async def test_no_answer_tells_what_is_inside(
    start: Start, routes: Routes, status: int, request_: bytes
) -> None:
    async def fails(_: web.Request) -> web.Response:
        raise LookupError("secret")

    async def times_out(_: web.Request) -> web.Response:
        raise TimeoutError("secret")

    async def returns_nothing(_: web.Request) -> web.Response:
        return None  # type: ignore[return-value]  # the mistake that is made

    async def reads(request: web.Request) -> web.Response:
        return web.Response(body=await request.clone(client_max_size=3).read())

    for path, handler in {
        "/fails": fails,
        "/times-out": times_out,
        "/returns-nothing": returns_nothing,
        "/reads": reads,
    }.items():
        routes(path, handler)
    service = await start(offload="thread", work="tests.work:fails_with_a_width", header_timeout=0.2)
    answer = await service.exchange(request_)
    assert status_of(answer) == status
    assert header(answer, "Server") == "offloop"
    for inside in (b"secret", b"Traceback", b"Error(", b".py", b"/work", b"Python", b"aiohttp"):
        assert inside not in answer, answer


async def test_an_answer_that_streams_is_signed_as_well(start: Start, routes: Routes) -> None:
    async def streams(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Server": "mine", "X-Request-ID": "mine"})
        await answer.prepare(request)
        await answer.write(b"x")
        return answer

    routes("/streams", streams)
    service = await start()
    answer = await service.exchange(get("/streams", Connection="close", X_Request_ID="abc"))
    assert (header(answer, "Server"), header(answer, "X-Request-ID")) == ("offloop", "abc")
