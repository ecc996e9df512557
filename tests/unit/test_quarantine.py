"""Calls that kill workers: a story of kills in, what is known of the call out."""

from __future__ import annotations

import pickle

import pytest

from service.offload.quarantine import (
    FORGET_SECONDS,
    HELD_SECONDS,
    MOST_CALLS,
    Quarantine,
    Standing,
    name_of,
)

GOOD, SUSPECTED, HELD = Standing


@pytest.mark.parametrize(
    ("kills", "story", "standings"),
    [
        # A story: (sent, died) or None for a success; the standing after each.
        (2, [(0, 1), (2, 3)], [SUSPECTED, HELD]),
        (3, [(0, 1), (2, 3), (4, 5)], [SUSPECTED, SUSPECTED, HELD]),
        (2, [(0, 1), (0.5, 1.1)], [SUSPECTED, SUSPECTED]),  # it ran twice when both died: once
        (2, [(0, 1), (0.5, 1.1), (2, 3)], [SUSPECTED, SUSPECTED, HELD]),
        (2, [(0, 1), None, (2, 3)], [SUSPECTED, GOOD, SUSPECTED]),
        (2, [(0, 1), (2, 3), None], [SUSPECTED, HELD, GOOD]),  # a copy on another worker
        (2, [(0, 0), (FORGET_SECONDS, FORGET_SECONDS)], [SUSPECTED, SUSPECTED]),  # long ago
        # After its time it is tried again, and one kill is enough.
        (2, [(0, 1), (2, 3), (99, 99)], [SUSPECTED, HELD, HELD]),
    ],
)
def test_who_kills_again_and_again_is_held(
    kills: int, story: list[tuple[float, float] | None], standings: list[Standing]
) -> None:
    quarantine, now = Quarantine(kills), 0.0
    seen = []
    for event in story:
        if event is None:
            quarantine.finished(b"call")
        else:
            sent, now = event
            quarantine.killed(b"call", sent=sent, now=now)
        seen.append(quarantine.standing(b"call", now))
        assert quarantine.standing(b"another", now) is GOOD
    assert seen == standings


def test_it_is_told_once_each_time_that_a_call_is_held() -> None:
    quarantine = Quarantine(2)
    told = [quarantine.killed(b"call", sent=now, now=now) for now in (0, 1, 2, 3, 99, 100)]
    assert told == [False, True, False, False, True, False]


def test_who_is_held_is_suspected_after_a_minute_and_forgotten_after_ten() -> None:
    quarantine = Quarantine(2)
    for now in (0.0, 1.0):
        quarantine.killed(b"call", sent=now, now=now)
    for now, standing in (
        (HELD_SECONDS, HELD),
        (1 + HELD_SECONDS, SUSPECTED),
        (FORGET_SECONDS, SUSPECTED),
        (1 + FORGET_SECONDS, GOOD),
    ):
        assert quarantine.standing(b"call", now) is standing, now
    assert not quarantine.calls, "and nobody need be named any more"


def test_those_that_killed_last_are_remembered() -> None:
    quarantine = Quarantine(2)
    for number in range(2 * MOST_CALLS):
        for now in (number / 50, number / 50 + 0.01):
            quarantine.killed(b"%d" % number, sent=now, now=now)
    assert len(quarantine.calls) == MOST_CALLS
    now = 2 * MOST_CALLS / 50
    assert quarantine.standing(b"%d" % (2 * MOST_CALLS - 1), now) is HELD
    assert quarantine.standing(b"%d" % (MOST_CALLS - 1), now) is GOOD


def test_a_call_is_known_by_its_function_and_its_arguments() -> None:
    calls = [(divmod, (7, 2)), (divmod, (7, 3)), (pow, (7, 2))]
    names = {name_of(pickle.dumps(call)) for call in calls for _ in range(2)}
    assert len(names) == 3
    assert name_of((divmod, (7, 2))) == b"", "in a thread: it kills no worker"
