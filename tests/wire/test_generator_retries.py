"""Clients that retry, against servers that answer as told: what is sent again, how often, when."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from loadtests.load.endpoint import make_endpoint
from loadtests.load.facts import Progress
from loadtests.load.loop import LoadLoop
from loadtests.load.phase import Phase
from loadtests.load.readiness import Clocks
from loadtests.load.retrying import backoff_seconds
from loadtests.load.sample import Sample, requests
from loadtests.load.summary import ledger
from tests.support.servers import (
    OK_ANSWER,
    Behaviour,
    KeepingServer,
    ScriptedServer,
    answer_with,
    drive,
)
from tests.support.waiting import until

BUSY = b"HTTP/1.1 %s\r\nContent-Length: 0\r\n%sConnection: close\r\n\r\n"
ONE: dict[str, Any] = {"rate": 20}  # a single request


def busy(header: bytes = b"", status: bytes = b"503 Service Unavailable") -> Behaviour:
    """A refusal, with one more line in its head."""
    return answer_with(BUSY % (status, header))


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour for each connection; the last one for all that follow."""
    rest = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
    return lambda connection: next(rest)(connection)


def by_start(loop: LoadLoop) -> list[Sample]:
    return sorted(loop.samples, key=lambda sample: sample.started or 0)


def moments(sample: Sample) -> tuple[float, float]:
    """When it started and ended."""
    assert sample.started is not None
    assert sample.finished is not None
    return sample.started, sample.finished


@pytest.mark.parametrize(
    ("first", "label"),
    [
        (busy(), "status_503"),
        (busy(status=b"429 Too Many Requests"), "status_429"),
        (answer_with(b""), "short"),
        (answer_with(OK_ANSWER[:-1]), "short"),
        (lambda connection: connection.shutdown(socket.SHUT_RDWR), "short"),
    ],
)
def test_a_request_that_failed_is_sent_again_and_ends_as_its_last_attempt(
    first: Behaviour, label: str
) -> None:
    with ScriptedServer(in_turn(first, answer_with(OK_ANSWER))) as server:
        loop = drive(server.url, **ONE, retries=3, retry="immediate")
    assert [(s.label, s.request, s.attempt, s.last) for s in loop.samples] == [
        (label, 1, 1, False),
        ("ok", 1, 2, True),
    ]
    assert loop.samples[0].intended == loop.samples[1].intended
    assert len(server.requests) == 2 == ledger(loop.samples).connections


@pytest.mark.parametrize(
    ("status", "label"), [(b"200 OK", "ok"), (b"500 Oh", "status_500"), (b"404 Not Found", "status_404")]
)
def test_an_answer_that_would_be_the_same_again_is_final(status: bytes, label: str) -> None:
    with ScriptedServer(busy(status=status)) as server:
        loop = drive(server.url, retries=3, retry="immediate")
    assert [(s.label, s.attempt, s.last) for s in loop.samples] == [(label, 1, True)] * 5
    assert len(server.requests) == 5


@pytest.mark.parametrize("retry", ["immediate", "backoff", "retry-after"])
def test_a_server_that_refuses_all_gets_each_request_once_and_so_many_times_more(retry: str) -> None:
    with ScriptedServer(busy()) as server:
        loop = drive(server.url, retries=2, retry=retry)
    books = ledger(loop.samples)
    assert (books.planned, books.sent, books.attempts) == (5, 5, 15)
    assert books.attempts == books.connected == books.connections == books.answered == len(server.requests)
    assert [sample.label for sample in requests(loop.samples)] == ["status_503"] * 5
    attempts = sorted((sample.request, sample.attempt, sample.last) for sample in loop.samples)
    assert attempts == [(n, k, k == 3) for n in range(1, 6) for k in (1, 2, 3)]


def test_a_request_that_timed_out_is_sent_again_and_its_time_is_that_of_all_attempts() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(server.url, **ONE, timeout_seconds=0.1, retries=2, retry="immediate")
        until(lambda: len(server.requests) == 3)
    assert [(s.label, s.attempt) for s in loop.samples] == [("timeout", 1), ("timeout", 2), ("timeout", 3)]
    assert moments(loop.samples[-1])[1] - loop.samples[-1].intended >= 0.3


def test_a_connection_that_is_refused_is_tried_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # ours, so nobody else can listen there meanwhile
        loop = drive(f"http://127.0.0.1:{bound.getsockname()[1]}/", **ONE, retries=3, retry="immediate")
    assert [(s.label, s.attempt) for s in loop.samples] == [("connect_ECONNREFUSED", n) for n in (1, 2, 3, 4)]
    assert ledger(loop.samples).connect_failed == 4


