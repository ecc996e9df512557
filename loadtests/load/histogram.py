"""Quantiles of durations, by way of HdrHistogram.

Knows its range and resolution: 1 microsecond to 1 hour, three significant digits, so every figure
is right to 0.1 %. Touches nothing. Never averages: a mean of latencies answers no question.
"""

import math
from collections.abc import Iterable
from typing import Final

from hdrh.histogram import HdrHistogram

LONGEST_SECONDS: Final = 3600.0
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}

Quantiles = dict[str, float | None]


def quantiles(durations: Iterable[float]) -> Quantiles:
    """Return `{"p50", "p90", "p99", "p99_9", "max"}` in seconds; None each when there are none.

    Durations (seconds) outside the range count as its ends.
    """
    histogram = HdrHistogram(1, round(LONGEST_SECONDS * 1e6), 3)
    for duration in durations:
        histogram.record_value(round(min(max(duration, 0.0), LONGEST_SECONDS) * 1e6))
    if histogram.total_count == 0:
        return {**dict.fromkeys(QUANTILES), "max": None}
    found = {name: histogram.get_value_at_percentile(share * 100) / 1e6 for name, share in QUANTILES.items()}
    return {**found, "max": histogram.get_max_value() / 1e6}


def minimum_samples(share: float) -> int:
    """Return how many samples a quantile needs before it has a 95 % interval at all.

    With n samples, all of them lie below the true quantile with probability share**n; beyond 2.5 %
    the interval has no upper end (order statistics; David and Nagaraja, Order Statistics, 7.1).
    That makes 72 for p95, 368 for p99 and 3688 for p99.9.
    """
    return math.ceil(math.log(0.025) / math.log(share))


def caution(count: int) -> str | None:
    """Return a sentence that names the quantiles for which `count` samples are too few, or None."""
    needs = {name.replace("_", "."): minimum_samples(share) for name, share in QUANTILES.items()}
    missing = [f"{name} ({needed})" for name, needed in needs.items() if count < needed]
    if count == 0 or not missing:
        return None
    return (
        f"{count} samples are too few for a 95 % interval of {', '.join(missing)}: the figure is one sample"
    )
