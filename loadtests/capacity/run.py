"""The command `capacity`: searches by trials until the capacity is bracketed, and sums up.

Knows the order of things and when to stop. Touches the terminal. Never measures, and never decides which load
comes next: bench.py and search.py do.
"""

from __future__ import annotations

import contextlib
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Final, Protocol

from rich.console import Console

from loadtests.capacity.bench import Order
from loadtests.capacity.results import Capacity, Saturation, State, stability, upper_end
from loadtests.capacity.search import WIDTH, Ask, Search
from loadtests.capacity.trial import Trial
from loadtests.files import write_json
from loadtests.load.run import UsageError

START_SHARE: Final = 0.85
"""Of the throughput in a closed loop: where an open load begins to wait, more often than not."""

SHARE_WIDTH: Final = 0.045
"""Of a bracket of shares. No trial hits the share that it was meant to, for S has moved on by then; to narrow
it down further takes longer than anybody wants to wait."""

INVALID_IN_A_ROW: Final = 3
COLUMNS: Final = 78
RESULT: Final = "capacity.json"


class Measures(Protocol):
    """What measures; `Bench` does."""

    workers: int | None

    def saturate(self) -> Saturation:
        """Keep clients in a closed loop busy for a moment."""

    def trial(self, rate: float, *, hold: bool) -> Trial:
        """Offer one rate."""


def find(
    order: Order, bench: Measures, console: Console, clock: Callable[[], float] = time.monotonic
) -> Capacity:
    """Search until the capacity is bracketed, the time is over, or nothing valid can be measured.

    Ctrl-C ends it with what is known. Raises `UsageError` when there is nothing to start from.
    """
    began = clock()
    saturations = [bench.saturate()]
    throughput, demand = saturations[0].throughput_per_second, saturations[0].demand_seconds
    if not throughput:
        raise UsageError(f"no answer as expected from {order.phase.url} to clients in a closed loop")
    workers = bench.workers if demand is not None else None
    share = demand / workers if demand is not None and workers is not None else 1.0  # of one request a second
    _say(console, f"closed loop, {order.clients} clients: {throughput:.0f}/s")
    search = Search(START_SHARE * throughput * share, width=WIDTH if workers is None else SHARE_WIDTH)
    trials: list[Trial] = []
    state: State = "complete"
    because = ""
    try:
        while (ask := search.ask()) is not None:
            spent = clock() - began
            if spent > order.budget_seconds:
                state = "out of time"
                break
            rate = ask.load / share
            with _status(console, f"{_kind(ask)} {rate:.1f}/s, {spent:.0f} of {order.budget_seconds:.0f} s"):
                trial = bench.trial(rate, hold=ask.hold)
            trials.append(trial)
            share = trial.load / trial.rate_per_second  # 1 of a service that does not tell S
            _say(console, _told(trial, ask))
            if not trial.invalid_because:
                search.note(trial.load, passed=trial.passed, hold=ask.hold)
            elif all(trial.invalid_because for trial in trials[-INVALID_IN_A_ROW:]) and (
                len(trials) >= INVALID_IN_A_ROW
            ):
                state, because = "invalid", trial.invalid_because
                break
        saturations.append(bench.saturate())
    except KeyboardInterrupt:
        state = "interrupted"
    valid = [trial for trial in trials if not trial.invalid_because]
    stable, unstable = stability(valid)
    demands = [trial.demand_seconds for trial in valid if trial.demand_seconds is not None]
    return Capacity(
        url=order.phase.url,
        thresholds=tuple(threshold.text for threshold in order.thresholds),
        bracket=search.bracket,
        upper_end=upper_end(valid, search.bracket),
        stable_load=stable,
        unstable_load=unstable,
        saturations=tuple(saturations),
        workers=workers,
        demand_seconds=median(demands) if demands and workers else None,
        trials=tuple(trials),
        seconds=clock() - began,
        state=state,
        invalid_because=because,
    )


@contextlib.contextmanager
def kept(out: Path | None) -> Iterator[Callable[[Capacity], None]]:
    """Give what writes the result into a folder, which is made before anything is measured.

    Raises `UsageError` when it cannot be written to, or holds a result already.
    """
    if out is None:
        yield lambda _: None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / RESULT).exists():
            raise UsageError(f"{out} already holds a result: choose another folder")
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {out}: {error.strerror}") from None
    yield lambda found: write_json(out / RESULT, found.to_json(), indent=2)


def lines(found: Capacity) -> Iterator[str]:
    """The answer for a terminal of 80 columns: the three meanings, then what they rest on."""
    for head, sentence in _sentences(found):
        yield from textwrap.wrap(sentence, COLUMNS, initial_indent=f"{head:14}", subsequent_indent=" " * 14)


def _sentences(found: Capacity) -> Iterator[tuple[str, str]]:
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
        yield "stability", f"no load that was tried let in flight grow, up to {load(found.stable_load)}"
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
            f"{_rate(limit)}/s = {found.workers} workers / S {found.demand_seconds * 1e3:.2f} ms; S was "
            f"{min(demands) * 1e3:.2f} to {max(demands) * 1e3:.2f} ms meanwhile, which is taken out",
        )
    elif len(found.saturations) > 1:
        first, *_, last = (saturation.throughput_per_second for saturation in found.saturations)
        yield "drift", f"{last / first - 1:+.0%} in the closed loop meanwhile, which is not taken out"
    yield "", f"{len(found.trials)} trials in {found.seconds:.0f} s"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.1f}"


def _kind(ask: Ask) -> str:
    return "hold " if ask.hold else "trial"


def _told(trial: Trial, ask: Ask) -> str:
    verdict = trial.invalid_because and f"INVALID: {trial.invalid_because}"
    p99 = "never" if trial.p99_seconds is None else f"{trial.p99_seconds * 1e3:.0f} ms"
    rate = f"{_kind(ask)} {trial.rate_per_second:7.1f}/s for {trial.seconds:.0f} s  p99 {p99:>8}"
    return f"{rate}  {verdict or trial.why or 'passed'}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _status(console: Console, text: str) -> contextlib.AbstractContextManager[object]:
    """Something that moves while a trial runs, on a terminal."""
    return console.status(text) if console.is_terminal else contextlib.nullcontext()
