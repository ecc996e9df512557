"""Requests that use connections again, against servers that keep them, end them, or break them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtests.load import doctor
from loadtests.load.endpoint import Endpoint, make_endpoint
from loadtests.load.facts import Progress
from loadtests.load.loop import LoadLoop
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.load.summary import ledger
from tests.support.running import Start
from tests.support.servers import CLOCKS, KeepingServer, Reply, drive, outcomes

RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close(2) sends RST, socket(7)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
OK = HEAD + b"{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
POLITE = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"

BARE = b"HTTP/1.1 200 OK\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def always(data: bytes) -> Reply:
    """Answer and keep the connection."""

    def reply(connection: socket.socket, _number: int) -> bool:
        connection.sendall(data)
        return True

    return reply


def then_close(data: bytes, at: int = 1, *, how: bytes | None = None) -> Reply:
    """Answer; at the n-th request of a connection send these bytes and close it."""

    def reply(connection: socket.socket, number: int) -> bool:
        connection.sendall(data if number == at else OK)
        if number == at and how is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
        return number < at

    return reply


def several(server: KeepingServer, clients: int, *, more_than: int = 3, **changes: Any) -> LoadLoop:
    """Drive for a moment; if the machine gave too little of it for so many samples, anew for longer."""
    for seconds in (0.2, 2.0):
        server.requests.clear()
        loop = drive(server.url, clients=clients, duration_seconds=seconds, keep_alive=True, **changes)
        if len(loop.samples) > more_than:
            break
    return loop


def one_client(server: KeepingServer, **changes: Any) -> list[Sample]:
    """Send one request after the other; returns the samples in that order."""
    return several(server, 1, **changes).samples


def alternating(found: Sequence[object], *values: object) -> bool:
    return len(found) >= len(values) and all(one == values[n % len(values)] for n, one in enumerate(found))


def check_choice(samples: Sequence[Sample]) -> None:
    """Each request went out on the idle connection used last, and on a new one when none was idle."""
    free_from: dict[int | None, float] = {}
    for sample in sorted(samples, key=lambda sample: sample.started or 0.0):
        assert sample.started is not None
        assert sample.finished is not None
        idle = [port for port, moment in free_from.items() if moment <= sample.started]
        if sample.reused:
            assert sample.local_port == max(idle, key=lambda port: free_from[port])
        else:
            assert not idle
        free_from[sample.local_port] = sample.finished


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (OK, "GET"),
        (CHUNKED, "GET"),
        (INTERIM + OK, "GET"),
        (NO_CONTENT, "GET"),
        (POLITE, "GET"),
        (OK + b"\r\n", "GET"),
        (HEAD, "HEAD"),
        (BARE, "HEAD"),
    ],
)
def test_one_request_after_the_other_takes_one_connection(data: bytes, method: str) -> None:
    with KeepingServer(always(data)) as server:
        samples = one_client(server, method=method, expect="2xx")
    assert {sample.outcome for sample in samples} == {"ok"}
    assert [len(requests) for requests in server.requests] == [len(samples)]
    assert [sample.reused for sample in samples] == [False] + [True] * (len(samples) - 1)
    assert len({sample.local_port for sample in samples}) == 1
    assert len(samples) > 3
    books = ledger(samples)
    assert (books.connections, books.connected, books.answered) == (1, len(samples), len(samples))


def test_the_request_leaves_it_to_the_server_how_long_a_connection_is_kept() -> None:
    with KeepingServer(always(OK)) as server:
        one_client(server)
    assert all(b"connection:" not in request.lower() for request in server.requests[0])


def test_a_request_that_found_its_connection_has_no_time_to_connect() -> None:
    with KeepingServer(always(OK)) as server:
        first, *others = one_client(server)
    assert first.started is not None
    assert first.connected is not None
    assert first.connected > first.started
    assert all(sample.ready == sample.connected == sample.started for sample in others)


def test_a_due_request_never_waits_for_a_busy_connection_and_takes_the_idle_one_used_last() -> None:
    def wait_for_five(connection: socket.socket, _number: int) -> bool:
        if len(server.requests) >= 5:
            server.released.set()
        server.released.wait(20)
        connection.sendall(OK)
        return True

    with KeepingServer(wait_for_five) as server:
        loop = drive(server.url, rate=100, duration_seconds=0.3, keep_alive=True)
    assert outcomes(loop) == {"ok"}
    assert len(loop.samples) == sum(map(len, server.requests)) == 30
    assert 5 <= len(server.requests) == ledger(loop.samples).connections
    check_choice(loop.samples)


def test_each_client_of_a_closed_loop_keeps_its_connection() -> None:
    with KeepingServer(always(OK)) as server:
        loop = several(server, 3)
    assert outcomes(loop) == {"ok"}
    assert len(server.requests) == ledger(loop.samples).connections == 3 < len(loop.samples)
    check_choice(loop.samples)


@pytest.mark.parametrize(
    ("reply", "each"),
    [
        (then_close(LAST), 1),
        (then_close(LAST, at=3), 3),
        (then_close(LAST.replace(b"/1.1", b"/1.0")), 1),
        (then_close(BARE + b"{}"), 1),
        (then_close(BARE + b"{}", at=2), 2),
        (always(OK + b"junk"), 1),
        (always(OK + OK.replace(b"200", b"503")), 1),
    ],
    ids=[
        "close",
        "close at the third",
        "HTTP/1.0",
        "no length",
        "no length at the second",
        "junk",
        "another",
    ],
)
def test_an_answer_that_ends_its_connection_is_the_last_on_it(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, each: int
) -> None:
    monkeypatch.setattr("loadtests.load.loop.LEFT_OPEN_SECONDS", 20.0)
    with KeepingServer(reply) as server:
        loop = several(server, 1)
    assert outcomes(loop) == {"ok"}
    assert {len(requests) for requests in server.requests[:-1]} == {each}
    assert ledger(loop.samples).connections == len(server.requests) >= 2
    assert loop.not_closed_by_server == 0


@pytest.mark.parametrize("stall_seconds", [0.0, 0.15], ids=["seen before", "seen when the next is due"])
def test_an_idle_connection_that_the_server_ends_is_no_failure(stall_seconds: float) -> None:
    hung_up_after: set[int] = set()

    def hang_up_while_idle(progress: Progress) -> bool:
        if progress.in_flight or not progress.fired:
            return True
        if len(hung_up_after) == 2 and progress.fired not in hung_up_after:
            return False  # the request after the second time has been answered
        hung_up_after.add(progress.fired)
        server.hang_up()
        time.sleep(stall_seconds)  # the stall itself is what is tested: the next request comes due
        return True

    with KeepingServer(always(OK)) as server:
        loop = drive(server.url, hang_up_while_idle, rate=7, duration_seconds=60, keep_alive=True)
    assert len(hung_up_after) == 2
    assert not outcomes(loop) - {"ok", "not_sent", "aborted"}
    assert len(server.requests) == ledger(loop.samples).connections >= 3


def test_a_server_that_says_it_will_close_closes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.load.loop.LEFT_OPEN_SECONDS", 20.0)
    left = []

    def answer_and_look_who_closes(connection: socket.socket, _number: int) -> bool:
        connection.sendall(LAST)
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            left.append(connection.recv(1))
        return False

    with KeepingServer(answer_and_look_who_closes) as server:
        samples = one_client(server)
    assert {sample.label for sample in samples} == {"ok"}
    assert not left


def test_an_idle_connection_that_the_server_ends_is_closed_before_anybody_needs_it() -> None:
    hung_up = False
    ended: list[bool] = []

    def hang_up_and_see_the_end(progress: Progress) -> bool:
        nonlocal hung_up
        if hung_up and not ended:
            ended.append(server.ended.wait(10))
        elif progress.fired and progress.in_flight == 0:
            server.hang_up(socket.SHUT_WR)  # and still reads, to see the client's own end
            hung_up = True
        return not ended

    with KeepingServer(always(OK)) as server:
        drive(server.url, hang_up_and_see_the_end, rate=0.05, duration_seconds=60, keep_alive=True)
    assert ended == [True]


@pytest.mark.parametrize(
    ("data", "how", "label", "reason"),
    [
        (b"", None, "dropped", "FIN"),
        (b"", RST_ON_CLOSE, "dropped", "ECONNRESET"),
        (OK[:-1], None, "short", None),
        (b"SSH-2.0\r\n", None, "malformed", None),
    ],
)
def test_a_reused_connection_that_ends_without_a_byte_is_an_outcome_of_its_own(
    data: bytes, how: bytes | None, label: str, reason: str | None
) -> None:
    with KeepingServer(then_close(data, at=2, how=how)) as server:
        samples = one_client(server)
    assert alternating([sample.label for sample in samples], "ok", label)
    assert alternating([sample.reason for sample in samples], None, reason)
    assert alternating([sample.reused for sample in samples], False, True)
    books = ledger(samples)
    assert books.connected == books.answered + books.unanswered == len(samples)  # nothing was sent twice
    assert sum(map(len, server.requests)) == len(samples)


def test_a_new_connection_that_ends_without_a_byte_is_not_taken_for_one_that_was_idle() -> None:
    with KeepingServer(then_close(b"")) as server:
        samples = one_client(server)
    assert {sample.label for sample in samples} == {"short"}


def test_a_time_out_ends_its_connection() -> None:
    def answer_once(connection: socket.socket, number: int) -> bool:
        return server.hold(connection, number) if number == 2 else always(OK)(connection, number)

    with KeepingServer(answer_once) as server:
        samples = one_client(server, timeout_seconds=0.5, more_than=1)
    assert alternating([sample.label for sample in samples], "ok", "timeout")
    assert alternating([sample.reused for sample in samples], False, True)


def test_idle_connections_are_not_in_flight_and_are_closed_at_the_end() -> None:
    last: list[Progress] = []

    def keep(progress: Progress) -> bool:
        last[:] = [progress]
        return True

    with KeepingServer(always(OK)) as server:
        loop = drive(server.url, keep, rate=100, max_in_flight=1_000, keep_alive=True)
        assert server.ended.wait(20)
    assert last[0].in_flight == 0
    assert last[0].connected == ledger(loop.samples).connections
    assert not loop.interrupted


def test_a_stop_closes_what_is_idle_and_aborts_what_is_under_way() -> None:
    order = itertools.count()
    last: list[Progress] = []

    def all_but_the_first(connection: socket.socket, number: int) -> bool:
        if next(order) == 0:
            return server.hold(connection, number)
        return always(OK)(connection, number)

    def stop_after_ten(progress: Progress) -> bool:
        last[:] = [progress]
        return progress.fired < 10

    with KeepingServer(all_but_the_first) as server:
        loop = drive(server.url, stop_after_ten, rate=50, duration_seconds=60, keep_alive=True)
    books = ledger(loop.samples)
    assert loop.interrupted
    assert outcomes(loop) == {"ok", "aborted", "not_sent"}
    assert books.planned == 3_000 == books.sent + books.not_sent
    assert last[0].in_flight == 0  # those that left their connection to another are not counted twice


BODY = "x" * 8_000_000


def take_the_body(server: KeepingServer, connection: socket.socket) -> bool:
    missing = len(BODY) - len(server.requests[-1][-1].partition(b"\r\n\r\n")[2])
    while missing > 0 and (more := connection.recv(1 << 20)):
        missing -= len(more)
    connection.sendall(OK)
    return True


def test_a_body_goes_out_on_a_reused_connection() -> None:
    with KeepingServer(lambda connection, _: take_the_body(server, connection)) as server:
        samples = one_client(server, method="POST", body=BODY, more_than=1)
    assert {sample.outcome for sample in samples} == {"ok"}
    assert [len(requests) for requests in server.requests] == [len(samples)]


def test_a_part_of_an_answer_ahead_of_a_reset_is_more_than_nothing() -> None:
    def break_off_at_the_second(connection: socket.socket, number: int) -> bool:
        if number == 1:
            return take_the_body(server, connection)
        connection.sendall(OK[:-1])
        return False  # with most of the body unread: the kernel sends RST

    with KeepingServer(break_off_at_the_second) as server:
        samples = one_client(server, method="POST", body=BODY, more_than=1)
    assert alternating([sample.label for sample in samples], "ok", "reset")


def test_https_shakes_hands_once(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    with KeepingServer(always(large), tls=context) as server:
        samples = one_client(server, insecure=True)
    assert {sample.outcome for sample in samples} == {"ok"}
    assert [len(requests) for requests in server.requests] == [len(samples)]
    assert [sample.secured is None for sample in samples] == [False] + [True] * (len(samples) - 1)


@pytest.mark.parametrize("load", [{"rate": 100}, {"clients": 3}])
async def test_the_service_accepted_as_many_connections_as_the_run_says(
    start: Start, load: dict[str, Any]
) -> None:
    service = await start()

    def run(seconds: float) -> LoadLoop:
        return drive(f"{service.url}/data", duration_seconds=seconds, keep_alive=True, **load)

    for seconds in (0.3, 2.0):  # the second if the machine stood still for most of the first
        before = service.service.metrics.connections.snapshot().accepted
        loop = await asyncio.to_thread(run, seconds)
        books = ledger(loop.samples)
        assert outcomes(loop) == {"ok"}
        accepted = service.service.metrics.connections.snapshot().accepted - before
        assert accepted == books.connections
        if accepted < books.answered:
            break
    assert accepted < books.answered


@pytest.mark.parametrize(
    ("load", "most"),
    [
        ({"rate": 100_000, "duration_seconds": 60}, "at most 10,000."),
        ({"rate": 10, "duration_seconds": 4}, "at most 40."),
        ({"clients": 7, "duration_seconds": 60}, "at most 7."),
    ],
)
def test_before_a_run_nobody_cries_that_ports_will_be_missing(load: dict[str, Any], most: str) -> None:
    phase = Phase(url="http://127.0.0.1:9/", keep_alive=True, **load)
    found = doctor.examine([phase], make_endpoint(phase), ["run"])
    assert found.suffices
    text = " ".join(doctor.lines(found))
    assert "Connections are kept" in text
    assert most in text
    assert "closes first" not in text


def test_half_the_ports_are_gone_after_so_many_connections_whatever_the_number_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_socket = Endpoint.open_socket
    opened = 0

    def third_from_the_other_half(endpoint: Endpoint) -> socket.SocketType | socket.socket:
        nonlocal opened
        opened += 1
        sock = open_socket(endpoint)
        for port in range(21_000 + (opened == 3), 22_000, 2):  # below the kernel's own choice
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                break
        return sock

    told: list[int] = []

    def stop_when_told(progress: Progress) -> bool:
        if progress.half_ports_after is not None:
            told.append(progress.half_ports_after)
        return not told

    monkeypatch.setattr(Endpoint, "open_socket", third_from_the_other_half)
    with KeepingServer(then_close(LAST, at=2)) as server:
        phase = Phase(url=server.url, clients=1, duration_seconds=60, keep_alive=True)
        LoadLoop(phase, make_endpoint(phase), stop_when_told, CLOCKS, late_port_parity=1).run()
    assert told[0] == 3
