"""What is drawn of a run, as numbers."""

from __future__ import annotations

import math

import pytest

from loadtests.load import curves
from loadtests.load.histogram import minimum_samples, quantile
from tests.support.samples import EVERY_KIND, answered, failed, steady

START = 1000.0


def test_requests_that_fall_onto_each_other_are_one_dot_and_each_dot_is_a_request() -> None:
    samples = [answered(START + n / 10_000, took=0.0041 + n % 7 / 1000) for n in range(100_000)]
    dots = curves.dots(samples, START, 10.0)
    assert len(dots) <= curves.COLUMNS * 7
    real = {(sample.intended - START, (sample.finished or 0.0) - sample.intended) for sample in samples}
    assert set(dots) <= real
    assert len(curves.dots(steady(50), START, 0.5)) == 50


def test_only_expected_answers_are_dots_and_all_else_but_our_own_end_is_a_failure() -> None:
    assert len(curves.dots(EVERY_KIND, START, 10.0)) == 1
    wrong = [sample for sample in EVERY_KIND if sample.outcome not in ("ok", "aborted")]
    moments = [sample.intended - START for sample in wrong]
    assert curves.failures(EVERY_KIND, START, 10.0) == moments
    crowd = [failed(START + n / 10_000, 1.0, "timeout", stood=True) for n in range(100_000)]
    assert len(curves.failures(crowd, START, 10.0)) == curves.COLUMNS


def test_a_slice_has_a_second_and_a_hundred_requests_or_there_is_none() -> None:
    assert [spread.middle for spread in curves.spreads(steady(1000), START, 10.0)] == [
        n + 0.5 for n in range(10)
    ]
    assert len(curves.spreads(steady(500), START, 10.0)) == 5
    assert curves.spreads(steady(199), START, 10.0) == []
    assert curves.spreads(steady(1000), START, 1.5) == []


def test_a_quantile_of_a_slice_that_is_never_is_none() -> None:
    samples = [*steady(500), *(failed(START + 5 + n / 100, 1, "timeout", stood=True) for n in range(500))]
    spreads = curves.spreads(samples, START, 10.0)
    assert [spread.p99 is None for spread in spreads] == [False] * 5 + [True] * 5
    assert spreads[0].p50 == pytest.approx(0.004)


def test_rates_add_up_to_the_requests() -> None:
    samples = [
        *steady(995, took=0.3),
        *(failed(START + 9.95 + n / 100, 1, "timeout", stood=True) for n in range(5)),
    ]
    found = curves.rates(samples, START, 10.0)
    assert [(each.begin, each.end) for each in found] == [(n, n + 1) for n in range(10)]
    assert [each.offered for each in found] == [100] * 10
    assert found[0].achieved == pytest.approx(70, abs=1)  # the rest was answered in the next second
    assert found[-1].achieved == pytest.approx(100, abs=1)  # what comes after the end is not in it
    assert sum(each.failed for each in found) == 5
    assert len(curves.rates(samples, START, 0.5)) == curves.FEWEST_SLICES
    assert len(curves.rates(samples, START, 3600.0)) == curves.MOST_SLICES


def test_the_curve_of_quantiles_rises_to_the_maximum_and_ends_before_never() -> None:
    ordered = [n / 1000 for n in range(1, 1001)]
    points = list(curves.by_rarity(ordered))
    assert points[0] == (1.0, 0.001)
    assert points[-1] == (1000.0, 1.0)
    assert points == sorted(points)
    assert all(latency == quantile(ordered, 1 - 1 / rarity) for rarity, latency in points[:-1])
    cut = list(curves.by_rarity([*ordered[:990], *[math.inf] * 10]))
    assert max(rarity for rarity, _ in cut) == pytest.approx(100)
    assert list(curves.by_rarity([])) == list(curves.by_rarity([math.inf])) == []


@pytest.mark.parametrize("count", [1, 72, 367, 368, 369, 3688, 10**6])
def test_a_quantile_has_an_interval_where_it_has_samples_enough(count: int) -> None:
    rarity = curves.rarity_with_interval(count)
    for factor, enough in ((0.99, True), (1.01, False)):
        assert (minimum_samples(1 - 1 / (rarity * factor)) <= count) == enough


def test_attempts_are_drawn_when_they_were_sent_and_not_when_their_request_was_due() -> None:
    later = [
        answered(START + 1.5)._replace(intended=START + 0.5, attempt=2),
        answered(START + 10.5)._replace(intended=START + 9.5, attempt=2),  # after the window
        *EVERY_KIND,
    ]
    sent = [sample for sample in EVERY_KIND if sample.started is not None and sample.started < START + 1]
    assert curves.attempts(later, START, 10.0)[:3] == [len(sent), 2, 0]
    assert curves.attempts(later, START, 10.0)[-1] == 0
    assert len(curves.attempts(later, START, 10.0)) == len(curves.rates(later, START, 10.0))
