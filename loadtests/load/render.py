"""The summary of a run on the terminal, of one rate or of several. Computes no figure and prints nothing."""

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.load.results import MISSED, PASSED, TOO_FEW, RunSummary, State, StepsSummary, ThresholdState
from loadtests.load.tell import (
    COLUMNS,
    books_of,
    outcomes_of,
    retries_of,
    seconds,
    times,
    told,
    verdict_of,
)

STATE_STYLES: Final[dict[State, str]] = {"ok": "bold green", "missed": "bold red", "invalid": "bold yellow"}
VERDICT_STYLES: Final[dict[ThresholdState, str]] = {PASSED: "green", MISSED: "red", TOO_FEW: "yellow"}


def render(summary: RunSummary) -> RenderableType:
    """Return the summary for the terminal: about twenty lines of 80 columns, with units."""
    failed = summary.error_share
    state = Text.assemble(
        (summary.state.upper(), STATE_STYLES[summary.state]),
        (" (interrupted)" if summary.interrupted else "", "bold yellow"),
        (f"  {failed:.1%} failed" if failed else "", "red"),
        f"  {summary.url}",
    )
    generator = summary.generator
    parts: list[RenderableType] = [state, "", Text(told(summary)), "", _times(summary), ""]
    parts.append(_fact("outcomes", outcomes_of(summary.outcomes)))
    if (retries := retries_of(summary)) is not None:
        parts += [_fact("retries", retries), _fact("attempts", outcomes_of(summary.attempt_outcomes))]
    parts.append(_fact("ledger", books_of(summary)))
    parts.append(
        _fact(
            "generator",
            f"{generator.cpu_share:.0%} of one core while sending, "
            f"{generator.busiest_second_cpu_share:.0%} in its busiest second\n"
            f"{generator.gc_pauses} GC pauses up to {seconds(generator.gc_max_pause_seconds)}",
        )
    )
    parts += [
        _fact("threshold", f"{result.threshold} {verdict_of(result)}", VERDICT_STYLES[result.state])
        for result in summary.thresholds
    ]
    parts += [_fact("INVALID", sentence, "yellow") for sentence in summary.invalid_because]
    parts += [_fact("caution", sentence, "yellow") for sentence in summary.cautions]
    return Group(*parts)


def render_steps(found: StepsSummary) -> RenderableType:
    """Return several steps for the terminal: a row for each, then their verdicts."""
    missing = found.planned - len(found.steps)
    state = Text.assemble(
        (found.state.upper(), STATE_STYLES[found.state]),
        (" (interrupted)" if found.interrupted else "", "bold yellow"),
        f"  {len(found.steps)} of {found.planned} steps" if missing else f"  {found.planned} steps",
        f"  {found.steps[0].summary.url}",
    )
    parts: list[RenderableType] = [state, "", _steps_table(found), ""]
    for step in found.steps:
        summary = step.summary
        said = [
            (f"{result.threshold} {verdict_of(result)}", VERDICT_STYLES[result.state])
            for result in summary.thresholds
        ]
        said += [(f"INVALID: {sentence}", "yellow") for sentence in summary.invalid_because]
        parts += [_fact(step.name if not n else "", *words) for n, words in enumerate(said)]
    # In full they would be the same sentences again and again, and hide the faults among them.
    numbers = [(len(step.summary.cautions), step.name) for step in found.steps]
    if cautions := [f"{number} of {name}" for number, name in numbers if number]:
        parts.append(_fact("cautions", f"{', '.join(cautions)}: --json and --out tell them", "yellow"))
    return Group(*parts)


def _steps_table(found: StepsSummary) -> RenderableType:
    slo = found.steps[0].summary.slo_seconds
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    headings = ["step", "offered/s", "achieved/s", *(["goodput/s"] if slo else []), "p50", "p99", "errors"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "step" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for step in found.steps:
        summary = step.summary
        rates = [summary.offered_per_second, summary.achieved_per_second]
        rates += [summary.goodput_per_second] if slo else []
        failed = summary.infinitely_late > 0
        cells = [step.name, *("-" if rate is None else f"{rate:,.1f}" for rate in rates)]
        cells += [
            "never" if failed and quantile is None else seconds(quantile)
            for quantile in (summary.latency_seconds.p50, summary.latency_seconds.p99)
        ]
        cells.append("-" if summary.error_share is None else f"{summary.error_share:.1%}")
        table.add_row(*cells, Text(summary.state.upper(), STATE_STYLES[summary.state]))
    return table


def _times(summary: RunSummary) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right", min_width=7, no_wrap=True)
    for name, cells in times(summary):
        table.add_row(name, *cells)
    return table


def _fact(name: str, value: str, style: str = "") -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=10, style="dim")
    row.add_column(style=style)
    row.add_row(name, Text(value))
    return row
