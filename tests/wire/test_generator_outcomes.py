"""Outcomes of a request, produced for real, beside those of tests/process/test_known_answers.py."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.load.doctor import Examination, examine
from loadtests.load.endpoint import Endpoint, make_endpoint
from loadtests.load.facts import Progress
from loadtests.load.phase import Phase
from loadtests.load.summary import ledger
from tests.support.servers import (
    OK_ANSWER,
    Behaviour,
    ScriptedServer,
    answer_and_await_the_end,
    answer_with,
    drive,
    outcomes,
)

IP_LOCAL_PORT_RANGE = 51  # ip(7), Linux 6.3; Python has no name for it


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000


@pytest.mark.parametrize(
    ("behaviour", "label"),
    [
        (answer_with(OK_ANSWER), "ok"),
        (answer_with(CHUNKED), "ok"),
        (answer_with(LARGE), "ok"),
        (answer_with(b"HTTP/1.0 200 OK\r\n\r\n{}"), "ok"),
        (answer_with(b"HTTP/1.1 204 No Content\r\n\r\n"), "status_204"),
        (answer_with(b"SSH-2.0-OpenSSH_9.6\r\n"), "malformed"),
    ],
)
def test_what_the_server_does_is_what_the_sample_says(behaviour: Behaviour, label: str) -> None:
    with ScriptedServer(behaviour) as server:
        loop = drive(server.url)
    assert outcomes(loop) == {label}
    assert ledger(loop.samples).connected == len(loop.samples) == len(server.requests) == 5


def test_the_moments_of_an_answered_request_stand_in_order() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        loop = drive(server.url)
        assert outcomes(loop) == {"ok"}
        for sample in loop.samples:
            moments = [sample.intended, sample.started, sample.connected, sample.first_byte, sample.finished]
            known = [moment for moment in moments if moment is not None]
            assert len(known) == 5
            assert known == sorted(known)


def test_an_address_where_nobody_listens_is_given_up_after_twenty_refusals() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # ours, so nobody else can listen there meanwhile
        loop = drive(f"http://127.0.0.1:{bound.getsockname()[1]}/", rate=1000, duration_seconds=20)
    assert loop.unreachable
    assert {"connect_ECONNREFUSED", "not_sent"} <= outcomes(loop)
    assert 20 <= ledger(loop.samples).connect_failed < 20_000


def test_refusals_after_a_connection_has_stood_are_a_finding_and_do_not_end_the_run() -> None:
    def answer_and_listen_no_more(connection: socket.socket) -> None:
        connection.sendall(OK_ANSWER)
        server.stop()

    with ScriptedServer(answer_and_listen_no_more) as server:
        loop = drive(server.url, rate=200, duration_seconds=1)
    assert not loop.unreachable
    books = ledger(loop.samples)
    assert books.not_sent == 0
    assert books.connect_failed > 20


def test_a_server_that_never_answers_ends_in_a_time_out() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(server.url, timeout_seconds=0.2)
    assert outcomes(loop) == {"timeout"}
    for sample in loop.samples:
        assert sample.connected is not None
        assert sample.finished is not None
        assert sample.started is not None
        assert sample.finished - sample.started >= 0.2


def test_the_time_out_also_ends_an_answer_that_drips() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(OK_ANSWER[:-1])
        server.hold(connection)

    with ScriptedServer(drip) as server:
        loop = drive(server.url, timeout_seconds=2)
    assert outcomes(loop) == {"timeout"}
    assert all(sample.first_byte is not None for sample in loop.samples)


def test_an_answer_that_lay_unread_while_the_generator_stood_still_is_booked_to_the_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To look may take a busy machine long.
    monkeypatch.setattr("loadtests.load.readiness.AT_ONCE_SECONDS", 0.02)
    go, written = threading.Event(), threading.Event()

    def answer_when_told(connection: socket.socket) -> None:
        go.wait(20)
        connection.sendall(OK_ANSWER)
        written.set()

    def stand_still(progress: Progress) -> bool:
        if progress.elapsed_seconds > 0.1 and not go.is_set():
            go.set()
            written.wait(20)
            time.sleep(0.05)  # the stall itself is what is tested
        return True

    with ScriptedServer(answer_when_told) as server:
        (sample,) = drive(server.url, stand_still, rate=20).samples
    assert sample.outcome == "ok"
    assert sample.receive_lateness_seconds is not None
    assert sample.receive_lateness_seconds >= 0.05


def test_above_max_in_flight_nothing_is_sent_and_everything_is_counted() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:

        def release_when_all_are_decided(progress: Progress) -> bool:
            if progress.outcomes.get("not_sent") == 8:
                server.release()
            return True

        loop = drive(server.url, release_when_all_are_decided, duration_seconds=0.1, max_in_flight=2)
    assert [sample.reason for sample in loop.samples if sample.outcome == "not_sent"] == ["max_in_flight"] * 8
    assert len(server.requests) == 2


def test_a_stop_marks_what_was_under_way_and_what_was_never_sent() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(server.url, lambda progress: progress.fired < 10, duration_seconds=60)
    books = ledger(loop.samples)
    assert outcomes(loop) == {"aborted", "not_sent"}
    assert books.planned == 6_000 == books.sent + books.not_sent
    assert books.sent >= 10


def test_a_body_larger_than_the_socket_buffers_arrives_whole() -> None:
    received: list[int] = []

    def count_the_body(connection: socket.socket) -> None:
        size = len(server.requests[-1].partition(b"\r\n\r\n")[2])
        while size < 8_000_000 and (more := connection.recv(1 << 20)):
            size += len(more)
        received.append(size)
        connection.sendall(OK_ANSWER)

    with ScriptedServer(count_the_body) as server:
        loop = drive(server.url, method="POST", body="x" * 8_000_000, rate=20)
    assert outcomes(loop) == {"ok"}
    assert received == [8_000_000]


def test_an_answer_that_comes_before_the_body_is_read_is_no_reset() -> None:
    refusal = answer_with(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    with ScriptedServer(refusal) as server:  # closes with most of the body unread: the kernel sends RST
        loop = drive(server.url, method="POST", body="x" * 8_000_000, rate=20)
    assert outcomes(loop) == {"status_413"}


def test_an_answer_to_head_has_no_body_to_wait_for() -> None:
    with ScriptedServer(answer_with(OK_ANSWER[:-2])) as server:
        loop = drive(server.url, method="HEAD")
    assert outcomes(loop) == {"ok"}


def test_requests_come_from_the_source_address() -> None:
    peers: list[str] = []

    def note_the_peer(connection: socket.socket) -> None:
        peers.append(connection.getpeername()[0])
        connection.sendall(OK_ANSWER)

    with ScriptedServer(note_the_peer) as server:
        loop = drive(server.url, source="127.0.0.2")
    assert outcomes(loop) == {"ok"}
    assert set(peers) == {"127.0.0.2"}


def test_a_source_address_that_is_not_ours_is_refused_before_the_load() -> None:
    with pytest.raises(OSError, match="address"):
        drive("http://127.0.0.1:9/", source="192.0.2.1")  # TEST-NET-1, RFC 5737


def free_ranges() -> Iterator[str]:
    """Twenty ports for the sockets of a run, where the kernel has such a thing.

    A port that somebody listens on is lost to connect(), and other tests listen: those are passed over.
    """
    for first in range(40_000, 60_000, 20):
        with contextlib.ExitStack() as trials:
            try:
                for port in range(first, first + 20):
                    trials.enter_context(socket.socket()).bind(("127.0.0.1", port))
                trials.enter_context(socket.socket()).setsockopt(
                    socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", first | (first + 19) << 16)
                )
            except OSError as error:
                if error.errno == errno.ENOPROTOOPT:
                    pytest.skip("this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3)")
                continue
        yield f"{first}-{first + 19}"


# Twenty ports are gone within 10 ms, long before the kernel gives the first one back after a second.
DRY: dict[str, Any] = {"rate": 2000, "duration_seconds": 0.05, "who_closes": "client"}


def examined(url: str, **changes: Any) -> Examination:
    phase = Phase(url=url, **changes)
    return examine([phase], make_endpoint(phase), ["run"])


def test_a_client_that_closes_first_runs_out_of_ports_where_the_doctor_said() -> None:
    for own_range in itertools.islice(free_ranges(), 3):
        run = {**DRY, "port_range": own_range}
        with ScriptedServer(answer_and_await_the_end) as server:
            found = examined(server.url, **run).forecast
            loop = drive(server.url, **run)
            in_order = sorted(loop.samples, key=lambda sample: sample.intended)
            failed = [n for n, sample in enumerate(in_order, 1) if sample.label == "connect_EADDRNOTAVAIL"]
            assert ledger(loop.samples).connected == len(server.requests) == len(in_order) - len(failed)
        if failed[0] > found.ports:  # else somebody has begun to listen on one of them meanwhile
            break
    assert failed[0] == found.first_without == found.ports + 1 == 21


def test_each_remedy_lets_every_request_through() -> None:
    run = {**DRY, "rate": 100, "duration_seconds": 0.5, "port_range": next(free_ranges())}
    with ScriptedServer(answer_and_await_the_end) as server:
        commands = [
            remedy.command for remedy in examined(server.url, **run).remedies if not remedy.needs_root
        ]
        assert commands == ["run --who-closes server", "run --source 127.0.0.2-127.0.0.4"]
        assert outcomes(drive(server.url, **run, source="127.0.0.2-127.0.0.4")) == {"ok"}
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        assert outcomes(drive(server.url, **{**run, "who_closes": "server"})) == {"ok"}


def test_errors_of_this_machine_do_not_pass_for_an_address_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptor_left(_endpoint: Endpoint) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Endpoint, "open_socket", no_descriptor_left)
    loop = drive("http://127.0.0.1:9/", duration_seconds=0.4)
    assert [sample.label for sample in loop.samples] == ["connect_EMFILE"] * 40
    assert not loop.unreachable


def time_waits_towards(port: int) -> int:
    """Count the client's sockets in TIME_WAIT towards a port of loopback."""
    sockets = psutil.net_connections("tcp4")
    return sum(one.status == psutil.CONN_TIME_WAIT and one.raddr.port == port for one in sockets)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the whole list needs root")
