"""Draws the figures of an experiment from its summary.

Knows matplotlib. Curves are labelled directly if possible, axes have units. The same summary gives the same
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loadtests.experiment.blocks import Block
from loadtests.experiment.recovery_figure import recovery
from loadtests.experiment.results import PhaseResult, Summary, Timeline
from loadtests.pages.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAPER,
    STYLE,
    VERMILION,
    label_logarithmic,
    svg,
)

DPI: Final = 160
MOST_COLUMNS: Final = 3
PALETTE: Final = (BLUE, VERMILION, GREEN, ORANGE, GREY, INK)


def draw(summary: Summary, folder: Path) -> None:
    """Write each figure for which the summary has data into `folder`, as PNG and SVG."""
    for name, figure in _figures(summary):
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
        (folder / f"{name}.svg").write_text(svg(name, figure, transparent=False), encoding="utf-8")


def as_svg(summary: Summary) -> dict[str, str]:
    """The figures as SVG text without a background, by name, for a page."""
    return {name: svg(name, figure, transparent=True) for name, figure in _figures(summary)}


def _figures(summary: Summary) -> list[tuple[str, Figure]]:
    drawings: tuple[tuple[str, Callable[[Summary], Figure | None]], ...] = (
        ("cycles", cycles),
        ("recovery", recovery),
        ("queues", queues),
        ("ramp", ramp),
        ("latency", latency),
        ("cpu", cpu),
    )
    with mpl.rc_context(STYLE):
        drawn = [(name, function(summary)) for name, function in drawings]
        return [(name, figure) for name, figure in drawn if figure is not None]


def cycles(summary: Summary) -> Figure | None:
    """Every block: raw throughput beside U, each as a share of its variant's median, cycle by cycle."""
    names = [name for name in summary.plan.measured if _valid(summary, name)]
    if not names or max(len(_valid(summary, name)) for name in names) < 2:
        return None
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(
        "Throughput follows the speed of the machine; U = throughput x S takes it out",
        weight="bold",
        size=12,
    )
    left, right = figure.subplots(1, 2, sharey=True)
    views: tuple[tuple[Axes, str, Callable[[Block], float]], ...] = (
        (left, "throughput X, units of work per second", lambda block: block.throughput_per_second),
        (right, "U, CPU seconds of work per second", lambda block: block.utilisation),
    )
    for axis, title, value in views:
        spreads = []
        for name, colour in zip(names, PALETTE, strict=False):
            blocks = _valid(summary, name)
            middle = median(value(block) for block in blocks)
            shares = [100 * value(block) / middle for block in blocks]
            spreads.append(_deviation(shares))
            axis.plot(
                [block.cycle for block in blocks],
                shares,
                color=colour,
                marker="o",
                ms=3.5,
                lw=1.2,
                label=name,
            )
            void = [
                block
                for block in summary.blocks
                if block.variant == name and block.part == "cycle" and block.void_because and block.tasks
            ]
            heights = [100 * value(block) / middle for block in void]
            axis.scatter([b.cycle for b in void], heights, facecolors="none", edgecolors=colour, s=22)
        axis.axhline(100, color=GREY, lw=0.8, ls=":")
        axis.set_title(f"{title}\nscatter {min(spreads):.1f} to {max(spreads):.1f} %")
        axis.set_xlabel("cycle")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("% of the variant's median")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _valid(summary: Summary, name: str) -> list[Block]:
    return [
        block
        for block in summary.blocks
        if block.variant == name and block.part == "cycle" and not block.void_because
    ]


def _deviation(values: Sequence[float]) -> float:
    middle = sum(values) / len(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / max(len(values) - 1, 1))


