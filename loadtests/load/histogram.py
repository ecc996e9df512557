"""Quantiles of durations: the one definition that every figure of the instrument uses.

Knows what a quantile of a sample is and how many samples it needs. Touches nothing. Never averages, as a mean
of latencies answers no question, and never interpolates: each figure is one that was measured.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Quantiles in seconds. None: infinite (never), or nothing was measured."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    max: float | None

    @classmethod
    def of(cls, durations: Iterable[float]) -> "Quantiles":
        """Sum up durations in seconds; an infinite one is a wait without the expected end."""
        ordered = sorted(durations)
        found = {name: quantile(ordered, share) for name, share in QUANTILES.items()}
        found["max"] = ordered[-1] if ordered else None
        return cls(**{name: _finite(value) for name, value in found.items()})


def nearest_rank(count: int, share: float) -> int:
    """Return the index of a quantile among `count` ordered values; `count` is at least 1.

    It is the smallest value that at least `share` of all values do not exceed (Hyndman and Fan, Sample
    Quantiles in Statistical Packages, 1996: definition 1). Interpolating between two values would
    invent a latency that no request had; rounding the rank would let p99 stand for 98.6 % of few samples.
    """
    # 0.999 * 1000 may be slightly above 999, which must not select the next value.
    return max(math.ceil(share * count - 1e-9), 1) - 1


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return a quantile of values in ascending order, by nearest rank; None if there are none."""
    return ordered[nearest_rank(len(ordered), share)] if ordered else None


def minimum_samples(share: float) -> int:
    """Return how many samples a quantile needs to have a 95 % interval.

    With n samples, all of them lie below the true quantile with probability share**n; above 2.5 % the
    interval has no upper end (order statistics; David and Nagaraja, Order Statistics, 7.1).
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


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
