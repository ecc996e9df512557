"""Clients in a closed loop, against servers that answer as told."""

from __future__ import annotations

import socket

import pytest

from loadtests.load.facts import Progress
from loadtests.load.summary import ledger
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with, drive, outcomes


def test_each_client_keeps_one_request_under_way_and_sends_the_next_when_it_has_ended() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        loop = drive(server.url, clients=3, duration_seconds=0.3)
    assert outcomes(loop) == {"ok"}
    assert len(loop.samples) == len(server.requests) > 3
    spans = sorted((sample.started, sample.finished) for sample in loop.samples)
    for sample in loop.samples:
        assert sample.intended == sample.started
        assert sample.started is not None
        under_way = sum(begin <= sample.started < end for begin, end in spans if begin and end)
        assert under_way <= 3
        assert sample.started < loop.started + 0.3


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
        loop = drive(server.url, clients=2, duration_seconds=0.25, timeout_seconds=0.1)
    assert outcomes(loop) == {"timeout"}
    assert len(loop.samples) == 6


def test_a_server_that_never_closes_does_not_keep_a_client_until_the_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.load.loop.LEFT_OPEN_SECONDS", 0.05)

    def answer_and_hold(connection: socket.socket) -> None:
        connection.sendall(OK_ANSWER)
        server.hold(connection)

    with ScriptedServer(answer_and_hold) as server:
        loop = drive(server.url, clients=1, duration_seconds=0.5, timeout_seconds=20)
    assert outcomes(loop) == {"ok"}
    assert 3 <= len(loop.samples) == loop.not_closed_by_server


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
