"""Tells what the race found: two tables for a terminal of 80 columns, and a figure.

A pure function of the figures that `race` returns. Like loadtests/figures.py it labels values directly, and
the same figures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.experiment.figures import BLUE, GREY, ORANGE, STYLE

Row = dict[str, Any]
LOADS: Final = ("3x", "10x")
TITLES: Final = {
    "offloop": "offloop",
    "inline": "aiohttp, inline",
    "pool": "aiohttp + ProcessPoolExecutor",
    "bounded": "the same, 64 in flight",
    "fastapi": "FastAPI on uvicorn",
    "gunicorn": "gunicorn, sync workers",
}
SHORTEST_SHOWN: Final = 1e-3  # seconds, where the axes of times begin


def tables(found: dict[str, Any]) -> list[Table]:
    """What a request costs while all is well, and what is left of the service under overload."""
    easy = _table("At a comfortable rate", "work", "design", "IO us/request", "p50", "p99", "p99 after")
    easy.caption = "p99 after: from 1 s after an overload"
    pressed = _table("Under overload", "work", "load", "design", "goodput", "of left", "p99", "trivial")
    pressed.caption = "of left: goodput x S of the cores that clients and IO process leave over"
    for row in found["rows"]:
        calm, work = row["comfortable"], f"{row['work_ms']:g} ms"
        io_us = row["io_us_per_request"]
        easy.add_row(
            work,
            TITLES[row["design"]],
            "-" if io_us is None else f"{io_us:.0f}",
            *(milliseconds(seconds) for seconds in (calm["p50"], calm["p99"], row["p99_after_1_s"])),
        )
        for load in LOADS:
            if load in row:
                told = row[load]
                cells = [milliseconds(told["answers_p99"]), milliseconds(told["trivial_p99"])]
                times = f"{told['rate'] / row['limit']:.3g}x"
                goodput = f"{told['goodput']:.0f}/s"
                pressed.add_row(work, times, TITLES[row["design"]], goodput, f"{told['share']:.0%}", *cells)
    return [easy, pressed]


def draw(found: dict[str, Any], file: Path) -> None:
    """Write the figure as SVG: a line of panels for each work, a bar for each design."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "peers"}):
        _figure(found["rows"]).savefig(file, format="svg", metadata={"Date": None})


def milliseconds(seconds: float | None) -> str:
    """A time for people."""
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"


def _table(title: str, *headings: str) -> Table:
    made = Table(title=title, title_justify="left", caption_justify="left", box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, justify="left" if heading == "design" else "right")
    return made


def _figure(rows: Sequence[Row]) -> Figure:
    works = list(dict.fromkeys(row["work_ms"] for row in rows))
    designs = list(dict.fromkeys(row["design"] for row in rows))
    figure = Figure(figsize=(12, 0.8 + 0.42 * len(designs) * len(works)), layout="constrained")
    figure.suptitle("What a design costs while all is well, and what overload leaves of it", weight="bold")
    axes = figure.subplots(len(works), 4, sharey=True, sharex="col", squeeze=False)
    for line, work in zip(axes, works, strict=True):
        here = {row["design"]: row for row in rows if row["work_ms"] == work}
        for place, design in enumerate(designs):
            row = here[design]
            _bar(line[0], place, 0.7, GREY, row["io_us_per_request"], "{:.0f} us")
            _bar(line[1], place, 0.7, GREY, row["comfortable"]["p99"] * 1e3, "{:.0f} ms")
            for number, (load, colour) in enumerate(zip(LOADS, (BLUE, ORANGE), strict=True)):
                if load in row:
                    _bar(
                        line[2],
                        place - 0.2 + 0.4 * number,
                        0.38,
                        colour,
                        row[load]["share"] * 100,
                        "{:.0f} %",
                    )
            _bar(line[3], place, 0.7, GREY, row["p99_after_1_s"] * 1e3, "{:.0f} ms")
        line[0].set_yticks(range(len(designs)), [TITLES[design] for design in designs])
        times = here[designs[0]][LOADS[0]]["rate"] / here[designs[0]]["limit"]
        limited = "" if f"{times:.0f}x" == LOADS[0] else f"\n(blue is {times:.2g}x: the generator's limit)"
        line[0].set_ylabel(f"work of {work:g} ms{limited}")
    axes[0][0].invert_yaxis()
    titles = (
        "IO process per request",
        "p99 at a comfortable rate",
        "goodput, of what is left",
        "p99 1 s after an overload",
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in (*axes[:, 1], *axes[:, 3]):
        axis.set_xscale("log")
        axis.set_xlim(SHORTEST_SHOWN * 1e3, 1e4)
    axes[0][0].set_xlim(right=1.25 * axes[0][0].get_xlim()[1])  # room for the words
    axes[0][2].set_xlim(0, 125)
    axes[0][2].bar(0, 0, color=BLUE, label="3x the limit")
    axes[0][2].bar(0, 0, color=ORANGE, label="10x")
    axes[0][2].legend(loc="lower right")
    for axis, unit in zip(axes[-1], ("microseconds of CPU", "ms, log", "%", "ms, log"), strict=True):
        axis.set_xlabel(unit)
    return figure


def _bar(axis: Any, place: float, height: float, colour: str, value: float | None, text: str) -> None:
    if value is None:
        axis.annotate(" the work runs in it", (axis.get_xlim()[0], place), va="center", color=GREY)
        return
    axis.barh(place, value, height, color=colour)
    axis.annotate(f" {text.format(value)}", (value, place), va="center", fontsize=8)
