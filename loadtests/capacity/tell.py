"""The result of a search in words. Pure. Keeps the three meanings of capacity apart."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from loadtests.capacity.results import Capacity
from loadtests.capacity.trial import Trial

COLUMNS: Final = 78


def lines(found: Capacity) -> Iterator[str]:
    """The result for a terminal of 80 columns: the three meanings, then what they are based on."""
    for head, sentence in sentences(found):
        yield from textwrap.wrap(sentence, COLUMNS, initial_indent=f"{head:14}", subsequent_indent=" " * 14)


def sentences(found: Capacity) -> Iterator[tuple[str, str]]:
    """Sentences with their headings; one without a heading continues the one before it."""
    bracket, limit = found.bracket, found.limit_per_second

    def load(value: float | None) -> str:
        if value is None:
            return "?"
        rate = f"{_rate(found.per_second(value))}/s"
        return rate if limit is None else f"{rate} ({value:.1%} of the limit)"

    if found.state == "invalid":
        yield "INVALID", found.invalid_because
    yield "SLO", ", ".join(found.thresholds)
    yield "SLO capacity", f"between {load(bracket.low)} and {load(bracket.high)}"
    if found.upper_end:
        yield "", f"at the upper end: {found.upper_end}"
    if not bracket.complete:
        yield "", f"not narrowed down any further: {found.state}"
    if found.unstable_load is None:
        yield "stability", f"in flight did not grow at any load tried, up to {load(found.stable_load)}"
    else:
        yield (
            "stability",
            f"in flight grows at {load(found.unstable_load)}, not at {load(found.stable_load)}",
        )
    rates = [f"{_rate(saturation.throughput_per_second)}/s" for saturation in found.saturations]
    told = f"{rates[0]} before and {rates[-1]} after" if len(rates) > 1 else rates[0]
    yield "saturation", f"{told}, by {found.saturations[0].clients} clients in a closed loop"
    demands = [trial.demand_seconds for trial in found.trials if trial.demand_seconds is not None]
    if limit is not None and found.demand_seconds is not None:
        yield (
            "limit",
            f"{_rate(limit)}/s = {found.workers} {'worker' if found.workers == 1 else 'workers'} / S "
            f"{found.demand_seconds * 1e3:.2f} ms; S was "
            f"{min(demands) * 1e3:.2f} to {max(demands) * 1e3:.2f} ms meanwhile, which is taken out",
        )
    elif len(found.saturations) > 1:
        first, *_, last = (saturation.throughput_per_second for saturation in found.saturations)
        yield "drift", f"{last / first - 1:+.0%} in the closed loop meanwhile, which is not taken out"
    yield "", f"{len(found.trials)} trials in {found.seconds:.0f} s"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.1f}"


def told(trial: Trial) -> str:
    """The outcome of a trial."""
    return f"INVALID: {trial.invalid_because}" if trial.invalid_because else trial.why or "passed"
