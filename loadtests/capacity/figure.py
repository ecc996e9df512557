"""The drawing of a search: the outcome of each trial, and what was offered while S moved.

Knows matplotlib. Touches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.capacity.results import Capacity
from loadtests.capacity.trial import Trial
from loadtests.pages.drawing import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION, label_logarithmic, svg

SIZE: Final = (9.0, 3.6)
NEVER: Final = 1.6
"""Where trials without a p99 are drawn, as a multiple of the largest p99."""

KINDS: Final = (
    ("passed", GREEN, "o"),
    ("did not", VERMILION, "X"),
    ("INVALID", GREY, "d"),
)


def of_search(found: Capacity) -> str:
    """The search as SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _by_load(left, found)
        _by_trial(right, found)
        return svg("capacity", figure, transparent=True)


def _by_load(axes: Axes, found: Capacity) -> None:
    scale = 1.0 if found.limit_per_second is None else 100.0
    known = [trial.p99_seconds for trial in found.trials if trial.p99_seconds is not None]
    never = NEVER * max(known, default=0.1)
    for label, colour, marker in KINDS:
        trials = [trial for trial in found.trials if _kind(trial) == label]
        if not trials:
            continue
        axes.scatter(
            [trial.load * scale for trial in trials],
            [(never if trial.p99_seconds is None else trial.p99_seconds) * 1e3 for trial in trials],
            s=[90.0 if trial.hold else 32.0 for trial in trials],
            color=colour,
            marker=marker,
            label=label,
            alpha=0.85,
            linewidths=0,
        )
    if found.bracket.low is not None and found.bracket.high is not None:
        axes.axvspan(found.bracket.low * scale, found.bracket.high * scale, color=BLUE, alpha=0.15, lw=0)
    axes.set_yscale("log")
    label_logarithmic(axes.yaxis)
    axes.set_title("The outcome of each trial")
    axes.set_xlabel("offered, requests/s" if scale == 1.0 else "offered, % of the limit (workers / S)")
    axes.set_ylabel("p99, ms" + ("" if len(known) == len(found.trials) else "; at the top: never"))
    axes.legend(loc="upper left", fontsize=8)


def _by_trial(axes: Axes, found: Capacity) -> None:
    numbers = range(1, len(found.trials) + 1)
    axes.plot(numbers, [trial.rate_per_second for trial in found.trials], color=GREY, lw=0.6, zorder=1)
    for label, colour, marker in KINDS:
        points = [
            (number, trial)
            for number, trial in zip(numbers, found.trials, strict=True)
            if _kind(trial) == label
        ]
        axes.scatter(
            [number for number, _ in points],
            [trial.rate_per_second for _, trial in points],
            s=[90.0 if trial.hold else 32.0 for _, trial in points],
            color=colour,
            marker=marker,
            linewidths=0,
            zorder=2,
        )
    limits = _limits(found.trials, found.workers)
    if limits:
        axes.plot(
            [number for number, _ in limits],
            [limit for _, limit in limits],
            color=ORANGE,
            lw=1.4,
            label="limit, workers / S",
        )
        axes.legend(loc="lower right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_title("What was offered, and the limit meanwhile" if limits else "What was offered")
    axes.set_xlabel("trial")
    axes.set_ylabel("requests/s")


def _limits(trials: Sequence[Trial], workers: int | None) -> list[tuple[int, float]]:
    return [
        (number, workers / trial.demand_seconds)
        for number, trial in enumerate(trials, 1)
        if workers and trial.demand_seconds
    ]


def _kind(trial: Trial) -> str:
    if trial.invalid_because:
        return "INVALID"
    return "passed" if trial.passed else "did not"
