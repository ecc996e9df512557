"""Draws the two figures of an experiment from its summary, as PNG and SVG.

Knows matplotlib and how to say a thing without a legend hunt: direct labels, units, colours that
colour-blind readers tell apart (Okabe and Ito, 2008). The same summary gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtests.verdict import Evidence, UnusableError

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b6b6b"
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "offloop",
}
QUEUE_COLUMNS: Final = ("inline", "process-1", "inline-batch")

Summary = Mapping[str, Any]


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Write `queues` and `capacity` into `folder`; return the files."""
    written = []
    with mpl.rc_context(STYLE):
        for name, figure in (("queues", queues(summary)), ("capacity", capacity(summary))):
            for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
                path = folder / f"{name}{suffix}"
                figure.savefig(path, dpi=160, metadata=metadata)
                written.append(path)
    return written


def queues(summary: Summary) -> Figure:
    """The overload phases side by side: three cumulative curves above, the two queues below."""
    phases = {phase["variant"]: phase for phase in summary["phases"] if "timeline" in phase}
    shown = [name for name in QUEUE_COLUMNS if name in phases]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    if not shown:
        figure.suptitle("No overload phase was measured")
        return figure
    load = phases[shown[0]]["load"]
    duration = phases[shown[0]]["window_seconds"]
    figure.suptitle(
        f"At {load:g}x the limit the queue does not vanish, it moves", fontweight="bold", fontsize=12
    )
    titles = {visit["variant"]["name"]: visit["variant"]["title"] for visit in summary["plan"]["visits"]}
    axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(shown):
        counts, waiting = axes[0][column], axes[1][column]
        line = phases[name]["timeline"]
        _lines(counts, line, (("offered", GREY, ":"), ("accepted", BLUE, "-"), ("completed", ORANGE, "-")))
        _lines(waiting, line, (("kernel_queue", VERMILION, "-"), ("offload_queue", GREEN, "-")))
        held = [more - less for more, less in zip(line["accepted"], line["completed"], strict=True)]
        waiting.plot(line["seconds"], held, color=BLUE, lw=1.2, ls=":")
        counts.fill_between(
            line["seconds"], line["completed"], line["accepted"], color=BLUE, alpha=0.12, lw=0
        )
        counts.set_title(f"{titles[name]}\naccepted leads by up to {phases[name]['lead_max']}")
        waiting.set_xlabel("seconds since the phase began")
        for axis in (counts, waiting):
            axis.set_ylim(bottom=0)
            axis.set_xlim(0, 2 * duration)
    axes[0][0].set_ylabel("connections, cumulative")
    axes[1][0].set_ylabel("connections waiting")
    axes[0][0].legend(loc="upper left")
    labels = ["in the kernel's accept queue", "in the service's offload queue", "accepted and not completed"]
    axes[1][0].legend(labels=labels, loc="upper left")
    highest = max(max(phases[name]["lead_max"], phases[name]["kernel_queue_max"]) for name in shown)
    axes[1][0].set_ylim(top=max(highest, 1) * 1.3)  # room for the legend
    return figure


def capacity(summary: Summary) -> Figure:
    """Latency against offered rate, one panel per variant, with capacity and limit marked."""
    evidence = Evidence(summary)
    variants = [v["variant"] for v in summary["plan"]["visits"] if v["variant"]["name"] != "inline-batch"]
    named = {variant["name"]: variant for variant in variants}
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    slo = summary["plan"]["slo_seconds"]
    figure.suptitle("Latency against offered rate: where capacity ends", fontweight="bold", fontsize=12)
    axes = figure.subplots(2, 2, sharey=True).flatten()
    for axis, (name, variant) in zip(axes, named.items(), strict=False):
        phases = [p for p in summary["phases"] if p["variant"] == name and p["latency_seconds"]["p50"]]
        axis.set_title(variant["title"])
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        for quantile, colour, marker in (("p50", BLUE, "o"), ("p99", VERMILION, "^")):
            rates = [p["rate"] for p in phases]
            values = [p["latency_seconds"][quantile] * 1e3 for p in phases]
            axis.scatter(rates, values, color=colour, marker=marker, s=16, label=quantile, zorder=3)
            middle = _medians(rates, values)
            axis.plot(list(middle), list(middle.values()), color=colour, lw=1.2)
        axis.axhline(slo * 1e3, color=GREY, lw=0.8, ls=":")
        axis.set_xlim(left=0)
        axis.set_xlabel("offered requests per second")
        try:
            reached, share = max(evidence.capacities(name).values()), evidence.share_of_limit(name)
        except UnusableError:
            continue
        limit = reached / share.high
        axis.axvline(reached, color=GREEN, lw=1.4)
        axis.axvline(limit, color=GREY, lw=1.2, ls="--")
        axis.text(reached, 0.5, f"capacity {reached:.0f}/s \n= {share.high:.0%} of limit ",
                  transform=axis.get_xaxis_transform(), ha="right", color=GREEN)  # fmt: skip
        axis.text(limit, 0.08, f" limit {limit:.0f}/s", transform=axis.get_xaxis_transform(), color=GREY)
    axes[0].legend(loc="upper left")
    axes[0].set_ylabel("latency from the intended time, ms")
    axes[2].set_ylabel("latency from the intended time, ms")
    axes[0].text(0.01, slo * 1e3, f"SLO {slo * 1e3:.0f} ms", transform=axes[0].get_yaxis_transform(),
                 va="bottom", color=GREY)  # fmt: skip
    return figure


def _lines(axis: Axes, line: Mapping[str, list[float]], series: tuple[tuple[str, str, str], ...]) -> None:
    for name, colour, style in series:
        axis.plot(line["seconds"], line[name], color=colour, ls=style, lw=1.6, label=name)


def _medians(rates: list[float], values: list[float]) -> dict[float, float]:
    """One point per rate, through the middle of its rounds."""
    by_rate: dict[float, list[float]] = {}
    for rate, value in sorted(zip(rates, values, strict=True)):
        by_rate.setdefault(rate, []).append(value)
    return {rate: found[len(found) // 2] for rate, found in by_rate.items()}
