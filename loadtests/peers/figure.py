"""Draws a comparison: the ratios of offloop to each design, with intervals, against 1.

Knows matplotlib, and is therefore imported only to draw. The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtests.experiment.statistics import Estimate
from loadtests.pages.drawing import BLUE, GREY, ORANGE, STYLE
from loadtests.peers.plan import OURS, TITLES
from loadtests.peers.report import by_load, ratios
from loadtests.peers.results import Results
from loadtests.peers.rows import Row

COLUMNS: Final = 2
WORDS: Final = 12.0  # length of the axis beyond the largest ratio, as a factor, for the text
APART: Final = 0.18  # distance of the two measures of a design from the middle of its line


def draw(results: Results, file: Path) -> None:
    """Write the figure as SVG: a panel for each load, a line for each design except offloop."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "peers"}):
        _figure(results).savefig(file, format="svg", metadata={"Date": None})


def _figure(results: Results) -> Figure:
    groups = by_load([row for row in results.rows if row.design != OURS])
    lines = max(1, -(-len(groups) // COLUMNS))
    most = max(map(len, groups), default=1)
    figure = Figure(figsize=(12, 1.2 + lines * (0.9 + 0.5 * most)), layout="constrained")
    title = "offloop beside each design: how many times as good under overload"
    figure.suptitle(title, weight="bold", x=0.01, horizontalalignment="left")
    axes = figure.subplots(lines, COLUMNS, sharex=True, squeeze=False).flatten()
    for axis, rows in zip(axes, groups, strict=False):
        _panel(axis, rows)
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    left, right = axes[0].get_xlim()
    axes[0].set_xlim(left, right * WORDS)
    marks = [axes[0].plot([], [], "o", color=colour)[0] for colour in (BLUE, ORANGE)]
    figure.legend(marks, ["goodput", "answers per CPU second"], loc="outside upper right", ncols=2)
    return figure


def _panel(axis: Axes, rows: Sequence[Row]) -> None:
    first = rows[0]
    axis.set_title(f"{first.work_ms:g} ms at {first.times:.3g}x the limit")
    axis.set_xscale("log")
    axis.axvline(1, color=GREY, linewidth=1)
    for place, row in enumerate(rows):
        texts = ratios(row, " to ")
        _mark(axis, place - APART, row.goodput_ratio, BLUE, texts[0])
        _mark(axis, place + APART, row.per_cpu_ratio, ORANGE, texts[1])
    axis.set_yticks(range(len(rows)), [TITLES[row.design] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("offloop / this, log; the bar is the interval at 95 %")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelbottom=True)


def _mark(axis: Axes, place: float, estimate: Estimate | None, colour: str, text: str) -> None:
    if estimate is None:
        return
    if estimate.finite:
        axis.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=3, alpha=0.45)
    axis.plot([estimate.value], [place], "o", color=colour)
    right = estimate.high if estimate.finite else estimate.value
    axis.annotate(text, (right, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
