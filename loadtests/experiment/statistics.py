"""Intervals that are valid for few, skewed figures: Hodges-Lehmann with exact rank tests. Pure.

Why ranks: a disturbed block is far off, so a mean and its t interval follow it, while the Hodges-Lehmann
estimate hardly moves. Why exact: with a dozen cycles no large-sample formula holds. One A/A run of 8 cycles
with a t interval missed 1.00.

Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (3rd ed.), 3.2 and 3.3 for one sample
(Tukey's interval from Wilcoxon's signed ranks), 4.2 and 4.3 for two (Moses' interval from Mann and Whitney).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Final

INFINITE: Final = (-math.inf, math.inf)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; both ends are infinite if there are too few values for one.

    `count`: the number of values (of the smaller side, if two sides are compared).
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def finite(self) -> bool:
        """Whether there are enough values for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        if not self.finite:
            return _digits(self.value)
        return f"{_digits(self.value)} ({_digits(self.low)} to {_digits(self.high)})"


def _digits(value: float) -> str:
    """Three significant digits, at most two of them after the point."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """The values for which a claim holds, including both ends."""

    low: float = 0.0
    high: float = math.inf

    def contains(self, estimate: Estimate) -> bool:
        """Whether the whole interval lies inside."""
        return self.low <= estimate.low and estimate.high <= self.high

    def excludes(self, estimate: Estimate) -> bool:
        """Whether no part of the interval lies inside."""
        return estimate.high < self.low or estimate.low > self.high

    def decides(self, estimate: Estimate) -> bool:
        """Whether the interval lies on one side of each end."""
        return estimate.finite and (self.contains(estimate) or self.excludes(estimate))

    def straddled(self, estimate: Estimate) -> float:
        """The end of the region that lies inside the interval: the one nearest to the estimate."""
        inside = [end for end in (self.low, self.high) if estimate.low <= end <= estimate.high]
        return min(inside, key=lambda end: abs(math.log(end / estimate.value)), default=self.low)


def more_needed(estimate: Estimate, bound: float) -> int | None:
    """About how many more values would make the interval exclude `bound`; None if no number would.

    An interval of ranks narrows as 1 / sqrt(n), like any other.
    """
    distance = abs(math.log(bound / estimate.value)) if bound > 0 else math.inf
    if not estimate.finite or distance < 1e-3:
        return None
    reach = max(math.log(estimate.high / estimate.value), math.log(estimate.value / estimate.low))
    return max(1, math.ceil(estimate.count * (reach / distance) ** 2) - estimate.count)


def geometric(values: Sequence[float], alpha: float) -> Estimate:
    """The typical value of positive `values`, such as ratios of pairs: Hodges-Lehmann of their logarithms.

    The interval misses the truth with a probability of at most `alpha`, if the logarithms scatter
    symmetrically about it. In the logarithm a ratio and its inverse are equally far from 1.

    Raises:
        ValueError: there are no values, or one of them is not positive.
    """
    if not values or min(values) <= 0:
        raise ValueError("the values of a geometric estimate must be positive numbers, at least one")
    return _exponential(hodges_lehmann([math.log(value) for value in values], alpha))


def geometric_ratio(a: Sequence[float], b: Sequence[float], alpha: float) -> Estimate:
    """How many times as large `b` is as `a`, two unpaired sets of positive values.

    Raises:
        ValueError: a side has no values, or one of them is not positive.
    """
    if not a or not b or min(*a, *b) <= 0:
        raise ValueError("both sides of a ratio must be positive numbers, at least one each")
    return _exponential(shift([math.log(value) for value in a], [math.log(value) for value in b], alpha))


def hodges_lehmann(values: Sequence[float], alpha: float) -> Estimate:
    """The median of all pairwise means of `values`, with Wilcoxon's exact interval."""
    n = len(values)
    means = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    return _between(means, _reach(_signed_rank_counts(n), alpha), n)


def shift(a: Sequence[float], b: Sequence[float], alpha: float) -> Estimate:
    """The median of all differences of `b` and `a`, with Mann and Whitney's exact interval."""
    differences = sorted(y - x for x in a for y in b)
    counts = _mann_whitney_counts(*sorted((len(a), len(b))))
    return _between(differences, _reach(counts, alpha), min(len(a), len(b)))


def _between(ordered: Sequence[float], reach: int, count: int) -> Estimate:
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    low, high = (ordered[reach - 1], ordered[-reach]) if reach else INFINITE
    return Estimate(middle, low, high, count)


def _reach(counts: Sequence[int], alpha: float) -> int:
    """How far in from either end the interval may begin: the most with P(statistic < reach) <= alpha / 2."""
    allowed, below, reach = alpha / 2 * sum(counts), 0, 0
    for number in counts:
        below += number
        if below > allowed:
            break
        reach += 1
    return reach


@functools.cache
def _signed_rank_counts(n: int) -> tuple[int, ...]:
    """In how many of the 2**n signings of the ranks 1..n the positive ones add up to 0, 1, 2, ..."""
    counts = [1] + [0] * (n * (n + 1) // 2)
    for rank in range(1, n + 1):
        for total in range(len(counts) - 1, rank - 1, -1):
            counts[total] += counts[total - rank]
    return tuple(counts)


@functools.cache
def _mann_whitney_counts(m: int, n: int) -> tuple[int, ...]:
    """In how many orders of m and n values exactly 0, 1, 2, ... of the m x n pairs are in the wrong order.

    The coefficients of a Gaussian binomial: times (1 - q**(n + i)), divided by (1 - q**i), for i in 1..m.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for total in range(len(counts) - 1, n + i - 1, -1):
            counts[total] -= counts[total - n - i]
        for total in range(i, len(counts)):
            counts[total] += counts[total - i]
    return tuple(counts)


def _exponential(estimate: Estimate) -> Estimate:
    def up(value: float) -> float:
        return math.exp(value) if value < 700 else math.inf

    return Estimate(up(estimate.value), up(estimate.low), up(estimate.high), estimate.count)
