from __future__ import annotations

import itertools
import math
import random
from math import comb

import pytest

from loadtests.experiment.statistics import (
    Estimate,
    Region,
    _mann_whitney_counts,
    _signed_rank_counts,
    geometric,
    geometric_ratio,
    hodges_lehmann,
    more_needed,
    shift,
)


@pytest.mark.parametrize("n", range(1, 9))
def test_signed_rank_counts_are_those_of_all_signings(n: int) -> None:
    sums = [sum(itertools.compress(range(1, n + 1), signs)) for signs in itertools.product((0, 1), repeat=n)]
    assert list(_signed_rank_counts(n)) == [sums.count(total) for total in range(n * (n + 1) // 2 + 1)]


@pytest.mark.parametrize(("m", "n"), [(1, 3), (2, 2), (3, 4), (4, 6)])
def test_mann_whitney_counts_are_those_of_all_orders(m: int, n: int) -> None:
    wrong = [
        sum(place - number for number, place in enumerate(places))
        for places in itertools.combinations(range(m + n), m)
    ]
    assert sum(_mann_whitney_counts(m, n)) == comb(m + n, m)
    assert list(_mann_whitney_counts(m, n)) == [wrong.count(total) for total in range(m * n + 1)]


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),  # Hollander, Wolfe and Chicken, table A.4: the critical value plus one
    [(6, 0.05, 1), (8, 0.05, 4), (12, 0.05, 14), (20, 0.05, 53), (5, 0.05, None), (8, 0.004, None)],
)
def test_the_interval_begins_at_the_tabulated_rank(n: int, alpha: float, rank: int | None) -> None:
    values = [float(2**k) for k in range(n)]  # all pairwise means differ
    means = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    found = hodges_lehmann(values, alpha)
    assert found.finite is (rank is not None)
    if rank is not None:
        assert (found.low, found.high) == (means[rank - 1], means[-rank])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    draw = random.Random(7)
    missed = [0, 0]
    for _ in range(1000):
        one = hodges_lehmann([draw.gauss(3, 1) for _ in range(12)], 0.05)
        two = shift([draw.gauss(0, 1) for _ in range(9)], [draw.gauss(2, 1) for _ in range(12)], 0.05)
        missed[0] += not one.low <= 3 <= one.high
        missed[1] += not two.low <= 2 <= two.high
    assert all(20 <= count <= 70 for count in missed)  # 50 by the rule, a few less because ranks are whole


def test_one_wild_block_hardly_moves_the_estimate() -> None:
    calm = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00, 1.01, 0.99, 1.00, 1.01, 0.99]
    assert geometric([*calm, 9.0], 0.05).value == pytest.approx(1.0, abs=0.01)


def test_a_ratio_and_its_inverse_are_equally_far_from_one() -> None:
    values = [1.1, 1.3, 1.25, 1.2, 1.22, 1.18, 1.4, 1.15, 1.21]
    there, back = geometric(values, 0.05), geometric([1 / value for value in values], 0.05)
    assert (there.value, there.low, there.high) == pytest.approx(
        (1 / back.value, 1 / back.high, 1 / back.low)
    )


def test_two_unpaired_sides_are_compared_as_a_ratio() -> None:
    found = geometric_ratio([1.0, 1.1, 0.9, 1.05, 0.95, 1.02], [2.0, 2.2, 1.8, 2.1, 1.9, 2.04], 0.05)
    assert found.value == pytest.approx(2.0, rel=0.02)
    assert found.low > 1.7


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0]])
def test_what_has_no_logarithm_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        geometric(values, 0.05)


@pytest.mark.parametrize(
    ("estimate", "inside", "outside"),
    [
        (Estimate(1.7, 1.65, 1.75, 12), True, False),
        (Estimate(1.5, 1.4, 1.55, 12), False, True),
        (Estimate(1.6, 1.55, 1.65, 12), False, False),
        (Estimate(1.7, -math.inf, math.inf, 5), False, False),
        (Estimate(2.5, 2.1, 2.9, 12), False, True),
    ],
)
def test_a_claim_is_decided_by_its_whole_interval(estimate: Estimate, inside: bool, outside: bool) -> None:
    region = Region(1.6, 2.0)
    assert (region.contains(estimate), region.excludes(estimate)) == (inside, outside)
    assert region.decides(estimate) is (inside or outside)


def test_how_many_more_values_would_decide_follows_from_the_width() -> None:
    estimate = Estimate(1.55, 1.47, 1.64, 12)
    bound = Region(1.6).straddled(estimate)
    assert bound == 1.6
    more = more_needed(estimate, bound)
    assert more == 26  # the interval must shrink to 0.56 of its reach: 3.2 times as many values, less the 12
    assert more_needed(Estimate(1.6, 1.5, 1.7, 12), 1.6) is None
