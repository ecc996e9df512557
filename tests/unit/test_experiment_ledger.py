"""Every connection has a name: the clients' books and the service's, reconciled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import HalfOpen, Ledger, reconcile
from loadtests.load.sample import NOT_SENT, Sample
from tests.support.synthetic import books, reading, sample


def clients(answered: int, unanswered: int = 0, refused: int = 0, kept_back: int = 0) -> list[Sample]:
    """So many requests, each from a port of its own: 1001, 1002, ..., the unanswered ones last."""
    found = [sample(0.0, port=1001 + n) for n in range(answered)]
    found += [sample(0.0, 5.0, "timeout", port=1001 + answered + n) for n in range(unanswered)]
    found += [
        Sample(0.0, 0.0, None, None, 0.1, "connect_error", None, "ECONNREFUSED") for _ in range(refused)
    ]
    return found + [Sample(0.0, None, None, None, None, NOT_SENT, None, "max_in_flight")] * kept_back


def served(accepted: int, *, kernel_queue: int = 0, active: int = 0, lost: int = 0) -> Reading:
    return reading(
        accepted=accepted,
        completed=accepted - active - lost,
        active=active,
        kernel_queue=kernel_queue,
    )


def ports(first: int, count: int) -> frozenset[int]:
    return frozenset(range(first, first + count))


@pytest.mark.parametrize(
    ("samples", "after", "half_open", "expected"),
    [
        (clients(90), served(90), HalfOpen(), {}),
        (clients(80, 10), served(80, kernel_queue=10), HalfOpen(), {"kernel_queue": 10}),
        # The kernel names five that it has not finished, by the clients' ports.
        (clients(80, 10), served(85), HalfOpen(after=ports(1086, 5), overflows=9), {"half_open": 5}),
        # It has given them up meanwhile, admits to the dropped ACKs, and the clients had no answer.
        (clients(80, 10), served(85), HalfOpen(overflows=9), {"half_open": 5}),
        # It admits to three only.
        (clients(80, 10), served(85), HalfOpen(overflows=3), {"half_open": 3, "unexplained": 2}),
        # Whoever had an answer was accepted, whatever the kernel dropped.
        (clients(88, 2), served(85), HalfOpen(overflows=99), {"half_open": 2, "unexplained": 3}),
        (clients(90), served(85), HalfOpen(overflows=99), {"unexplained": 5}),
        # Half-open ports of somebody else's clients explain nothing of ours.
        (clients(80, 10), served(85), HalfOpen(after=ports(9000, 5)), {"unexplained": 5}),
        # Somebody else connected.
        (clients(90), served(92), HalfOpen(overflows=9), {"unexplained": -2}),
        # Two that were half-open before and are no longer: they came in now.
        (clients(90), served(92), HalfOpen(before=ports(500, 2)), {"carried_over": 2}),
        # One of the two is still half-open, so one more is somebody else's.
        (
            clients(90),
            served(92),
            HalfOpen(before=ports(500, 2), after=ports(500, 1)),
            {"carried_over": 1, "unexplained": -1},
        ),
        # They vanished and were not accepted: that explains nothing, and nothing needs it.
        (clients(90), served(90), HalfOpen(before=ports(500, 2)), {}),
        (clients(90), served(90, lost=1), HalfOpen(), {"server_gap": 1}),
        (clients(90), served(90, active=3), HalfOpen(), {"active": 3}),
    ],
)
def test_every_connection_has_a_name(
    samples: list[Sample], after: Reading, half_open: HalfOpen, expected: dict[str, int]
) -> None:
    found = reconcile(samples, reading(), after, half_open)
    names = ("kernel_queue", "half_open", "carried_over", "unexplained", "server_gap", "active")
    assert {name: value for name in names if (value := getattr(found, name))} == expected
    assert found.closes == (not set(expected) & {"unexplained", "server_gap", "active"})
    assert_balanced(found)


def assert_balanced(found: Ledger) -> None:
    assert found.planned == found.sent + found.not_sent
    assert found.sent + found.retried == found.connected + found.never_connected
    assert found.connected + found.carried_over == (
        found.accepted + found.kernel_queue + found.half_open + found.unexplained
    )
    assert found.accepted == found.completed + found.active + found.server_gap


def test_five_that_came_in_a_phase_late_are_carried_over_by_their_ports() -> None:
    # Seen at 1.5x the capacity with a full accept queue: ten clients of one phase were half-open at its end,
    # and five of them came in during the next one, where they were "-5 unexplained".
    half_open = ports(1001 + 3942, 10)
    first = reconcile(clients(3942, 10), reading(), served(3942), HalfOpen(after=half_open, overflows=40))
    assert (first.connected, first.accepted, first.half_open, first.unexplained) == (3952, 3942, 10, 0)

    second = reconcile(
        clients(3942),
        served(3942),
        served(3942 + 3947),
        HalfOpen(before=half_open, after=frozenset(), overflows=0),
    )
    assert (second.connected, second.accepted) == (3942, 3947)
    assert (second.carried_over, second.unexplained) == (5, 0)
    for found in (first, second):
        assert found.closes
        assert_balanced(found)


def test_more_than_was_half_open_before_is_somebody_elses() -> None:
    found = reconcile(clients(90), reading(), served(100), HalfOpen(before=ports(500, 4)))
    assert (found.carried_over, found.unexplained) == (4, -6)
    assert not found.closes


def test_only_the_change_over_a_phase_counts() -> None:
    found = reconcile(clients(90), served(1000), served(1090), HalfOpen())
    assert found.accepted == found.completed == 90
    assert found.closes


def test_what_was_never_connected_is_no_connection() -> None:
    found = reconcile(clients(80, refused=7, kept_back=3), reading(), served(80), HalfOpen())
    assert (found.planned, found.sent, found.not_sent) == (90, 87, 3)
    assert (found.connected, found.never_connected) == (80, 7)
    assert found.closes


def test_a_request_that_is_tried_again_is_planned_once_and_connected_as_often_as_it_was_tried() -> None:
    # One is refused and then answered; one gives up three times, the second time without a connection.
    tries = [
        sample(0.0, outcome="status", port=1001)._replace(status=503, request=1, last=False),
        sample(0.0, port=1002)._replace(request=1, attempt=2),
        sample(0.0, 1.0, "timeout", port=1003)._replace(request=2, last=False),
        sample(0.0, 1.0, "timeout", connected=False)._replace(request=2, attempt=2, last=False),
        sample(0.0, 1.0, "timeout", port=1004)._replace(request=2, attempt=3),
    ]
    found = reconcile(tries, reading(), served(4), HalfOpen())
    assert (found.planned, found.sent, found.retried) == (2, 2, 3)
    assert (found.connected, found.never_connected, found.accepted) == (4, 1, 4)
    assert found.closes
    assert_balanced(found)
    assert not replace(found, retried=2).closes
    assert not reconcile([*tries[:3], *tries[4:]], reading(), served(4), HalfOpen()).closes, "one is missing"


def test_books_are_added_up_class_by_class() -> None:
    total = Ledger.total([books(carried_over=2), books(unexplained=-2, accepted=102)])
    assert (total.planned, total.accepted, total.carried_over, total.unexplained) == (200, 202, 2, -2)
    assert Ledger.total([]).closes
