"""Draws the figures of an experiment from its summary.

Knows matplotlib and how to say a thing without a legend hunt: direct labels, units, colours that
colour-blind readers tell apart (Okabe and Ito, 2008). The same summary gives the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtests.experiment.evidence import Evidence, Summary, UnusableError

# Each colour means one thing in every figure; the page replaces them by its own, light or dark.
COLOURS: Final = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "vermilion": "#d55e00",
    "grey": "#6b6b6b",
    "grid": "#e6e6e6",
    "ink": "#1c1d21",
    "paper": "#fefefe",  # of words that stand on a bar
}
BLUE, ORANGE, GREEN, VERMILION, GREY, GRID, INK, PAPER = COLOURS.values()
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: smaller, selectable, and it takes on the page's colour
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
MOST_COLUMNS: Final = 3
CONTRASTS: Final = ("inline", "process-1", "process-1-protected", "inline-batch")


def draw(summary: Summary, folder: Path) -> None:
    """Write each figure that the summary has data for into `folder`, as PNG and SVG."""
    for name, figure in _figures(summary):
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
        (folder / f"{name}.svg").write_text(_svg(name, figure, transparent=False), encoding="utf-8")


def as_svg(summary: Summary) -> dict[str, str]:
    """The figures as SVG text without a background, by name, for a page to take in."""
    return {name: _svg(name, figure, transparent=True) for name, figure in _figures(summary)}


def _svg(name: str, figure: Figure, *, transparent: bool) -> str:
    buffer = io.StringIO()
    # The salt makes ids repeatable and, by its name, different from another figure's on the same page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None})
    return buffer.getvalue()


def _figures(summary: Summary) -> list[tuple[str, Figure]]:
    drawings: tuple[tuple[str, Callable[[Summary], Figure | None]], ...] = (
        ("queues", queues),
        ("ramp", ramp),
        ("capacity", capacity),
        ("cpu", cpu),
    )
    with mpl.rc_context(STYLE):
        drawn = [(name, function(summary)) for name, function in drawings]
        return [(name, figure) for name, figure in drawn if figure is not None]


def queues(summary: Summary) -> Figure | None:
    """Overload phases side by side: three cumulative curves above, the queues below."""
    phases = [phase for phase in summary["phases"] if phase["kind"] == "overload"]
    preferred = [phase for phase in phases if phase["variant"] in CONTRASTS]
    shown = (preferred if len(phases) > 2 * MOST_COLUMNS - 1 or len(preferred) >= 2 else phases)[
        : 2 * MOST_COLUMNS
    ]
    if not shown:
        return None
    titles = _titles(summary)
    columns = len(shown)
    figure = Figure(figsize=(max(3.6 * columns, 6), 5.6), layout="constrained")
    figure.suptitle(
        f"At {shown[0]['load']:g}x the limit the queue does not vanish, it moves", weight="bold", size=12
    )
    axes = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
    for column, phase in enumerate(shown):
        counts, waiting, line = axes[0][column], axes[1][column], phase["timeline"]
        _lines(counts, line, (("offered", GREY, ":"), ("accepted", BLUE, "-"), ("completed", ORANGE, "-")))
        _lines(waiting, line, (("kernel_queue", VERMILION, "-"), ("offload_queue", GREEN, "-")))
        held = [more - less for more, less in zip(line["accepted"], line["completed"], strict=True)]
        waiting.plot(line["seconds"], held, color=BLUE, lw=1.2, ls=":")
        counts.fill_between(
            line["seconds"], line["completed"], line["accepted"], color=BLUE, alpha=0.12, lw=0
        )
        counts.set_title(f"{titles[phase['variant']]}\naccepted leads by up to {phase['lead_max']}")
        waiting.set_xlabel("seconds since the phase began")
        counts.set_ylim(bottom=0)
        counts.set_xlim(0, 2 * phase["window_seconds"])
    highest = max(max(phase["lead_max"], phase["kernel_queue_max"]) for phase in shown)
    axes[1][0].set_ylim(0, max(highest, 1) * 1.35)  # room for the legend
    axes[0][0].set_ylabel("connections, cumulative")
    axes[1][0].set_ylabel("connections waiting")
    axes[0][0].legend(loc="upper left")
    labels = ["in the kernel's accept queue", "in the service's offload queue", "accepted and not completed"]
    axes[1][0].legend(labels=labels, loc="upper left")
    return figure


def ramp(summary: Summary) -> Figure | None:
    """The post's own picture: rates over the rising phases, inline above, offloaded below."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for phase in summary["phases"]:
        if phase["kind"] == "ramp":
            by_variant.setdefault(phase["variant"], []).append(phase)
    if not by_variant:
        return None
    titles = _titles(summary)
    figure = Figure(figsize=(11, 2.9 * len(by_variant) + 0.4), layout="constrained")
    figure.suptitle("Rising rates: what is offered, accepted and completed", weight="bold", size=12)
    axes = figure.subplots(len(by_variant), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (name, phases) in zip(axes, by_variant.items(), strict=True):
        begin = 0.0
        for number, phase in enumerate(phases):
            line, length = phase["timeline"], phase["window_seconds"]
            inside = [k for k, second in enumerate(line["seconds"]) if 0 <= second <= length]
            for series, colour in (("offered", GREY), ("accepted", BLUE), ("completed", ORANGE)):
                points = _rates(line, series, inside)
                style = {"ls": ":" if series == "offered" else "-", "label": None if number else series}
                times = [begin + at for at, _ in points]
                axis.plot(times, [rate for _, rate in points], color=colour, lw=1.2, **style)
            begin += length
        axis.set_title(titles[name])
        axis.set_ylabel("per second")
        axis.set_ylim(bottom=0)
        axis.margins(x=0)
    axes[0].legend(loc="upper left", ncols=3)
    axes[-1].set_xlabel("seconds of load, the pauses between phases left out")
    return figure


def capacity(summary: Summary) -> Figure | None:
    """Latency against offered rate, one panel per variant, with capacity and limit marked."""
    evidence, titles = Evidence(summary), _titles(summary)
    slo = summary["plan"]["factors"]["slo_seconds"]
    panels = {
        name: [p for p in summary["phases"] if p["variant"] == name and p["latency_seconds"]["p50"]]
        for name in titles
    }
    panels = {name: phases for name, phases in panels.items() if any(p["kind"] != "overload" for p in phases)}
    if not panels:
        return None
    columns = min(2 if len(panels) <= 4 else MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(11, 3.0 * rows + 0.4), layout="constrained")
    figure.suptitle("Latency against offered rate: where capacity ends", weight="bold", size=12)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for spare in axes.flat[len(panels) :]:
        spare.set_visible(False)
    for axis, (name, phases) in zip(axes.flat, panels.items(), strict=False):
        _latency_panel(axis, phases, slo)
        axis.set_title(titles[name])
        try:
            limits = evidence.limits(name)
            number, reached = max(evidence.capacities(name).items(), key=lambda found: found[1])
            if number in limits:
                _mark_capacity(axis, reached, limits[number])
        except UnusableError:
            continue
    first = axes.flat[0]
    first.legend(loc="upper left")
    first.text(
        0.01,
        slo * 1e3,
        f"SLO {slo * 1e3:.0f} ms",
        transform=first.get_yaxis_transform(),
        va="bottom",
        color=GREY,
    )
    for row in axes:
        row[0].set_ylabel("latency from the intended time, ms")
    return figure


def cpu(summary: Summary) -> Figure | None:
    """Where the CPU went in the phase that answered most in time: work, IO, generator, the rest."""
    titles = _titles(summary)
    best: dict[str, Mapping[str, Any]] = {}
    for phase in summary["phases"]:
        name = phase["variant"]
        if name not in best or phase["goodput_per_second"] > best[name]["goodput_per_second"]:
            best[name] = phase
    if not best:
        return None
    cores = summary["plan"]["cores"]
    figure = Figure(figsize=(11, 0.45 * len(best) + 1.5), layout="constrained")
    figure.suptitle("Where the CPU went, in the phase with the most answers in time", weight="bold", size=12)
    axis = figure.subplots()
    names = list(best)[::-1]
    left = [0.0] * len(names)
    parts = (
        ("work", ORANGE, "the work"),
        ("io", BLUE, "the rest of the IO process"),
        ("generator", GREY, "the load generator"),
    )
    for part, colour, label in parts:
        values = [best[name]["cpu"][part] for name in names]
        axis.barh([titles[name] for name in names], values, left=left, color=colour, height=0.62, label=label)
        for row, (value, start) in enumerate(zip(values, left, strict=True)):
            if value >= 0.08:
                axis.text(
                    start + value / 2, row, f"{value:.2f}", ha="center", va="center", color=PAPER, size=8
                )
        left = [start + value for start, value in zip(left, values, strict=True)]
    axis.axvline(cores, color=INK, lw=1)
    axis.text(cores, len(names) - 0.45, f"{cores} cores ", ha="right", va="bottom")
    axis.set_xlim(0, max(cores, *left) * 1.01)
    axis.set_xlabel("cores in use")
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _titles(summary: Summary) -> dict[str, str]:
    return {visit["variant"]["name"]: visit["variant"]["title"] for visit in summary["plan"]["visits"]}


def _lines(axis: Axes, line: Mapping[str, list[float]], series: tuple[tuple[str, str, str], ...]) -> None:
    for name, colour, style in series:
        axis.plot(line["seconds"], line[name], color=colour, ls=style, lw=1.6, label=name)


def _rates(line: Mapping[str, list[float]], series: str, inside: list[int]) -> list[tuple[float, float]]:
    """Change per second of a cumulative series, over about a second each."""
    points, last = [], inside[:1]
    for k in inside:
        elapsed = line["seconds"][k] - line["seconds"][last[0]]
        if elapsed >= 1.0:
            points.append(
                (line["seconds"][k] - elapsed / 2, (line[series][k] - line[series][last[0]]) / elapsed)
            )
            last = [k]
    return points


def _latency_panel(axis: Axes, phases: list[Mapping[str, Any]], slo: float) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    for quantile, colour, marker in (("p50", BLUE, "o"), ("p99", VERMILION, "^")):
        found = [(p["rate"], p["latency_seconds"][quantile]) for p in phases]
        rates = [rate for rate, value in found if value is not None]  # null: never, which is off the scale
        values = [value * 1e3 for _, value in found if value is not None]
        axis.scatter(rates, values, color=colour, marker=marker, s=16, label=quantile, zorder=3)
        middle = _medians(rates, values)
        axis.plot(list(middle), list(middle.values()), color=colour, lw=1.2)
    axis.axhline(slo * 1e3, color=GREY, lw=0.8, ls=":")
    axis.set_xlim(left=0)
    axis.set_xlabel("offered requests per second")


def _mark_capacity(axis: Axes, reached: float, limit: float) -> None:
    place = axis.get_xaxis_transform()
    axis.set_xlim(right=max(axis.get_xlim()[1], limit * 1.15))
    axis.axvline(reached, color=GREEN, lw=1.4)
    axis.axvline(limit, color=GREY, lw=1.2, ls="--")
    axis.text(
        reached,
        0.5,
        f"capacity {reached:.0f}/s \n= {reached / limit:.0%} of limit ",
        transform=place,
        ha="right",
        color=GREEN,
    )
    axis.text(limit, 0.08, f" limit {limit:.0f}/s", transform=place, color=GREY)


def _medians(rates: list[float], values: list[float]) -> dict[float, float]:
    """One point per rate, through the middle of its rounds."""
    by_rate: dict[float, list[float]] = {}
    for rate, value in sorted(zip(rates, values, strict=True)):
        by_rate.setdefault(rate, []).append(value)
    return {rate: found[len(found) // 2] for rate, found in by_rate.items()}
