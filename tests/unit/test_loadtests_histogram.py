"""Quantiles of durations."""

import pytest

from loadtests.load.histogram import caution, minimum_samples, quantiles


def test_quantiles_of_a_known_set_are_right_to_three_digits() -> None:
    found = quantiles(n / 1000 for n in range(1, 10_001))
    assert found == pytest.approx({"p50": 5.0, "p90": 9.0, "p99": 9.9, "p99_9": 9.99, "max": 10.0}, rel=1e-3)


def test_quantiles_of_nothing_are_none() -> None:
    assert quantiles([]) == {"p50": None, "p90": None, "p99": None, "p99_9": None, "max": None}


def test_microseconds_are_resolved_and_the_range_ends_at_an_hour() -> None:
    assert quantiles([0.000_007])["max"] == 0.000_007
    assert quantiles([1e9])["max"] == pytest.approx(3600, rel=1e-3)
    assert quantiles([-1.0])["max"] == 0


@pytest.mark.parametrize(("share", "count"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_a_quantile_needs_this_many_samples_for_an_interval(share: float, count: int) -> None:
    assert minimum_samples(share) == count


@pytest.mark.parametrize(
    ("count", "named"),
    [
        (3688, None),
        (0, None),
        (3687, "p99.9 (3688)"),
        (367, "p99 (368), p99.9 (3688)"),
        (5, "p50 (6), p90"),
    ],
)
def test_a_caution_names_the_quantiles_that_need_more(count: int, named: str | None) -> None:
    sentence = caution(count)
    assert (sentence is None) if named is None else (sentence is not None and named in sentence)
