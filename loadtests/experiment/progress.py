"""Progress on the terminal while an experiment runs: the interval of each claim, and the time left.

Knows how a terminal of 80 columns is filled, and that a log file is no terminal: it gets a line for each
cycle and phase. Touches the console that it is given. Never judges: it shows what verdict.py says.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loadtests.experiment import tables
from loadtests.experiment.blocks import Block
from loadtests.experiment.claims import Rule
from loadtests.experiment.finding import DID_NOT_HOLD, HELD
from loadtests.experiment.plan import Case, Plan, Trigger
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import PhaseResult, Summary
from loadtests.experiment.verdict import judge, rules_for

STYLES: Final = {HELD: "green", DID_NOT_HOLD: "yellow"}


class Board:
    """A context manager that shows how far the run has come."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._table: Table | None = None
        # Bar and time left are drawn twice a second, which costs about 1 % of a core.
        self._bar = Progress(
            TextColumn("{task.description:<46}"), BarColumn(12), TimeRemainingColumn(compact=True)
        )
        self._total = self._bar.add_task("starting", total=expected_seconds(plan))
        self._live = Live(self._shown(), console=console, transient=True, refresh_per_second=2)

    def __enter__(self) -> Self:
        """Begin to draw, on a terminal."""
        minutes = expected_seconds(self._plan) / 60
        self._console.print(
            f"About {minutes:.1f} minutes on {self._plan.cores:g} cores. Ctrl-C keeps what was measured.",
            highlight=False,
        )
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last table on the screen, without the bar."""
        self._live.stop()
        if self._table is not None and self._console.is_terminal:
            self._console.print(self._table)

    def block(self, block: Block) -> None:
        """Show one measured block."""
        beside = block.part == "beside" and self._plan.beside
        where = "stock executor and lanes" if beside else f"cycle {block.cycle}"
        self._advance(self._plan.block_seconds(), f"{where}: {block.variant}")
        if block.void_because:
            self._line(f"  void, measured again: {block.variant}: {block.void_because[0]}")

    def cycle(self, number: int, summary: Summary) -> None:
        """Show a complete cycle."""
        rules = [rule for rule in rules_for(summary) if rule.by_interval]
        self._table = table(summary, rules, number)
        if not self._console.is_terminal:
            blocks = {block.variant: block for block in summary.blocks if block.cycle == number}
            rates = ", ".join(
                f"{name} {block.throughput_per_second:.0f}/s U {block.utilisation:.2f}"
                for name, block in blocks.items()
            )
            self._console.print(f"cycle {number}: {rates}", highlight=False, soft_wrap=True)
        self._live.update(self._shown())

    def phase(self, result: PhaseResult) -> None:
        """Show one open-loop phase."""
        p99 = result.latency_seconds.p99
        self._advance(result.seconds * 1.5, f"{result.kind}: {result.variant}")
        self._line(
            f"{result.kind} {result.variant:<16}{result.offered_per_second:>5.0f}/s in time "
            f"{result.goodput_per_second:>4.0f}/s in flight {result.peak:>4} p99 "
            + ("  never" if p99 is None else f"{p99 * 1e3:>5.0f} ms")
        )
        if result.invalid_because:
            self._line(f"  invalid: {result.invalid_because[0]}")

    def sending(self, case: Case) -> Callable[[float], None]:
        """Show how far a case has come; what is returned is told the seconds since its first request."""
        shown = 0.0

        def tell(elapsed: float) -> None:
            nonlocal shown
            self._advance(elapsed - shown, case.title)
            shown = elapsed

        return tell

    def recovery(self, recoveries: Sequence[Recovery]) -> None:
        """Show what came after the trigger, of all cases so far."""
        assert self._plan.trigger is not None
        self._table = recovery_table(self._plan.trigger, recoveries)
        self._live.update(self._shown())
        last = recoveries[-1]
        if not self._console.is_terminal:
            (row,) = tables.recovery_rows(self._plan.trigger, [last])
            self._line(
                f"case {last.case}: {row.before:.0f}/s before, {row.during:.0f}/s in, {row.after:.0f}/s "
                f"after the trigger at {row.attempts:.0f} attempts/s: {row.outcome}"
            )
        if last.void_because:
            self._line(f"  void: {last.case}: {last.void_because[0]}")

    def _advance(self, seconds: float, doing: str) -> None:
        self._bar.update(self._total, advance=seconds, description=doing)

    def _line(self, text: str) -> None:
        """Print a text: one line in a file, where it can be searched for; wrapped on a terminal."""
        lines = [text]
        if self._console.is_terminal:
            lines = textwrap.wrap(text, self._console.width, drop_whitespace=False, subsequent_indent="    ")
        for line in lines:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _shown(self) -> Group:
        return Group(*([self._table] if self._table is not None else []), self._bar)


def expected_seconds(plan: Plan) -> float:
    """About how long the plan takes if no block has to be measured again."""
    seconds = plan.looks[0] * len(plan.measured) * plan.block_seconds() + plan.seconds_after_cycles(4)
    seconds += len(plan.curve) * 8 * 6.0
    if plan.trigger is not None:
        seconds += len(plan.trigger.cases) * plan.case_seconds()
    if plan.ramp is not None:
        each = plan.ramp.phase_seconds + 2.0
        seconds += each * len(plan.ramp.rates_per_second) * len(plan.ramp.variants)
    return seconds


def table(summary: Summary, rules: list[Rule], cycles: int) -> Table:
    """The claims that are judged by an interval: the interval so far, and the region in which they hold."""
    made = Table(box=None, pad_edge=False, title_justify="left", width=78)
    made.title = f"After {cycles} cycles"
    made.add_column("claim", no_wrap=True)
    made.add_column("so far", justify="right", no_wrap=True)
    made.add_column("holds in", justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for rule, verdict in zip(rules, judge(summary, rules), strict=True):
        finding = verdict.finding
        region = finding.region
        if region is None or finding.estimate is None:
            made.add_row(rule.short, finding.numbers, "", "")
            continue
        high = f" to {region.high:.3g}" if region.high != float("inf") else " and up"
        word = {HELD: "held", DID_NOT_HOLD: "does not hold"}.get(verdict.verdict, "open")
        made.add_row(
            rule.short,
            str(finding.estimate),
            f"{region.low:.3g}{high}",
            Text(word, style=STYLES.get(verdict.verdict, "dim")),
        )
    return made


def recovery_table(trigger: Trigger, recoveries: Sequence[Recovery]) -> Table:
    """The cases so far: answers per second before, in and after the trigger, attempts, and the end."""
    made = Table(box=None, pad_edge=False, title_justify="left", width=78)
    load = f"{trigger.base:g}x the limit but for {trigger.seconds} s at {trigger.peak:g}x"
    made.title = f"Answers per second, {load}"
    made.add_column("case", no_wrap=True)
    for heading in ("before", "during", "after", "attempts"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for row in tables.recovery_rows(trigger, recoveries):
        figures = (row.before, row.during, row.after, row.attempts)
        made.add_row(row.title, *(f"{figure:.0f}" for figure in figures), row.outcome)
    return made
