"""Thresholds: what a run must reach, as typed, and whether it did. Pure.

Knows the grammar `METRIC OPERATOR NUMBER UNIT` and how many samples each metric needs. Never passes a
threshold for lack of data: with too few samples there is no verdict.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from loadtests.load.histogram import QUANTILES, minimum_samples, quantile
from loadtests.load.results import MISSED, PASSED, TOO_FEW, ThresholdResult, ThresholdState

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PER_SECOND: Final = {"": 1.0, "/s": 1.0}
_SHARE: Final = {"%": 0.01}

_SHARES: Final = {name.replace("_", "."): share for name, share in QUANTILES.items()}
_UNITS: Final = {
    **dict.fromkeys((*_SHARES, "max"), _SECONDS),
    "errors": _SHARE,
    "achieved": _PER_SECOND,
    "goodput": _PER_SECOND,
}
_NUMBER: Final = r"(\d+(?:\.\d+)?)\s*([a-z%/]*)"
_GRAMMAR: Final = re.compile(rf"\s*([a-z0-9.]+?)\s*(<=|>=|<|>)\s*{_NUMBER}\s*")

# With no failure in n requests, the error share is below 3 / n with 95 % confidence (the rule of three;
# Hanley and Lippman-Hand, If Nothing Goes Wrong, Is Everything All Right?, JAMA 1983).
RULE_OF_THREE: Final = 3.0
# A run that is too short to pass may still be long enough to miss: ten failures in twenty requests are no
# accident of a service that fails once in a hundred. Missed without enough samples means that the observation
# would be rarer than this if the threshold held.
CLEAR: Final = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What thresholds judge. `latencies`: of all that came due, ascending; infinite if unanswered."""

    latencies: Sequence[float]
    judged: int
    failed: int
    achieved_per_second: float
    goodput_per_second: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """One comparison; `bound` is in the unit of the summary (seconds, share of 1, per second)."""

    text: str
    metric: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `p99<100ms`, `max<1s`, `errors<1%` or `goodput>=200`; `ValueError` says what is wrong."""
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(f"threshold {text!r} is not METRIC<VALUE or METRIC>=VALUE, such as 'p99<100ms'")
        metric, comparison, number, unit = match.groups()
        if metric not in _UNITS:
            raise ValueError(
                f"threshold {text!r}: unknown metric {metric!r}, choose from {', '.join(_UNITS)}"
            )
        units = _UNITS[metric]
        if unit not in units:
            known = " or ".join(name or "no unit" for name in units)
            raise ValueError(
                f"threshold {text!r}: {metric} is measured in {known}, not {unit or 'a bare number'}"
            )
        return cls(text.strip(), metric, comparison, float(number) * units[unit])

    @property
    def is_latency(self) -> bool:
        """Whether it bounds the time of an answer, in seconds."""
        return self.metric in _SHARES or self.metric == "max"

    @property
    def samples_needed(self) -> int:
        """The number of requests that this threshold needs to pass."""
        if self.metric == "errors":
            # No sample proves that errors never happen; `errors<=0%` says something about this run only.
            lowers = self.bound and self.comparison.startswith("<")
            return math.ceil(RULE_OF_THREE / self.bound) if lowers else 1
        if self.metric in _SHARES:
            return minimum_samples(_SHARES[self.metric])
        return 1 if self.metric == "max" else 0  # of this run only, not of what could happen

    def evaluate(self, measured: Measured) -> ThresholdResult:
        """Judge a run by this threshold."""
        if self.metric in ("achieved", "goodput"):
            rate = getattr(measured, f"{self.metric}_per_second")
            return self._result(rate, measured.judged, PASSED if self._holds(rate) else MISSED)
        if self.metric == "errors":
            share = measured.failed / measured.judged if measured.judged else None
            return self._judge(share, measured.judged, measured.failed, self.bound)
        ordered = measured.latencies
        if self.metric == "max":
            return self._judge(ordered[-1] if ordered else None, len(ordered), 0, 1)
        share = _SHARES[self.metric]
        against = sum(not self._holds(latency) for latency in ordered)
        rarity = 1 - share if self.comparison.startswith("<") else share
        return self._judge(quantile(ordered, share), len(ordered), against, rarity)

    def _judge(self, observed: float | None, count: int, against: int, rarity: float) -> ThresholdResult:
        """`against`: samples beyond the threshold; if it held, they would be at most a share of `rarity`."""
        holds = observed is not None and self._holds(observed)
        if count >= self.samples_needed:
            state: ThresholdState = PASSED if holds else MISSED
        else:
            state = MISSED if not holds and at_least(against, count, rarity) < CLEAR else TOO_FEW
        return self._result(observed, count, state)

    def _result(self, observed: float | None, count: int, state: ThresholdState) -> ThresholdResult:
        return ThresholdResult(
            threshold=self.text,
            observed=observed if observed is not None and math.isfinite(observed) else None,
            state=state,
            passed=state == PASSED,
            samples=count,
            samples_needed=self.samples_needed,
        )

    def _holds(self, value: float) -> bool:
        return _COMPARISONS[self.comparison](value, self.bound)


def parse_seconds(text: str) -> float:
    """Read a duration such as `100ms` or `1.5s`; `ValueError` says what is wrong with it."""
    match = re.fullmatch(_NUMBER, text.strip())
    if match is None or match[2] not in _SECONDS or not float(match[1]):
        raise ValueError(f"{text!r} is not a duration such as 100ms or 1.5s")
    return float(match[1]) * _SECONDS[match[2]]


def check_slo(thresholds: Iterable[Threshold], slo_seconds: float | None) -> None:
    """Raise `ValueError` for a threshold on goodput without an SLO."""
    for threshold in thresholds:
        if threshold.metric == "goodput" and slo_seconds is None:
            raise ValueError(
                f"threshold {threshold.text!r} needs --slo: goodput counts answers within it, and without "
                "one it is the same as achieved"
            )


def at_least(successes: int, count: int, share: float) -> float:
    """Return the probability of `successes` or more in `count` draws, each with probability `share`."""
    if successes <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    # In logarithms: the terms leave the range of a float long before their sum does.
    yes, no, all_ = math.log(share), math.log1p(-share), math.lgamma(count + 1)
    fewer = sum(
        math.exp(all_ - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * yes + (count - k) * no)
        for k in range(successes)
    )
    return max(1 - fewer, 0.0)
