"""Clients in a closed loop, against servers that answer as told."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from loadtests.load.facts import Progress
from loadtests.load.sample import Sample
from loadtests.load.summary import ledger
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with, drive, outcomes


def check_under_way(samples: Sequence[Sample], most: int) -> None:
    """Each was sent, and ended, and at no moment were there more of them."""
    spans = []
    for sample in samples:
        assert sample.started is not None
        assert sample.finished is not None
        spans.append((sample.started, sample.finished))
    for started, _ in spans:
        assert sum(begin <= started < end for begin, end in spans) <= most


def test_each_client_keeps_one_request_under_way_and_sends_the_next_when_it_has_ended() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        for seconds in (0.3, 2.0):  # the second if the machine stood still for most of the first
            server.requests.clear()
            loop = drive(server.url, clients=3, duration_seconds=seconds)
            if len(loop.samples) > 3:
                break
    assert outcomes(loop) == {"ok"}
    assert len(loop.samples) == len(server.requests) > 3
    check_under_way(loop.samples, most=3)
    for sample in loop.samples:
        assert sample.intended == sample.started
        assert sample.started is not None
        assert sample.started < loop.started + seconds


def test_clients_that_get_no_answer_send_nothing_more_and_may_finish_after_the_end() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:

        def see_the_end(progress: Progress) -> bool:
            if progress.elapsed_seconds > 0.3:
                server.release()
            return True

        loop = drive(server.url, see_the_end, clients=4, duration_seconds=0.2)
    assert [sample.label for sample in loop.samples] == ["short"] * 4
    assert ledger(loop.samples).planned == 4


def test_a_time_out_ends_the_wait_of_a_client() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(
            server.url,
            lambda progress: progress.fired < 6,
            clients=2,
            duration_seconds=60,
            timeout_seconds=0.1,
        )
    ended = [sample for sample in loop.samples if sample.label != "aborted"]  # by the stop
    assert {sample.label for sample in ended} == {"timeout"}
    assert len(ended) >= 4
    assert all(
        sample.finished - sample.started >= 0.1 for sample in ended if sample.finished and sample.started
    )
    check_under_way(loop.samples, most=2)


def test_a_server_that_never_closes_does_not_keep_a_client_until_the_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.load.loop.LEFT_OPEN_SECONDS", 0.05)

    def answer_and_hold(connection: socket.socket) -> None:
        connection.sendall(OK_ANSWER)
        server.hold(connection)

    with ScriptedServer(answer_and_hold) as server:
        loop = drive(server.url, lambda progress: progress.fired < 4, clients=1, duration_seconds=60)
    answered = sum(sample.label == "ok" for sample in loop.samples)
    assert outcomes(loop) <= {"ok", "aborted"}
    assert 3 <= loop.not_closed_by_server <= answered


def test_a_stop_leaves_nothing_unsent_on_the_books() -> None:
    with ScriptedServer(lambda connection: server.hold(connection)) as server:
        loop = drive(server.url, lambda progress: progress.fired < 2, clients=2, duration_seconds=60)
    assert loop.interrupted
    books = ledger(loop.samples)
    assert (books.planned, books.sent, books.not_sent) == (2, 2, 0)


def test_clients_that_are_refused_do_not_spin() -> None:
    server = ScriptedServer(answer_with(OK_ANSWER))
    with server:

        def close_the_listener_once_answered(progress: Progress) -> bool:
            if progress.outcomes.get("ok") and server.listening:
                server.stop()
            return True

        loop = drive(server.url, close_the_listener_once_answered, clients=2, duration_seconds=1)
    assert ledger(loop.samples).connect_failed <= 20


def test_samples_hold_the_port_by_which_the_server_knows_the_connection() -> None:
    ports: list[int] = []

    def note_the_port(connection: socket.socket) -> None:
        ports.append(connection.getpeername()[1])
        connection.sendall(OK_ANSWER)

    with ScriptedServer(note_the_port) as server:
        loop = drive(server.url, rate=100)
    assert sorted(ports) == sorted(sample.local_port or 0 for sample in loop.samples)
