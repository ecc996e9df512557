"""Quantiles of durations."""

import math

import pytest

from loadtests.load.histogram import Quantiles, caution, minimum_samples, nearest_rank, quantile


def test_quantiles_of_a_known_set_are_those_of_the_set() -> None:
    found = Quantiles.of(n / 1000 for n in range(10_000, 0, -1))
    assert found == Quantiles(p50=5.0, p90=9.0, p95=9.5, p99=9.9, p99_9=9.99, max=10.0)


def test_quantiles_of_nothing_are_none() -> None:
    assert Quantiles.of([]) == Quantiles(p50=None, p90=None, p95=None, p99=None, p99_9=None, max=None)
    assert quantile([], 0.5) is None


def test_a_quantile_among_those_that_wait_for_ever_is_none() -> None:
    found = Quantiles.of([math.inf] * 10 + [0.001] * 90)
    assert (found.p90, found.p95, found.max) == (0.001, None, None)


@pytest.mark.parametrize(
    ("count", "share", "place"),
    [
        (1, 0.5, 0),
        (1, 0.999, 0),
        (2, 0.5, 0),
        (3, 0.5, 1),
        (100, 0.99, 98),
        (101, 0.99, 99),
        # HdrHistogram's rounding takes the 257th, below which are only 98.8 %; a plain int() the 258th.
        (260, 0.99, 257),
        (1000, 0.999, 998),
        (700, 0.99, 692),  # 0.99 * 700 is a hair above 693 in floats
    ],
)
def test_a_quantile_is_the_smallest_value_that_its_share_does_not_exceed(
    count: int, share: float, place: int
) -> None:
    assert nearest_rank(count, share) == place
    assert quantile(range(count), share) == place


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
        (5, "p50 (6), p90 (36), p95 (72)"),
    ],
)
def test_a_caution_names_the_quantiles_that_need_more(count: int, named: str | None) -> None:
    sentence = caution(count)
    assert (sentence is None) if named is None else (sentence is not None and named in sentence)