@pytest.mark.parametrize(("who_closes", "left"), [("server", 0), ("client", 5)])
def test_time_wait_stays_with_whoever_closes_first(
    monkeypatch: pytest.MonkeyPatch, who_closes: str, left: int
) -> None:
    monkeypatch.setattr("loadtests.load.loop.LEFT_OPEN_SECONDS", 20.0)

    def answer_and_leave_time_to_close_first(connection: socket.socket) -> None:
        connection.settimeout(0.05 if who_closes == "server" else None)
        answer_and_await_the_end(connection)

    with ScriptedServer(answer_and_leave_time_to_close_first) as server:
        loop = drive(server.url, who_closes=who_closes)
    assert outcomes(loop) == {"ok"}
    assert time_waits_towards(server.port) == left


@pytest.mark.parametrize(
    ("insecure", "labels"), [(True, {"ok"}), (False, {"tls_error"})], ids=["insecure", "verified"]
)
def test_https_is_spoken_and_a_bad_certificate_is_an_outcome(
    certificate: Path, insecure: bool, labels: set[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedServer(answer_with(LARGE), tls=context) as server:
        loop = drive(server.url, insecure=insecure)
    assert outcomes(loop) == labels
    assert ledger(loop.samples).connected == 5
    if not insecure:
        assert {sample.reason for sample in loop.samples} == {"CERTIFICATE_VERIFY_FAILED"}
