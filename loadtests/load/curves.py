"""The numbers that are drawn of a run. Pure.

Knows how many dots and slices a drawing can take: a page stays small, however many requests there were.
Touches nothing. Never averages.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.load.histogram import quantile
from loadtests.load.sample import ABORTED, OK, Sample, elapsed
from loadtests.load.summary import waits

COLUMNS: Final = 200  # places for a dot from left to right
PER_DECADE: Final = 24  # places for a dot where latency grows tenfold
MOST_SLICES: Final = 120
FEWEST_SLICES: Final = 5
FEWEST_REQUESTS: Final = 100  # in a slice; with fewer the p99 is just their maximum
PER_DECADE_OF_RARITY: Final = 60


@dataclass(frozen=True, slots=True)
class Spread:
    """Latencies of the requests that came due in a slice of time; None: never."""

    middle: float  # seconds after the start
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, in a slice of time: requests that came due, expected answers that came, and failures of the
    requests that came due."""

    begin: float  # seconds after the start
    end: float
    offered: float
    achieved: float
    failed: float


def dots(samples: Iterable[Sample], started: float, window: float) -> list[tuple[float, float]]:
    """When each request came due, in seconds after the start, and the latency of the answer it got.

    Dots that would cover each other are merged.
    """
    places: dict[tuple[int, int], tuple[float, float]] = {}
    for sample in samples:
        if sample.outcome == OK:
            due = sample.intended - started
            latency = max(
                elapsed(sample.intended, sample.finished), 1e-6
            )  # a logarithm needs a positive value
            place = (int(due / window * COLUMNS), math.floor(math.log10(latency) * PER_DECADE))
            places.setdefault(place, (due, latency))
    return list(places.values())


def failures(samples: Iterable[Sample], started: float, window: float) -> list[float]:
    """When requests came due that did not get the expected answer; marks side by side are merged."""
    places: dict[int, float] = {}
    for sample in samples:
        if sample.outcome not in (OK, ABORTED):
            due = sample.intended - started
            places.setdefault(int(due / window * COLUMNS), due)
    return list(places.values())


def spreads(due: Sequence[Sample], started: float, window: float) -> list[Spread]:
    """Latencies by slices of at least a second; empty if there are too few requests for two slices."""
    count = min(MOST_SLICES, int(window), len(due) // FEWEST_REQUESTS)
    if count < 2:
        return []
    groups: list[list[Sample]] = [[] for _ in range(count)]
    for sample in due:
        groups[_place(sample.intended - started, window, count)].append(sample)
    return [
        Spread((number + 0.5) * window / count, _finite(ordered, 0.5), _finite(ordered, 0.99))
        for number, ordered in enumerate(sorted(waits(group)) for group in groups)
    ]


def rates(due: Sequence[Sample], started: float, window: float) -> list[Rates]:
    """Offered, achieved and failed requests, slice by slice."""
    count = _slices(window)
    offered, achieved, failed = [0] * count, [0] * count, [0] * count
    for sample in due:
        place = _place(sample.intended - started, window, count)
        offered[place] += 1
        failed[place] += sample.outcome not in (OK, ABORTED)
        if sample.outcome == OK and (end := elapsed(started, sample.finished)) <= window:
            achieved[_place(end, window, count)] += 1
    length = window / count
    edges = itertools.pairwise(number * length for number in range(count + 1))
    return [
        Rates(begin, end, a / length, b / length, c / length)
        for (begin, end), a, b, c in zip(edges, offered, achieved, failed, strict=True)
    ]


def attempts(samples: Iterable[Sample], started: float, window: float) -> list[float]:
    """Attempts that were sent per second, in the slices of `rates`: those of retries as well."""
    count = _slices(window)
    sent = [0] * count
    for sample in samples:
        if sample.started is not None and (at := sample.started - started) <= window:
            sent[_place(at, window, count)] += 1
    return [number * count / window for number in sent]


def by_rarity(ordered: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Quantiles as HdrHistogram plots them: 1 / (1 - share), and the latency that this share does not exceed.

    `ordered`: seconds, ascending. The last is the maximum. Ends before the first that is infinite.
    """
    steps = math.floor(math.log10(len(ordered)) * PER_DECADE_OF_RARITY) if ordered else -1
    for step in range(steps + 1):
        rarity = 10 ** (step / PER_DECADE_OF_RARITY)
        latency = _finite(ordered, 1 - 1 / rarity)
        if latency is None:
            return
        yield rarity, latency
    if ordered and math.isfinite(ordered[-1]):
        yield float(len(ordered)), ordered[-1]


def rarity_with_interval(count: int) -> float:
    """The rarity up to which `count` samples give a quantile an interval; `minimum_samples` says why."""
    return 1 / -math.expm1(math.log(0.025) / count)


def _slices(window: float) -> int:
    return min(MOST_SLICES, max(FEWEST_SLICES, int(window)))


def _place(at: float, window: float, count: int) -> int:
    return min(max(int(at / window * count + 1e-6), 0), count - 1)


def _finite(ordered: Sequence[float], share: float) -> float | None:
    found = quantile(ordered, share)
    return found if found is not None and math.isfinite(found) else None