def test_a_load_that_nobody_listens_to_ends_at_once_however_often_it_is_sent_again() -> None:
    """Refusals come before the attempt's start returns, so each retry is due as soon as it can be."""
    readings = itertools.count()
    clocks = Clocks(wall=lambda: next(readings) * 20e-6, cpu=time.process_time, core_wait=lambda: 0.0)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        phase = Phase(url=url, rate=5000, duration_seconds=60, retries=100, retry="immediate")
        loop = LoadLoop(phase, make_endpoint(phase), lambda _: True, clocks)
        loop.run()
    assert loop.unreachable
    assert not loop.interrupted
    assert 20 < ledger(loop.samples).attempts < 200


def test_a_stop_is_seen_between_retries_that_fail_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        loop = drive(url, lambda _: False, **ONE, retries=100, retry="immediate")
    assert loop.interrupted
    assert [(s.label, s.attempt, s.last) for s in loop.samples] == [("connect_ECONNREFUSED", 1, True)]


@pytest.mark.parametrize(
    ("linger", "reason"), [(False, "UNEXPECTED_EOF_WHILE_READING"), (True, "ECONNRESET")]
)
def test_a_handshake_that_is_cut_off_is_tried_again(linger: bool, reason: str) -> None:
    def cut_off() -> None:
        for _ in range(3):
            connection, _ = listener.accept()
            connection.recv(65_536)
            if linger:  # zero seconds: close(2) sends RST, socket(7)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut_off)
        thread.start()
        loop = drive(f"https://127.0.0.1:{listener.getsockname()[1]}/", **ONE, retries=2, retry="immediate")
        assert [(s.outcome, s.reason, s.attempt) for s in loop.samples] == [
            ("tls_error", reason, n) for n in (1, 2, 3)
        ]
        thread.join()


def test_a_backoff_waits_as_its_seed_says() -> None:
    with ScriptedServer(busy()) as server:
        loop = drive(server.url, **ONE, retries=4, retry="backoff", seed=7)
    for before, after in itertools.pairwise(loop.samples):
        wait = backoff_seconds(7, 1, before.attempt)
        assert moments(after)[0] >= moments(before)[1] + wait
    assert len(loop.samples) == 5


def test_a_budget_holds_retries_to_a_tenth_of_all_requests() -> None:
    with ScriptedServer(busy()) as server:
        loop = drive(server.url, rate=2000, duration_seconds=0.1, retries=3, retry="budget")
    books = ledger(loop.samples)
    assert (books.sent, books.attempts, len(server.requests)) == (200, 220, 220)


@pytest.mark.parametrize(
    "head",
    [
        b"Retry-After: 1\r\n",
        # Dates that are long past by the clock here.
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
    ],
    ids=["seconds", "dates"],
)
def test_a_client_comes_back_when_the_server_said_by_the_servers_own_clock(head: bytes) -> None:
    seen: list[float] = []

    def note(behaviour: Behaviour) -> Behaviour:
        def noting(connection: socket.socket) -> None:
            seen.append(time.monotonic())
            behaviour(connection)

        return noting

    script = in_turn(note(busy(head)), note(answer_with(OK_ANSWER)))
    with ScriptedServer(script) as server:
        loop = drive(server.url, **ONE, retries=3, retry="retry-after")
    assert [sample.label for sample in loop.samples] == ["status_503", "ok"]
    assert seen[1] - seen[0] >= 1


def test_a_client_that_is_told_to_come_back_too_late_gives_up() -> None:
    with ScriptedServer(busy(b"Retry-After: 61\r\n")) as server:
        loop = drive(server.url, retries=3, retry="retry-after")
    assert [(s.label, s.attempt, s.last) for s in loop.samples] == [("status_503", 1, True)] * 5


def test_retries_never_delay_what_is_due_by_the_schedule() -> None:
    """After a stall both are due: first all that the schedule holds, then what is sent again."""
    stall: list[float] = []
    enough = 10

    def stand_still_once(progress: Progress) -> bool:
        nonlocal enough
        if progress.retried < enough:
            return True
        if not stall:
            time.sleep(0.3)  # the stall itself is what is tested
            stall.append(time.monotonic())
            enough = progress.retried + 10
            return True
        return False

    with ScriptedServer(busy()) as server:
        loop = drive(server.url, stand_still_once, rate=200, duration_seconds=60, retries=3, retry="backoff")
    after = [s for s in by_start(loop) if s.started is not None and s.intended < stall[0] <= s.started]
    first = [sample.attempt == 1 for sample in after]
    assert first.count(True) >= 50
    assert first.count(False) >= 5
    assert first == sorted(first, reverse=True)


def one_client(url: str, retried: int, **changes: Any) -> LoadLoop:
    """A closed loop of one client, until so many attempts were retries."""
    return drive(
        url,
        lambda progress: progress.retried < retried,
        **{"clients": 1, "duration_seconds": 60, "retry": "immediate", **changes},
    )