def queues(summary: Summary) -> Figure | None:
    """One overload phase of each variant side by side: three cumulative curves above, the queues below."""
    first: dict[str, tuple[PhaseResult, Timeline]] = {}
    for phase in summary.phases:
        if phase.kind == "overload" and phase.timeline is not None and not phase.invalid_because:
            first.setdefault(phase.variant, (phase, phase.timeline))
    shown = list(first.values())[: 2 * MOST_COLUMNS]
    if not shown:
        return None
    titles = _titles(summary)
    figure = Figure(figsize=(max(3.6 * len(shown), 6), 5.6), layout="constrained")
    figure.suptitle(
        f"At {summary.plan.factors.overload:g}x the limit the queue does not vanish, it moves",
        weight="bold",
        size=12,
    )
    axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, (phase, line) in enumerate(shown):
        counts, waiting = axes[0][column], axes[1][column]
        _lines(counts, line, (("offered", GREY, ":"), ("accepted", BLUE, "-"), ("completed", ORANGE, "-")))
        _lines(waiting, line, (("kernel_queue", VERMILION, "-"), ("offload_queue", GREEN, "-")))
        held = [more - less for more, less in zip(line.accepted, line.completed, strict=True)]
        waiting.plot(line.seconds, held, color=BLUE, lw=1.2, ls=":")
        counts.fill_between(line.seconds, line.completed, line.accepted, color=BLUE, alpha=0.12, lw=0)
        counts.set_title(f"{titles[phase.variant]}\nup to {phase.peak} in flight")
        waiting.set_xlabel("seconds since the phase began")
        counts.set_xlim(0, 2 * phase.seconds)
    highest = max(max(phase.peak, phase.kernel_queue_max) for phase, _ in shown)
    axes[0][0].set_ylim(bottom=0)  # after all curves: it switches automatic scaling off
    axes[1][0].set_ylim(0, max(highest, 1) * 1.55)  # room for the legend
    axes[0][0].set_ylabel("connections, cumulative")
    axes[1][0].set_ylabel("connections waiting")
    axes[0][0].legend(loc="upper left")
    labels = ["in the kernel's accept queue", "in the service's offload queue", "accepted and not completed"]
    axes[1][0].legend(labels=labels, loc="upper left")
    return figure


def ramp(summary: Summary) -> Figure | None:
    """The picture of the post: rates over the rising phases, inline above, offloaded below."""
    by_variant: dict[str, list[PhaseResult]] = {}
    for phase in summary.phases:
        if phase.kind == "ramp":
            by_variant.setdefault(phase.variant, []).append(phase)
    if not by_variant:
        return None
    titles = _titles(summary)
    figure = Figure(figsize=(11, 2.9 * len(by_variant) + 0.4), layout="constrained")
    figure.suptitle("Rising rates: what is offered, accepted and completed", weight="bold", size=12)
    axes = figure.subplots(len(by_variant), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, [v.name for v in summary.plan.variants if v.name in by_variant], strict=True):
        begin = 0.0
        for number, phase in enumerate(by_variant[name]):
            line = phase.timeline
            assert line is not None
            inside = [k for k, second in enumerate(line.seconds) if 0 <= second <= phase.seconds]
            for series, colour in (("offered", GREY), ("accepted", BLUE), ("completed", ORANGE)):
                points = _rates(line, series, inside)
                style = {"ls": ":" if series == "offered" else "-", "label": None if number else series}
                times = [begin + at for at, _ in points]
                axis.plot(times, [rate for _, rate in points], color=colour, lw=1.2, **style)
            begin += phase.seconds
        axis.set_title(titles[name])
        axis.set_ylabel("per second")
        axis.set_ylim(bottom=0)
        axis.margins(x=0)
    axes[0].legend(loc="upper left", ncols=3)
    axes[-1].set_xlabel("seconds of load, the pauses between phases left out")
    return figure


