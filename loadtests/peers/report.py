"""The result of a comparison: tables for a terminal of 80 columns, and one in Markdown. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from loadtests.experiment.statistics import Estimate
from loadtests.peers.plan import FEWEST_PAIRS, OURS, TITLES
from loadtests.peers.results import Results
from loadtests.peers.rows import Row

HEADINGS: Final = (
    "design", "goodput\nper s", "offloop / this:\ngoodput", "answers\nper CPU s", "p99\nms", "trivial\np99 ms"
)  # fmt: skip
MARKDOWN: Final = (
    "| work | load | design | goodput | offloop / this: goodput | answers per CPU second | p99 "
    "| trivial route p99 | pairs |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def tables(results: Results) -> list[Table]:
    """One table for each load; the notes are below the last."""
    found = [_table(rows) for rows in by_load(results.rows)]
    found[-1].caption = " ".join(notes(results))
    return found


def by_load(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each load together."""
    return [list(group) for _, group in itertools.groupby(rows, lambda row: (row.work_ms, row.times))]


def notes(results: Results) -> Iterator[str]:
    """What a reader must know of these figures, one sentence each."""
    plan, rows = results.plan, results.rows
    if plan.cycles < FEWEST_PAIRS:
        yield (
            f"{plan.cycles} {'pair' if plan.cycles == 1 else 'pairs'} of blocks: too few for an interval, "
            f"which takes {FEWEST_PAIRS}."
        )
    else:
        yield f"In brackets: exact intervals at 95 % from up to {plan.cycles} pairs of blocks."
    if any(row.at_least or row.kept_working for row in rows):
        yield (
            ">: the true ratio is larger, because a block had no answer in time, or because the design was "
            "restarted before its work for disconnected clients was done."
        )
    if void := sum(row.void for row in rows):
        yield f"{void} of {sum(row.blocks for row in rows)} blocks were void and do not count."
    for design, reason in results.skipped.items():
        yield f"Skipped: {TITLES[design]!r}: {reason}."
    if results.invalid:
        yield "INVALID: too many blocks were void; the machine was too busy or the generator too slow."


def markdown(results: Results) -> str:
    """All rows as one table."""
    lines = list(MARKDOWN)
    for row in results.rows:
        cells = [
            f"{row.work_ms:g} ms",
            f"{row.times:.3g}x",
            TITLES[row.design],
            "-" if row.goodput_per_second is None else f"{row.goodput_per_second:.3g}/s",
            *ratios(row, " to "),
            *(f"{ms} ms" if ms != "-" else ms for ms in _times(row)),
            str(row.pairs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(row: Row, dash: str) -> tuple[str, str]:
    """Both ratios as text, such as `1.22 (1.08 to 1.38)`, or `> 35` if only a bound is known."""
    if row.design == OURS:
        return "1", "1"
    return (
        _ratio(row.goodput_ratio, dash, at_least=row.at_least),
        _ratio(row.per_cpu_ratio, dash, at_least=row.at_least or row.kept_working > 0),
    )


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    title = f"{first.work_ms:g} ms at {first.times:.3g}x the limit, {first.rate_per_second:.0f} requests/s"
    made = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading == "design" else "right", no_wrap=True)
    for row in rows:
        goodput = "-" if row.goodput_per_second is None else f"{row.goodput_per_second:.0f}"
        made.add_row(TITLES[row.design], goodput, *ratios(row, "-"), *_times(row))
    return made


def _times(row: Row) -> list[str]:
    times = (row.answers_p99_seconds, row.trivial_p99_seconds)
    return ["-" if seconds is None else f"{seconds * 1e3:.0f}" for seconds in times]


def _ratio(estimate: Estimate | None, dash: str, *, at_least: bool) -> str:
    if estimate is None:
        return "-"
    text = ("> " if at_least else "") + _three_digits(estimate.value)
    if not estimate.finite:
        return text
    return f"{text} ({_three_digits(estimate.low)}{dash}{_three_digits(estimate.high)})"


def _three_digits(value: float) -> str:
    """Two places below 10, one below 100: a ratio is never more precise."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
