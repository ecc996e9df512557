"""Draws the report of a run from its summary alone: verdict.txt, report.html and the figures.

Knows the text form of verdicts, tables and ledger. Touches only files in the run folder.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Final

from loadtests.experiment import tables
from loadtests.experiment.evidence import ledger, ledger_gaps
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE
from loadtests.experiment.folder import FolderError, RunFolder, holds_experiment
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import answer, judge

WIDTH: Final = 78
ROOM: Final = 18  # for a name beside three estimates
MARKS: Final = {HELD: "+", DID_NOT_HOLD: "-", INCONCLUSIVE: "?"}


def draw(folder: RunFolder) -> tuple[Summary, str]:
    """Write verdict.txt, the page and the figures; return the summary and the text.

    Raises:
        FolderError: the folder holds no readable experiment.
    """
    # Imported here, so that commands that draw nothing need not load matplotlib.
    from loadtests.experiment import figures, page

    if not holds_experiment(folder.path):
        raise FolderError(f"{folder.path} holds neither an experiment nor a run")
    summary = folder.summary()
    text = as_text(summary)
    (folder.path / "verdict.txt").write_text(text, encoding="utf-8")
    (folder.path / "report.html").write_text(page.render(summary), encoding="utf-8")
    figures.draw(summary, folder.path)
    return summary, text


def is_invalid(summary: Summary) -> bool:
    """Whether the machine was disturbed too much, or the ledger does not close."""
    return summary.status.state == "invalid" or bool(ledger_gaps(summary))


def as_text(summary: Summary) -> str:
    """The verdict as plain text of at most 80 columns."""
    parts = (_head(summary), _verdicts(summary), _tables(summary), _disturbances(summary), _ledger(summary))
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _head(summary: Summary) -> Iterator[str]:
    plan, machine, status = summary.plan, summary.environment, summary.status
    title = f"{tables.heading(plan)}, preset {plan.preset}"
    if status.state != "complete":
        title += f": {status.state.upper()}"
    yield title
    yield from _wrap(
        f"{machine.date}, {machine.cpu}, {machine.cores:g} cores, {machine.kernel}, {machine.python}; seed "
        f"{plan.factors.seed}, load average before the run {machine.load_average:.1f}, {status.seconds:.0f} s"
    )
    if status.invalid_because:
        yield ""
        yield from _wrap(
            f"This run says nothing about the service: {status.invalid_because}. "
            "Try again when the machine is left alone."
        )


def _verdicts(summary: Summary) -> Iterator[str]:
    if summary.status.state == "invalid":
        return
    for verdict in judge(summary):
        mark = f"{MARKS[verdict.verdict]} {verdict.verdict.upper():<13} "
        yield from textwrap.wrap(verdict.claim, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))
        yield from _wrap(f"{verdict.finding.numbers}. {verdict.finding.why}", indent="    ")
    if (why := answer(summary)) is not None:
        yield ""
        yield "Where does the 5.2x come from?"
        yield from _wrap(why, indent="    ")


def _tables(summary: Summary) -> Iterator[str]:
    """Each variant, the factors of each gain, and the cost of the stock executor beside the lanes."""
    if rows := tables.variants(summary):
        yield f"{'variant':<38}{'X':>9}{'U':>7}{'of workers':>11}{'S':>9}"
    for row in rows:
        yield (
            f"{row.title:<38}{row.throughput_per_second:>7.0f}/s{row.utilisation:>7.2f}"
            f"{row.utilisation / row.workers:>11.0%}{row.demand_seconds * 1e3:>6.2f} ms"
        )
    baseline = ""
    for gain in tables.gains(summary):
        if gain.baseline != baseline:
            baseline = gain.baseline
            yield ""
            yield from _row(f"over {baseline}", "X at equal speed", "= U", "/ S")
        yield from _row(gain.variant, gain.gain.steady, gain.gain.utilisation, gain.gain.demand)
    if cases := tables.recoveries(summary):
        yield f"{'answers per second':<28}{'before':>8}{'during':>8}{'after':>8}{'attempts':>10}"
    for one in cases:
        yield (
            f"{one.title:<28}{one.before:>8.0f}{one.during:>8.0f}{one.after:>8.0f}{one.attempts:>10.0f}"
            f"  {one.outcome}"
        )
    if beside := tables.beside(summary):
        yield ""
        yield from _wrap(beside)


def _row(name: str, *figures: object) -> Iterator[str]:
    """One gain; a name that is too long has a line of its own."""
    if len(name) > ROOM:
        yield name
        name = ""
    yield f"{name:<{ROOM}}" + "".join(f"{figure!s:>20}" for figure in figures)


def _disturbances(summary: Summary) -> Iterator[str]:
    """What was measured and is not used, with the reasons."""
    void = Counter(reason for block in summary.blocks for reason in block.void_because[:1])
    if void:
        worst = max(void, key=lambda reason: void[reason])
        yield from _wrap(
            f"{sum(void.values())} of {len(summary.blocks)} blocks were void and do not count, most often: "
            f"{worst}."
        )
    for phase in summary.phases:
        if phase.invalid_because:
            yield from _wrap(f"Phase {phase.id} is invalid and not judged: {phase.invalid_because[0]}.")
    for one in summary.recoveries:
        if one.void_because:
            yield from _wrap(f"Case {one.case} is void and not judged: {one.void_because[0]}.")


def _ledger(summary: Summary) -> Iterator[str]:
    total = ledger(summary)
    retried = f" + retried {total.retried}" if total.retried else ""
    yield from _wrap(
        f"Ledger: planned {total.planned} = sent {total.sent} + not sent {total.not_sent}; "
        f"sent{retried} = connected {total.connected} + never connected {total.never_connected}; "
        f"connected + carried over {total.carried_over} = accepted {total.accepted} "
        f"+ in the kernel queue {total.kernel_queue} + half-open {total.half_open}; "
        f"accepted = completed {total.completed} + active {total.active}."
    )
    gaps = ledger_gaps(summary)
    yield from (line for gap in gaps for line in _wrap(gap)) if gaps else ["No connection is unexplained."]


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
