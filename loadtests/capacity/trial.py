"""What one trial found: whether it passed, whether the queue grew, how much of the limit was offered. Pure.

Knows what passing means. Touches nothing.

Three meanings of "too much" are kept apart. A load misses the *SLO* if requests wait too long or are refused.
It is *unstable* if more and more requests are in flight, so that every latency depends on the length of the
trial. And a service answers most requests when it is *saturated*: clients in a closed loop measure that, and
no trial does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import linear_regression
from typing import Final

from loadtests.load.results import MISSED, RunSummary
from loadtests.load.sample import Sample, elapsed
from loadtests.load.tell import observed
from loadtests.load.thresholds import Threshold

LEAST_SECONDS: Final = 6.0
"""Of a trial, with constant arrivals. Such trials switch from passed to failed within 2 % of the load;
shorter ones, and Poisson arrivals, take a tenth of it."""

WAIT_SECONDS: Final = 0.1
"""How long a client may wait if no threshold says so."""

PARTS: Final = 6
GROWTH: Final = 0.003
STEADY: Final = 4.0
"""In flight grows if a straight line through its means in `PARTS` parts of a trial rises by more than
`GROWTH` of the offered rate, and by more than `STEADY` of its own standard errors. A queue that gets 1 % more
than it can serve rises on a line from the first second, long before requests wait for long; one in balance
varies."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an offloop service reports of its work at one moment of the monotonic clock."""

    seconds: float
    tasks: float
    cpu_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The reports of an offloop service, from before a trial to after it; empty for any other service.

    `workers`: None if it does not report them. `wait_seconds`: how long a client may wait.
    """

    readings: Sequence[Work] = ()
    workers: int | None = None
    wait_seconds: float = WAIT_SECONDS

    @property
    def demand_seconds(self) -> float | None:
        """S over the whole trial; None: not reported."""
        return demand(self.readings[0], self.readings[-1]) if self.readings else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial. Rates are per second.

    `load`: what was offered, in requests per second; or if the service reports S, as the share of its limit
    that `share_offered` computes.
    """

    load: float
    rate_per_second: float
    achieved_per_second: float
    seconds: float
    hold: bool
    passed: bool
    stable: bool
    why: str  # why it did not pass; empty if it did
    p99_seconds: float | None
    error_share: float
    demand_seconds: float | None  # S over the whole trial; None: not reported
    invalid_because: str  # why the trial says nothing; empty if it is valid


def seconds_needed(rate: float, thresholds: Iterable[Threshold]) -> float:
    """How long a trial at `rate` must be for every threshold to have enough samples."""
    needed = max((threshold.samples_needed for threshold in thresholds), default=0)
    return max(LEAST_SECONDS, math.ceil(needed * 1.05 / rate))


def demand(before: Work, after: Work) -> float | None:
    """S between two readings, in seconds; None: no task ended between them."""
    tasks = after.tasks - before.tasks
    return (after.cpu_seconds - before.cpu_seconds) / tasks if tasks > 0 else None


def share_offered(readings: Sequence[Work], rate: float, workers: int, wait: float) -> float | None:
    """The share of the limit, workers / S, that a trial at `rate` offered while S moved; None: S is unknown.

    With a steady S that is rate x S / workers. Otherwise a short time with a large S decides: the queue that
    grows then makes requests wait, however fast the rest of the trial is. So a queue is simulated with the S
    that was measured five times a second, to find the factor by which the rate can be multiplied until a
    request waits for `wait` seconds. The result is the share that has this factor with a steady S. On a
    machine whose S moved between 3.8 and 6.9 ms it separated all passed from all failed ones of 40 trials;
    the S of the whole trial was wrong for six of them, and that of its slowest second for one.
    """
    steps = [
        (after.seconds - before.seconds, one)
        for before, after in pairwise(readings)
        if (one := demand(before, after)) is not None
    ]
    if not steps:
        return None
    low, high = -10.0, 10.0  # logarithms of the factor
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _longest_wait(steps, math.exp(middle) * rate / workers) < wait:
            low = middle
        else:
            high = middle
    return (1 + wait / sum(seconds for seconds, _ in steps)) / math.exp(low)


def _longest_wait(steps: Sequence[tuple[float, float]], rate: float) -> float:
    """In the queue of one worker, as a fluid model; `steps`: seconds, and S meanwhile."""
    queue = longest = 0.0
    for seconds, demand_seconds in steps:
        queue = max(0.0, queue + seconds * (rate * demand_seconds - 1))
        longest = max(longest, queue)
    return longest


def trial_of(
    summary: RunSummary,
    samples: Sequence[Sample],
    started: float,
    *,
    hold: bool,
    watched: Watched,
) -> Trial:
    """Judge one run. `started`: its start, by the clock of the samples."""
    offered = summary.offered_per_second or 0.0
    means = in_flight(samples, started, summary.window_seconds)
    stable = not grows(means, summary.window_seconds / PARTS, offered)
    missed = [result for result in summary.thresholds if result.state == MISSED]
    why = [f"{one.threshold} missed: {observed(one.threshold, one.observed)}" for one in missed[:1]]
    if not stable:
        why.append(f"in flight grew from {means[0]:.0f} to {means[-1]:.0f}")
    share = None
    if watched.workers:
        share = share_offered(watched.readings, offered, watched.workers, watched.wait_seconds)
    return Trial(
        load=offered if share is None else share,
        rate_per_second=offered,
        achieved_per_second=summary.achieved_per_second,
        seconds=summary.window_seconds,
        hold=hold,
        passed=not why,
        stable=stable,
        why="; ".join(why),
        p99_seconds=summary.latency_seconds.p99,
        error_share=summary.error_share or 0.0,
        demand_seconds=watched.demand_seconds,
        invalid_because=summary.invalid_because[0] if summary.invalid_because else "",
    )


def in_flight(samples: Iterable[Sample], started: float, seconds: float) -> list[float]:
    """The mean number of requests in flight in each part of a run.

    By Little's law: the time that requests spend in a part, by its length.
    """
    part = seconds / PARTS
    sums = [0.0] * PARTS
    for sample in samples:
        if sample.finished is None:
            continue
        first = max(int((sample.intended - started) / part), 0)
        for number in range(first, PARTS):
            begin = started + part * number
            if sample.finished <= begin:
                break
            sums[number] += elapsed(max(sample.intended, begin), min(sample.finished, begin + part))
    return [total / part for total in sums]


def grows(means: Sequence[float], part_seconds: float, rate: float) -> bool:
    """Whether in flight rises steadily, by the line of least squares through its means."""
    line = linear_regression(range(len(means)), means)
    squares = sum((mean - line.intercept - line.slope * number) ** 2 for number, mean in enumerate(means))
    spread = len(means) * (len(means) ** 2 - 1) / 12  # sum of the squares of n - mean(n)
    error = math.sqrt(squares / (len(means) - 2) / spread)
    return line.slope > GROWTH * rate * part_seconds and line.slope > STEADY * error
