"""Draws a run, or several steps, for a page.

Knows matplotlib. The same record gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from loadtests.load import curves
from loadtests.load.folder import Record
from loadtests.load.results import Step, StepsSummary
from loadtests.load.sample import STOPPED, Sample, requests
from loadtests.load.summary import waits
from loadtests.load.tell import seconds
from loadtests.pages.drawing import BLUE, GREY, INK, ORANGE, STYLE, VERMILION, label_logarithmic, svg

ABOVE: Final = 0.965  # where "never" is drawn: this share of the axis' height


def of_run(record: Record) -> dict[str, str]:
    """The figures of one phase as SVG, by name; none if no request came due."""
    due = [sample for sample in requests(record.samples) if sample.reason != STOPPED]
    if not due:
        return {}
    drawings: dict[str, Callable[[Record, list[Sample]], Figure]] = {
        "latency": _over_time,
        "rates": _rates,
        "quantiles": _quantiles,
    }
    with mpl.rc_context({**STYLE, "path.simplify": False}):
        return {name: svg(name, draw(record, due), transparent=True) for name, draw in drawings.items()}


def of_steps(found: StepsSummary) -> dict[str, str]:
    """The figure of several steps as SVG, by its name."""
    with mpl.rc_context(STYLE):
        return {"steps": svg("steps", _steps(found), transparent=True)}


def _over_time(record: Record, due: list[Sample]) -> Figure:
    """Each request's latency at the moment when it came due."""
    started, window = record.facts.started_monotonic, record.summary.window_seconds
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle("Latency over time", weight="bold", size=12)
    axis = figure.subplots()
    dots = curves.dots(due, started, window)
    # One path of lines without length, with round ends as dots: a third of the bytes that markers take.
    places = [at for at, _ in dots for at in (at, at, math.nan)]
    heights = [latency for _, latency in dots for latency in (latency, latency, math.nan)]
    look: dict[str, Any] = {"color": BLUE, "alpha": 0.6, "lw": 2.2, "solid_capstyle": "round"}
    axis.plot(places, heights, **look)
    axis.plot([], [], ".", color=BLUE, label="a request, or several in one place")
    spreads = curves.spreads(due, started, window)
    middles = [spread.middle for spread in spreads]
    for name, colour in (("p99", VERMILION), ("p50", INK)):
        heights = _drawn(getattr(spread, name) for spread in spreads)
        if not all(map(math.isnan, heights)):
            axis.plot(middles, heights, color=colour, lw=1.4, label=name)
    if failed := curves.failures(due, started, window):
        place = axis.get_xaxis_transform()
        axis.plot(failed, [ABOVE] * len(failed), "x", color=VERMILION, ms=5, transform=place, label="failed")
    _finish(axis, record.summary.slo_seconds, 0.12 if failed else 0.05)
    axis.set_xlim(0, window)
    axis.set_xlabel("seconds after the start, when the request was due")
    axis.set_ylabel(f"latency from {'the intended time' if record.phase.clients is None else 'sending'}")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _rates(record: Record, due: list[Sample]) -> Figure:
    """What was offered, achieved and failed per second."""
    found = curves.rates(due, record.facts.started_monotonic, record.summary.window_seconds)
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    figure.suptitle("Requests and answers per second", weight="bold", size=12)
    axis = figure.subplots()
    edges = [found[0].begin, *(each.end for each in found)]
    offered = "offered" if record.phase.clients is None else "sent by the clients"
    series = [(offered, "offered", GREY, ":"), ("answered as expected", "achieved", BLUE, "-")]
    if any(each.failed for each in found):
        series.append(("failed", "failed", VERMILION, "--"))
    drawn = {label: ([getattr(each, name) for each in found], *look) for label, name, *look in series}
    if record.phase.retries_at_most:
        summary, started = record.summary, record.facts.started_monotonic
        sent = curves.attempts(record.samples, started, summary.window_seconds)
        drawn["attempts"] = (sent, ORANGE, "-.")
    for label, (heights, colour, style) in drawn.items():
        axis.stairs(heights, edges, baseline=None, color=colour, ls=style, lw=1.6, label=label)
    axis.set_xlim(0, edges[-1])
    axis.set_ylim(0, 1.12 * max(max(heights) for heights, *_ in drawn.values()))
    axis.set_xlabel("seconds after the start")
    axis.set_ylabel("per second")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _quantiles(record: Record, due: list[Sample]) -> Figure:
    """Latency by quantile; each factor of ten in rarity has the same width."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle("Latency by quantile", weight="bold", size=12)
    axis = figure.subplots()
    sent = [sample for sample in due if sample.started is not None]
    views = [("from sending", sorted(waits(sent, from_start=True)), ORANGE, "--")]
    if record.phase.clients is None:
        views.append(("from the intended time", sorted(waits(due)), BLUE, "-"))
    for label, ordered, colour, style in views:
        points = list(curves.by_rarity(ordered))
        axis.plot([x for x, _ in points], [y for _, y in points], color=colour, ls=style, lw=1.6, label=label)
    right = max(len(due), 10) * 1.15
    trusted = curves.rarity_with_interval(len(due))
    axis.axvspan(min(trusted, right), right, color=GREY, alpha=0.12, lw=0, label="too few samples for these")
    if share := record.summary.infinitely_late / len(due):
        never = f"beyond: {share:.2%} never answered as expected"
        axis.axvline(1 / share, color=VERMILION, lw=1.2, ls="-.", label=never)
    _finish(axis, record.summary.slo_seconds, 0.05)
    axis.set_xscale("log")
    axis.set_xlim(1, right)
    ticks = [1.0, 2.0, *(10.0**power for power in range(1, 8))]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda rarity, _: f"{100 * (1 - 1 / rarity):.7g} %"))
    axis.set_xlabel("share of the requests that waited no longer")
    axis.set_ylabel("latency")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _steps(found: StepsSummary) -> Figure:
    """Answers and latency against the offered rate, a mark for each step; hollow for INVALID ones."""
    steps = sorted(found.steps, key=_offered)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    figure.suptitle("What came of each offered rate", weight="bold", size=12)
    left, right = figure.subplots(1, 2)
    most = 1.08 * max(map(_offered, steps))
    left.plot([0, most], [0, most], color=GREY, ls=":", lw=1.2, label="as much as offered")
    achieved = [step.summary.achieved_per_second for step in steps]
    _marks(left, steps, achieved, BLUE, "o", "answered as expected")
    slo = steps[0].summary.slo_seconds
    if slo is not None:
        good = [step.summary.goodput_per_second for step in steps]
        _marks(left, steps, good, ORANGE, "s", f"within {seconds(slo)}")
    left.set_ylim(0, 1.08 * max(most / 1.08, *achieved))
    left.set_ylabel("answers per second")
    for name, colour, marker in (("p50", BLUE, "o"), ("p99", VERMILION, "^")):
        heights = _drawn(getattr(step.summary.latency_seconds, name) for step in steps)
        _marks(right, steps, heights, colour, marker, name)
    if never := [_offered(step) for step in steps if step.summary.latency_seconds.p99 is None]:
        place = right.get_xaxis_transform()
        label = "p99 is never: they failed"
        right.plot(never, [ABOVE] * len(never), "x", color=VERMILION, transform=place, label=label)
    _finish(right, slo, 0.12 if never else 0.05)
    right.set_ylabel("latency from the intended time")
    for axis in (left, right):
        axis.set_xlim(0, most)
        axis.set_xlabel("offered requests per second")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    return figure


def _marks(axis: Axes, steps: list[Step], heights: list[float], colour: str, marker: str, label: str) -> None:
    places = [_offered(step) for step in steps]
    axis.plot(places, heights, color=colour, marker=marker, ms=5, lw=1.4, label=label)
    invalid = [n for n, step in enumerate(steps) if step.summary.state == "invalid"]
    axis.plot(
        [places[n] for n in invalid],
        [heights[n] for n in invalid],
        marker,
        mfc="#fefefe",  # the paper's colour: hollow
        mec=colour,
        ms=7,
        mew=1.4,
    )


def _drawn(values: Iterable[float | None]) -> list[float]:
    """Values for matplotlib, with a gap for never."""
    return [math.nan if value is None else value for value in values]


def _offered(step: Step) -> float:
    return step.summary.offered_per_second or step.rate


def _finish(axis: Axes, slo: float | None, room: float) -> None:
    """Set up the axis of latencies, after the curves: its limits decide how many ticks have labels.

    `room`: space above the curves, as a share of their height.
    """
    if slo is not None:
        axis.axhline(slo, color=GREY, lw=1, ls=":")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if low <= 0:  # nothing is drawn: all values are never
        low, high = 1e-3, 1.0
    axis.set_ylim(low, high * (high / low) ** room)
    label_logarithmic(axis.yaxis, _told)
    if slo is not None:
        place = axis.get_yaxis_transform()
        axis.text(1.005, slo, f"SLO\n{seconds(slo)}", transform=place, va="center", color=GREY, size=8)


def _told(value: float) -> str:
    """A duration of a tick: `100 us`, `1 ms`, `10 s`."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor * 0.999:
            return f"{value / factor:g} {unit}"
    return f"{value * 1e6:g} us"