def goes_on_after_its_last_attempt(loop: LoadLoop) -> bool:
    """Whether each request but the last had three attempts, one after another."""
    in_order = [(sample.request, sample.attempt) for sample in by_start(loop)]
    return len(in_order) >= 9 and in_order == [(1 + n // 3, 1 + n % 3) for n in range(len(in_order))]


def test_a_client_of_a_closed_loop_goes_on_when_its_last_attempt_has_ended() -> None:
    with ScriptedServer(busy()) as server:
        assert goes_on_after_its_last_attempt(one_client(server.url, 6, retries=2))


def test_so_does_a_client_that_keeps_its_connection() -> None:
    def refuse(connection: socket.socket, _number: int) -> bool:
        connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        return True

    with KeepingServer(refuse) as server:
        assert goes_on_after_its_last_attempt(one_client(server.url, 6, retries=2, keep_alive=True))
    assert len(server.requests) == 1


def test_a_retry_waits_for_room_and_is_sent_then() -> None:
    most: list[int] = []

    def note(progress: Progress) -> bool:
        most.append(progress.in_flight)
        return True

    refuse = busy()

    def refuse_and_leave_open(connection: socket.socket) -> None:
        refuse(connection)
        server.hold(connection)

    with ScriptedServer(refuse_and_leave_open) as server:  # the client closes after a second
        loop = drive(server.url, note, **ONE, retries=1, retry="immediate", max_in_flight=1)
    assert [(s.label, s.attempt) for s in loop.samples] == [("status_503", 1), ("status_503", 2)]
    assert max(most) == 1


@pytest.mark.parametrize(
    ("go_on", "waited"),
    [
        # A request that was sent and is not under way waits for its retry: none has ended.
        (lambda progress: progress.fired == progress.in_flight, {"status_503"}),
        (lambda _: False, set()),
    ],
    ids=["soon", "now"],
)
def test_a_stop_ends_what_waits_for_its_retry_and_the_ledger_closes(
    go_on: Callable[[Progress], bool], waited: set[str]
) -> None:
    with ScriptedServer(busy(b"Retry-After: 30\r\n")) as server:
        loop = drive(server.url, go_on, duration_seconds=60, retries=3, retry="retry-after")
    books = ledger(loop.samples)
    assert books.planned == 6000 == books.sent + books.not_sent
    assert books.attempts == books.sent
    assert all(sample.last for sample in loop.samples)
    labels = {sample.label for sample in loop.samples}
    assert waited <= labels <= {"status_503", "aborted", "not_sent"}
    assert books.sent >= 1
    assert loop.interrupted


def test_a_retry_takes_a_kept_connection_and_the_ledger_counts_it_once() -> None:
    def refuse_once(connection: socket.socket, number: int) -> bool:
        connection.sendall(
            b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % (b"503 No" if number == 1 else b"200 OK")
        )
        return True

    with KeepingServer(refuse_once) as server:
        loop = drive(server.url, **ONE, keep_alive=True, retries=3, retry="immediate")
    books = ledger(loop.samples)
    assert (books.sent, books.attempts, books.connected, books.connections) == (1, 2, 2, 1)
    assert [len(heads) for heads in server.requests] == [2]


def test_a_request_that_was_dropped_with_its_kept_connection_is_sent_again_on_another() -> None:
    def close_at_the_second(connection: socket.socket, number: int) -> bool:
        if number == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return number == 1

    with KeepingServer(close_at_the_second) as server:
        loop = one_client(server.url, 1, retries=3, keep_alive=True)
    ended = [(s.label, s.attempt) for s in by_start(loop)]
    assert ended[:3] == [("ok", 1), ("dropped", 1), ("ok", 2)]
    *whole, _ = requests(by_start(loop))  # the run was stopped during the last one
    assert {sample.label for sample in whole} == {"ok"}


def test_what_failed_in_one_segment_of_a_load_is_sent_again_in_the_next() -> None:
    segments = ((20.0, 0.05), (40.0, 0.1))
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(
            server.url,
            rate=None,
            segments=segments,
            duration_seconds=0.15,
            timeout_seconds=0.06,
            retries=1,
            retry="immediate",
        )
        until(lambda: len(server.requests) == 10)
    firsts = sorted(sample.intended - loop.started for sample in loop.samples if sample.attempt == 1)
    assert firsts == pytest.approx([0, 0.05, 0.075, 0.1, 0.125])
    (again,) = [sample for sample in loop.samples if (sample.request, sample.attempt) == (1, 2)]
    assert moments(again)[0] - loop.started >= 0.06, "it is a request of the first, and no part of the rate"
