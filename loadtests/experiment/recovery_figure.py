"""Draws what came after a trigger: answers and attempts per second of each case, as small multiples.

Knows matplotlib. The same summary gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.experiment.comebacks import outcome
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Summary
from loadtests.pages.drawing import BLUE, GREY, ORANGE, VERMILION

COLUMNS: Final = 4
HEADROOM: Final = 1.1


def recovery(summary: Summary) -> Figure | None:
    """Each case: answers per second above, attempts below, the trigger shaded; the last try that counts."""
    trigger = summary.plan.trigger
    if trigger is None:
        return None
    by_case = {one.case: one for one in summary.recoveries if not one.void_because}
    shown = [(case.title, by_case[case.name]) for case in trigger.cases if case.name in by_case]
    if not shown:
        return None
    lines = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(11, 3.3 * lines + 0.6), layout="constrained")
    load = f"{trigger.base:g}x the limit, {trigger.seconds} s at {trigger.peak:g}x, {trigger.base:g}x again"
    figure.suptitle(
        f"{load}: what comes back, by how clients retry",
        weight="bold",
        size=12,
    )
    heights = (2, 1) * lines
    axes = figure.subplots(2 * lines, COLUMNS, sharex=True, squeeze=False, height_ratios=heights)
    most = [max(max(counts) for counts in kind) for kind in _counts([found for _, found in shown])]
    for place, (title, found) in enumerate(shown):
        line, column = divmod(place, COLUMNS)
        answers, attempts = axes[2 * line][column], axes[2 * line + 1][column]
        colour = VERMILION if found.back_seconds is None else BLUE
        _panel(answers, found.answered, found, colour, HEADROOM * most[0])
        _panel(attempts, found.attempts, found, ORANGE, HEADROOM * most[1])
        answers.axhline(found.base_per_second, color=GREY, lw=1, ls=":")
        answers.set_title(f"{title}\n{outcome(found)}", size=9)
        attempts.set_xlabel("seconds")
        attempts.tick_params(labelbottom=True)
        if column == 0:
            answers.set_ylabel("answers per second")
            attempts.set_ylabel("attempts")
    for place in range(len(shown), lines * COLUMNS):
        line, column = divmod(place, COLUMNS)
        axes[2 * line][column].set_visible(False)
        axes[2 * line + 1][column].set_visible(False)
    return figure


def _counts(found: Sequence[Recovery]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [one.answered for one in found], [one.attempts for one in found]


def _panel(axis: Axes, counts: Sequence[int], found: Recovery, colour: str, most: float) -> None:
    """One kind of count, second by second, with the trigger as its origin."""
    begin = -found.before_seconds
    axis.stairs(
        counts, [begin + second for second in range(len(counts) + 1)], color=colour, lw=1.4, baseline=None
    )
    axis.axvspan(0, found.seconds, color=GREY, alpha=0.18, lw=0)
    axis.set_xlim(begin, begin + len(counts))
    axis.set_ylim(-0.04 * most, max(most, 1))  # so that nothing at all can be told from the axis
