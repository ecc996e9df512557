"""What a block counts, and when it may not be judged."""

from __future__ import annotations

import dataclasses

import pytest

from loadtests.load.sample import OK, STATUS, TIMEOUT, Sample
from loadtests.peers.block import Conditions, count, p99


def sample(intended: float, finished: float, outcome: str = OK) -> Sample:
    return Sample(intended, intended, intended, finished, finished, outcome, 200, None)


@pytest.mark.parametrize(
    ("taken", "answers", "within"),
    [
        (sample(10.1, 10.2), 1, 0),  # while it was warming up: an answer, but not judged
        (sample(10.4, 10.6), 1, 1),  # due before it was measured, finished within
        (sample(11.0, 12.0), 1, 1),  # just in time
        (sample(11.0, 12.1), 0, 0),  # too late for its client
        (sample(12.4, 12.6), 1, 0),  # after it was measured: what a queue gives back is no goodput
        (sample(11.0, 11.1, STATUS), 0, 0),  # a refusal
        (sample(11.0, 12.0, TIMEOUT), 0, 0),
    ],
)
def test_an_answer_counts_if_it_is_in_time_and_is_goodput_if_it_finished_meanwhile(
    taken: Sample, answers: int, within: int
) -> None:
    counted = count([taken], 10.0, 0.5, 2.0, give_up_seconds=1.0)
    assert (counted.answers, counted.goodput_per_second) == (answers, within / 2.0)
    assert counted.answers_p99_seconds == (
        pytest.approx(taken.finished - taken.intended) if within and taken.finished else None
    )


FINE = Conditions(stolen_share=0.05, foreign_share=0.1, generator_share=0.8, late_seconds=0.05, failed_here=0)


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        ({}, None),
        ({"stolen_share": 0.06}, "6% stolen"),
        ({"foreign_share": 0.11}, "11% foreign"),
        ({"late_seconds": 0.051}, "51 ms late"),
        ({"generator_share": 0.81}, "generator 81%"),
        ({"failed_here": 3}, "3 failed here"),
    ],
)
def test_a_block_is_void_for_what_went_in(worse: dict[str, float], says: str | None) -> None:
    void = dataclasses.replace(FINE, **worse).void_because  # type: ignore[arg-type]  # one is a whole number
    assert void is None if says is None else says in (void or "")


def test_p99_is_a_value_that_was_measured() -> None:
    assert p99([]) is None
    assert p99([3.0]) == 3.0
    assert p99([float(n) for n in range(1, 51)]) == 50.0
    assert p99([float(n) for n in range(1, 201)]) == 198.0