def latency(summary: Summary) -> Figure | None:
    """Latency against the offered rate, one panel per variant."""
    panels = {
        name: [p for p in summary.phases if p.variant == name and p.kind == "curve"]
        for name in summary.plan.curve
    }
    panels = {name: phases for name, phases in panels.items() if phases}
    if not panels:
        return None
    titles, slo = _titles(summary), summary.plan.factors.slo_seconds
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(11, 3.0 * rows + 0.4), layout="constrained")
    figure.suptitle("Latency against offered rate", weight="bold", size=12)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for spare in axes.flat[len(panels) :]:
        spare.set_visible(False)
    for axis, (name, phases) in zip(axes.flat, panels.items(), strict=False):
        _latency_panel(axis, phases, slo)
        axis.set_title(titles[name])
    first = axes.flat[0]
    first.legend(loc="upper left")
    place = first.get_yaxis_transform()
    first.text(0.01, slo * 1e3, f"SLO {slo * 1e3:.0f} ms", transform=place, va="bottom", color=GREY)
    for row in axes:
        row[0].set_ylabel("latency from the intended time, ms")
    return figure


def cpu(summary: Summary) -> Figure | None:
    """Where the CPU went while each variant was saturated: work, IO, generator, the rest."""
    names = [name for name in summary.plan.measured if _valid(summary, name)][::-1]
    if not names:
        return None
    titles, cores = _titles(summary), summary.plan.cores
    figure = Figure(figsize=(11, 0.45 * len(names) + 1.5), layout="constrained")
    figure.suptitle("Where the CPU went while the service was saturated", weight="bold", size=12)
    axis = figure.subplots()
    left = [0.0] * len(names)
    parts: tuple[tuple[Callable[[Block], float], str, str], ...] = (
        (lambda block: block.utilisation, ORANGE, "the work (U)"),
        (lambda block: block.io_cpu_seconds / block.seconds, BLUE, "the rest of the IO process"),
        (lambda block: block.generator_cpu_seconds / block.seconds, GREY, "the load generator"),
    )
    for part, colour, label in parts:
        values = [median(part(block) for block in _valid(summary, name)) for name in names]
        axis.barh([titles[name] for name in names], values, left=left, color=colour, height=0.62, label=label)
        for row, (value, start) in enumerate(zip(values, left, strict=True)):
            if value >= 0.08:
                axis.text(
                    start + value / 2, row, f"{value:.2f}", ha="center", va="center", color=PAPER, size=8
                )
        left = [start + value for start, value in zip(left, values, strict=True)]
    axis.axvline(cores, color=INK, lw=1)
    axis.text(cores, len(names) - 0.45, f"{cores:g} cores ", ha="right", va="bottom")
    axis.set_xlim(0, max(cores, *left) * 1.01)
    axis.set_xlabel("cores in use")
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _titles(summary: Summary) -> dict[str, str]:
    return {variant.name: variant.title for variant in summary.plan.variants}


def _lines(axis: Axes, line: Timeline, series: tuple[tuple[str, str, str], ...]) -> None:
    for name, colour, style in series:
        axis.plot(line.seconds, getattr(line, name), color=colour, ls=style, lw=1.6, label=name)


def _rates(line: Timeline, series: str, inside: list[int]) -> list[tuple[float, float]]:
    """Change per second of a cumulative series, over about a second each."""
    counts, points, last = getattr(line, series), [], inside[:1]
    for k in inside:
        elapsed = line.seconds[k] - line.seconds[last[0]]
        if elapsed >= 0.9:
            points.append((line.seconds[k] - elapsed / 2, (counts[k] - counts[last[0]]) / elapsed))
            last = [k]
    return points


def _latency_panel(axis: Axes, phases: list[PhaseResult], slo: float) -> None:
    axis.set_yscale("log")
    for quantile, colour, marker in (("p50", BLUE, "o"), ("p99", VERMILION, "^")):
        points = sorted(
            (phase.offered_per_second, value * 1e3)
            for phase in phases
            if (value := getattr(phase.latency_seconds, quantile)) is not None
        )
        axis.plot(
            [rate for rate, _ in points],
            [ms for _, ms in points],
            color=colour,
            marker=marker,
            ms=4,
            lw=1.2,
            label=quantile,
        )
    axis.axhline(slo * 1e3, color=GREY, lw=0.8, ls=":")
    label_logarithmic(axis.yaxis)
    axis.set_xlim(left=0)
    axis.set_xlabel("offered requests per second")
