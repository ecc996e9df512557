"""The result of a search for the capacity, as types. Pure.

All times are in seconds, rates per second, shares of 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from loadtests.capacity.search import Bracket
from loadtests.capacity.trial import Trial

State = Literal["complete", "out of time", "invalid", "interrupted"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """The throughput of clients in a closed loop, which never offer more than the service takes."""

    clients: int
    throughput_per_second: float
    demand_seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The three meanings of capacity, kept apart, and the trials that they follow from.

    `bracket`: in requests per second, or if the service reports S, in shares of the limit (workers / S): then
    drift is taken out, and `limit_per_second` is the limit by the S of all trials together.
    """

    url: str
    thresholds: tuple[str, ...]
    bracket: Bracket
    upper_end: str  # why the load at the upper end did not pass; empty if there is none
    stable_load: float | None  # the highest stable one below the first unstable one
    unstable_load: float | None
    saturations: tuple[Saturation, ...]  # before the search, and after it
    workers: int | None  # None: S is unknown
    demand_seconds: float | None
    trials: tuple[Trial, ...]
    seconds: float
    state: State
    invalid_because: str = ""

    @property
    def limit_per_second(self) -> float | None:
        """Workers / S."""
        if self.workers is None or not self.demand_seconds:
            return None
        return self.workers / self.demand_seconds

    def per_second(self, load: float) -> float:
        """A load of the bracket in requests per second."""
        return load * (self.limit_per_second or 1.0)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return dataclasses.asdict(self)


def stability(trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """The highest stable load below the lowest unstable one, and that unstable one."""
    unstable = min((trial.load for trial in trials if not trial.stable), default=None)
    stable = max(
        (trial.load for trial in trials if trial.stable and (unstable is None or trial.load < unstable)),
        default=None,
    )
    return stable, unstable


def upper_end(trials: Sequence[Trial], bracket: Bracket) -> str:
    """Why the trial nearest to the bracket's upper end did not pass."""
    failed = [trial for trial in trials if trial.why]
    if bracket.high is None or not failed:
        return ""
    high = bracket.high
    return min(failed, key=lambda trial: abs(trial.load - high)).why
