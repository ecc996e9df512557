"""Thresholds: what a run has to reach, as a person types it and as a summary answers it.

Knows the grammar `METRIC OPERATOR NUMBER UNIT` and where a summary holds each metric. Touches
nothing. Never reports a missed threshold as passed for want of data: no samples, no pass.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PER_SECOND: Final = {"": 1.0, "/s": 1.0}
_SHARE: Final = {"%": 0.01}

# metric -> (path into the summary, its units and what each is worth there)
_METRICS: Final[dict[str, tuple[tuple[str, ...], dict[str, float]]]] = {
    "p50": (("latency_seconds", "p50"), _SECONDS),
    "p90": (("latency_seconds", "p90"), _SECONDS),
    "p99": (("latency_seconds", "p99"), _SECONDS),
    "p99.9": (("latency_seconds", "p99_9"), _SECONDS),
    "max": (("latency_seconds", "max"), _SECONDS),
    "errors": (("error_share",), _SHARE),
    "achieved": (("achieved_per_second",), _PER_SECOND),
    "goodput": (("goodput_per_second",), _PER_SECOND),
}
_GRAMMAR: Final = re.compile(r"\s*([a-z0-9.]+?)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*([a-z%/]*)\s*")


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
        if metric not in _METRICS:
            raise ValueError(
                f"threshold {text!r}: unknown metric {metric!r}, choose from {', '.join(_METRICS)}"
            )
        units = _METRICS[metric][1]
        if unit not in units:
            known = " or ".join(name or "no unit" for name in units)
            raise ValueError(
                f"threshold {text!r}: {metric} is measured in {known}, not {unit or 'a bare number'}"
            )
        return cls(text.strip(), metric, comparison, float(number) * units[unit])

    def evaluate(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return `{"threshold", "observed", "passed"}`; `observed` in the summary's unit, or None."""
        value: Any = summary
        for key in _METRICS[self.metric][0]:
            value = value[key]
        passed = value is not None and _COMPARISONS[self.comparison](value, self.bound)
        return {"threshold": self.text, "observed": value, "passed": passed}


def evaluate(thresholds: Iterable[Threshold], summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of all thresholds, in their order."""
    return [threshold.evaluate(summary) for threshold in thresholds]
