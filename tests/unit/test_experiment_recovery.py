"""What came after a trigger: second by second, back or down, and which inputs make it void."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from loadtests.experiment.blocks import NO_SPEED
from loadtests.experiment.comebacks import outcome
from loadtests.experiment.plan import Case, Trigger
from loadtests.experiment.recovery import DIED, Measured, Recovery, by_second, recovery
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.neighbours import Usage
from tests.support.synthetic import FACTS, block_of, plan_of, recovery_of, sample

PLAN = plan_of("metastable", before_seconds=2, overload_seconds=1.0, after_seconds=3)
BEGIN = FACTS.started_monotonic


def trigger() -> Trigger:
    assert PLAN.trigger is not None
    return PLAN.trigger


CASE = trigger().cases[1]
NOBODY = Usage(
    seconds=0.0,
    busy_seconds=0.0,
    idle_seconds=0.0,
    ours_seconds=0.0,
    stolen_seconds=0.0,
    throttled_seconds=0.0,
)


def used(**changes: float) -> Usage:
    """Six seconds later, in which our own processes kept one core busy."""
    return replace(NOBODY, **{"seconds": 6.0, "busy_seconds": 6.0, "ours_seconds": 6.0, **changes})


def went(
    samples: list[Sample] | None = None, s_seconds: float = 0.01, case: Case | None = None, **changes: Any
) -> Recovery:
    """A case: six requests a second of which each is answered within 20 ms, or these samples."""
    fields: dict[str, Any] = {
        "just_before": block_of(
            PLAN.variants[0], 1, part="beside", demand_seconds=s_seconds, piece_seconds=160e-6
        ),
        "phase": Phase(
            url="http://127.0.0.1:1/data",
            segments=trigger().segments(2 / s_seconds),
            duration_seconds=6.0,
            timeout_seconds=1.0,
            retries=3,
            retry="immediate",
        ),
        "samples": [sample(BEGIN + n / 6, 0.02) for n in range(36)] if samples is None else samples,
        "facts": FACTS,
        "before": NOBODY,
        "after": used(),
        "piece_seconds": (160e-6,) * 3,
    }
    return recovery(PLAN, trigger(), case or CASE, Measured(**{**fields, **changes}))


def test_a_case_is_counted_second_by_second_from_its_first_request_to_its_last() -> None:
    found = went()
    assert found.answered == found.attempts == (6,) * 6
    assert (found.limit_per_second, found.base_per_second, found.peak_per_second) == (200, 120, 600)
    assert found.loads == pytest.approx((0.6,) * 3)
    assert found.void_because == ()
    assert found.outcomes == {"ok": 36}


def test_an_answer_counts_for_its_request_when_it_comes_and_an_attempt_when_it_is_sent() -> None:
    due, late = BEGIN + 0.5, BEGIN + 5.4
    first = sample(due, 1.0, "timeout")._replace(request=1, last=False)
    again = sample(due, 1.2)._replace(started=due + 1.0, request=1, attempt=2)
    gone = sample(late, 1.0, "timeout")._replace(request=2, last=False)
    after_all = sample(late, 1.2)._replace(started=late + 1.0, request=2, attempt=2)
    found = went([first, again, gone, after_all])
    assert found.answered == (0, 1, 0, 0, 0, 0), "the second answer came after the watch had ended"
    assert found.attempts == (1, 1, 0, 0, 0, 1)
    assert found.outcomes == {"ok": 2}
    assert found.attempt_outcomes == {"ok": 2, "timeout": 2}
    assert (found.client.sent, found.client.attempts) == (2, 4)


def test_what_lies_outside_its_seconds_does_not_count() -> None:
    assert by_second([9.99, 10.0, 10.5, 11.999, 12.0], 10.0, 2) == (2, 1)


# S before, the time of the fixed piece then and meanwhile: the base load of 0.6 by the speed that it had.
@pytest.mark.parametrize(
    ("pieces", "loads", "void"),
    [
        ((160e-6, 160e-6, 160e-6), (0.6, 0.6, 0.6), False),
        ((121e-6, 160e-6, 212e-6), (0.45375, 0.6, 0.795), False),
        ((119e-6, 160e-6, 160e-6), (0.44625, 0.6, 0.6), True),
        ((160e-6, 160e-6, 119e-6), (0.6, 0.6, 0.44625), True),
        ((160e-6, 119e-6, 160e-6), (0.6, 0.44625, 0.6), True),
        ((214e-6, 160e-6, 160e-6), (0.8025, 0.6, 0.6), True),
        ((160e-6, 214e-6, 160e-6), (0.6, 0.8025, 0.6), True),
        ((160e-6, 160e-6, 214e-6), (0.6, 0.6, 0.8025), True),
        ((None, None, None), (0.6, 0.6, 0.6), False),  # no speed on this system
    ],
)
def test_a_case_is_void_if_the_speed_of_the_machine_moved_its_base_load(
    pieces: tuple[float | None, ...], loads: tuple[float, ...], void: bool
) -> None:
    found = went(piece_seconds=pieces)
    assert found.loads == pytest.approx(loads)
    assert [reason.split(":")[0] for reason in found.void_because] == ["the machine's speed changed"] * void


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"after": used(busy_seconds=9.0, idle_seconds=3.0)}, "other processes of this machine used 25%"),
        ({"after": used(stolen_seconds=0.7)}, "the hypervisor took 6%"),
        ({"facts": replace(FACTS, sending_cpu_seconds=5.4)}, "the generator used 90% of its one core"),
        ({"spoilt": [NO_SPEED]}, NO_SPEED),
    ],
)
def test_a_case_is_void_for_what_went_in(changes: dict[str, Any], why: str) -> None:
    assert any(why in reason for reason in went(**changes).void_because)


def test_a_case_whose_requests_were_sent_late_is_void() -> None:
    late = [sample(BEGIN + n / 6, 0.2)._replace(started=BEGIN + n / 6 + 0.1) for n in range(36)]
    assert any("100 ms late" in reason for reason in went(late).void_because)


def failing(*after: tuple[str, int | None]) -> list[Sample]:
    """A second before the trigger in which every attempt breaks, and after it attempts that fail so."""
    ends = [("reset", None)] * 6 + list(after)
    moments = [BEGIN + n / 6 for n in range(6)] + [BEGIN + 3 + n / 50 for n in range(len(after))]
    return [
        sample(moment, 0.02, outcome)._replace(status=status)
        for moment, (outcome, status) in zip(moments, ends, strict=True)
    ]


LATE, BROKEN, NO_ROOM, CUT = ("timeout", None), ("status", 500), ("status", 503), ("reset", None)
POOL, BOUNDED, OURS = trigger().cases[1], *trigger().cases[-2:]


@pytest.mark.parametrize(
    ("case", "after", "void"),
    [
        (POOL, [LATE] * 100, ""),
        (POOL, [LATE] * 95 + [BROKEN] * 5, ""),
        (POOL, [LATE] * 94 + [BROKEN] * 6, "6 of 100 attempts"),
        (POOL, [BROKEN] * 100, "most of them as status_500"),
        (POOL, [BROKEN] * 40 + [CUT] * 60, "most of them as reset"),
        (POOL, [NO_ROOM] * 100, "most of them as status_503"),  # it has no bound: nothing of it refuses
        (BOUNDED, [NO_ROOM] * 60 + [LATE] * 40, ""),
        (OURS, [NO_ROOM] * 100, ""),
        (OURS, [NO_ROOM] * 50 + [CUT] * 50, "most of them as reset"),
        (OURS, [("ok", 200)] * 100, ""),
    ],
)
def test_a_case_whose_design_broke_and_was_not_overloaded_is_void(
    case: Case, after: list[tuple[str, int | None]], void: str
) -> None:
    found = went(failing(*after), case=case).void_because
    assert [void in reason for reason in found] == [True] * bool(void), found


def test_a_case_whose_design_died_is_void() -> None:
    assert went(alive=False).void_because == (DIED,)


def test_how_many_are_answered_never_makes_a_case_void() -> None:
    nothing = [sample(BEGIN + n / 6, 1.0, "timeout") for n in range(36)]
    assert went(nothing).answered == (0,) * 6
    assert went(nothing).void_because == ()


def ended(*after: int, before: tuple[int, ...] = (10, 120, 120)) -> Recovery:
    base = recovery_of(trigger(), CASE, 0)
    return replace(base, before_seconds=len(before), seconds=2, answered=(*before, 30, 40, *after))


@pytest.mark.parametrize(
    ("after", "stays_down", "back", "told"),
    [
        ((120, 120, 120), False, 0, "back at once"),
        ((60, 60, 60), False, 0, "back at once"),
        ((59, 60, 60), False, 1, "back after 1 s"),
        ((120, 59, 60), False, 2, "back after 2 s"),
        ((120, 120, 59), False, None, "down at the end"),
        ((59, 59, 60), False, 2, "back after 2 s"),
        ((59, 59, 59), True, None, "down for 3 s"),
        ((0, 0, 0), True, None, "down for 3 s"),
    ],
)
def test_down_is_less_than_half_of_before_and_back_is_never_down_again(
    after: tuple[int, ...], stays_down: bool, back: int | None, told: str
) -> None:
    found = ended(*after)
    assert (found.stays_down, found.back_seconds, outcome(found)) == (stays_down, back, told)


def test_the_parts_of_a_case_have_their_means_and_its_first_second_is_left_out_if_there_is_another() -> None:
    found = ended(10, 20, 30)
    assert (found.before_per_second, found.during_per_second, found.after_per_second) == (120, 35, 20)
    assert found.after_seconds == 3
    assert ended(10, before=(100,)).before_per_second == 100


@pytest.mark.parametrize(
    ("loads", "attempts", "left", "seconds"),
    [
        ((0.6, 0.6, 0.6), 1.0, 1.0, 10.0),  # 2 s at 3x leave 4 s of work, and 0.4 are to spare
        ((0.9, 0.6, 0.6), 1.0, 1.0, 10.0),  # what was before has left nothing
        ((0.6, 0.6, 0.75), 1.0, 1.0, 20.0),  # 800 requests wait, and of 160 a second 120 come
        ((0.6, 0.9, 0.6), 1.0, 1.0, 35 / 3),
        ((0.6, 0.6, 0.6), 1.1, 1.0, 4.6 / 0.34),
        ((0.6, 0.1, 0.6), 1.0, 1.0, 0.0),
        ((0.6, 0.6, 0.6), 4.0, 1.0, math.inf),
        ((0.48, 0.48, 0.48), 1.0, 0.8, 10.0),  # the workers have four fifths of their cores
    ],
)
def test_what_a_trigger_leaves_is_worked_off_by_what_the_base_load_leaves(
    loads: tuple[float, float, float], attempts: float, left: float, seconds: float
) -> None:
    found = replace(ended(0, 0, 0), loads=loads, base_per_second=120.0, peak_per_second=600.0)
    assert found.work_off_seconds(attempts, left) == pytest.approx(seconds)
