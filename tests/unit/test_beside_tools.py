"""What the proof beside wrk and hey makes of figures."""

from __future__ import annotations

import pytest

from tests.proofs import beside_tools

THEIRS = [0.0050, 0.0051, 0.0052, 0.0053, 0.0054]


@pytest.mark.parametrize(
    ("furthest", "within"),
    [(0.0001, "5%"), (-0.00025, "5%"), (0.0004, "10%"), (-0.0004, "10%"), (0.0006, "no"), (-0.0006, "no")],
)
def test_the_whole_interval_must_lie_within_and_only_beyond_5_percent_it_takes_a_reason(
    furthest: float, within: str
) -> None:
    mine = [*THEIRS[:4], THEIRS[4] + furthest]
    told = beside_tools.judge("offloop - wrk", mine, THEIRS)
    assert told["within"] == within
    assert ("because" in told) == (within == "10%")


def test_the_interval_of_five_pairs_reaches_from_the_least_to_the_greatest() -> None:
    mine = [value + 0.0001 * (index + 1) for index, value in enumerate(THEIRS)]
    assert beside_tools.judge("offloop - hey", mine, THEIRS)["ms"] == "+0.300 (+0.100 to +0.500)"


def test_of_hey_connecting_is_taken_off_and_a_failed_answer_is_no_figure() -> None:
    head = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset\n"
    line = "0.0054,0.0002,0.0000,0.0000,0.0051,0.0001,200,0.0000\n"
    found = beside_tools.hey_answered(head + line * 3)
    assert found.median == pytest.approx(0.0052)
    assert found.count == 3
    assert found.parts["first byte to closed"] == pytest.approx(0.0001)
    with pytest.raises(AssertionError):
        beside_tools.hey_answered(head + line + line.replace(",200,", ",503,"))


def test_our_way_there_and_back_is_joined_by_the_port() -> None:
    moments = {1: (10.0, 10.0054), 2: (20.0, 20.0056)}
    answers = [(1, 10.0001, 10.0052), (2, 20.0003, 20.0053), (3, 0.0, 0.0)]
    assert beside_tools.ways(moments, answers) == pytest.approx(
        {"connected to read": 0.0002, "sent to finished": 0.00025}
    )
