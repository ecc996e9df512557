"""Searches by trials until the capacity is bracketed, and sums up.

Knows the order of things and when to stop. Touches the terminal. Never measures, and never decides which load
comes next: bench.py and search.py do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from statistics import median
from typing import Final, Protocol

from rich.console import Console

from loadtests.capacity.bench import Order
from loadtests.capacity.results import Capacity, Saturation, State, stability, upper_end
from loadtests.capacity.search import WIDTH, Ask, Search
from loadtests.capacity.tell import told
from loadtests.capacity.trial import Trial
from loadtests.exits import UsageError

START_SHARE: Final = 0.85
"""Of the throughput in a closed loop: about where requests of an open load begin to wait."""

SHARE_WIDTH: Final = 0.045
"""Of a bracket of shares. No trial hits the intended share exactly, because S has moved by then; a narrower
bracket would take too long."""

INVALID_IN_A_ROW: Final = 3


class Measures(Protocol):
    """What the search needs of a bench."""

    workers: int | None

    def saturate(self) -> Saturation:
        """Keep clients in a closed loop busy for a moment."""

    def trial(self, rate: float, *, hold: bool) -> Trial:
        """Offer one rate."""


def find(
    order: Order, bench: Measures, console: Console, clock: Callable[[], float] = time.monotonic
) -> Capacity:
    """Search until the capacity is bracketed, the time is over, or nothing valid can be measured.

    Ctrl-C ends the search with the result so far. Raises `UsageError` if the closed loop gets no answer.
    """
    began = clock()
    saturations = [bench.saturate()]
    throughput, demand = saturations[0].throughput_per_second, saturations[0].demand_seconds
    if not throughput:
        raise UsageError(f"clients in a closed loop got no expected answer from {order.phase.url}")
    workers = bench.workers if demand is not None else None
    share = (
        demand / workers if demand is not None and workers is not None else 1.0
    )  # of the limit, per request a second
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
            share = trial.load / trial.rate_per_second  # 1 if the service does not report S
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


def _kind(ask: Ask) -> str:
    return "hold " if ask.hold else "trial"


def _told(trial: Trial, ask: Ask) -> str:
    p99 = "never" if trial.p99_seconds is None else f"{trial.p99_seconds * 1e3:.0f} ms"
    rate = f"{_kind(ask)} {trial.rate_per_second:7.1f}/s for {trial.seconds:.0f} s  p99 {p99:>8}"
    return f"{rate}  {told(trial)}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _status(console: Console, text: str) -> contextlib.AbstractContextManager[object]:
    """A spinner while a trial runs, on a terminal."""
    return console.status(text) if console.is_terminal else contextlib.nullcontext()
