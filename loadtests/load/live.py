"""What a person sees: progress on stderr while the load runs, the summary on stdout after it.

Knows how a terminal of 80 columns is filled, and that a log file is no terminal. Touches only the
console it is given. Never computes a figure and never reads the clock: progress brings its own.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.load.facts import Progress
from loadtests.load.histogram import Quantiles
from loadtests.load.phase import Phase
from loadtests.load.results import (
    MISSED,
    PASSED,
    TOO_FEW,
    RunSummary,
    State,
    StepsSummary,
    ThresholdResult,
    ThresholdState,
)

STATE_STYLES: Final[dict[State, str]] = {"ok": "bold green", "missed": "bold red", "invalid": "bold yellow"}
VERDICT_STYLES: Final[dict[ThresholdState, str]] = {PASSED: "green", MISSED: "red", TOO_FEW: "yellow"}
COLUMNS: Final = (
    ("p50", "p50"),
    ("p90", "p90"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("p99.9", "p99_9"),
    ("max", "max"),
)


class Display:
    """A context in which `update` shows progress: redrawn on a terminal, else a line per second.

    `step`: which of several phases it is.
    """

    def __init__(self, phase: Phase, console: Console, step: str = "") -> None:
        self._title = (
            f"{step}{phase.workload}  {phase.method} {phase.url}"
            if step
            else (f"{phase.method} {phase.url}  {phase.workload}")
        )
        self._console = console
        self._next_line = 0.0
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress, time_waits: int) -> None:
        """Show where the phase stands. `time_waits`: sockets of this machine in TIME_WAIT."""
        if self._live is not None:
            self._live.update(_panel(self._title, progress, time_waits), refresh=True)
        elif progress.elapsed_seconds >= self._next_line:
            self._next_line = progress.elapsed_seconds // 1 + 1
            line = f"{_line(progress)}  {_ports(progress, time_waits)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(progress: Progress) -> str:
    seconds = f"{progress.elapsed_seconds:.0f}/{progress.duration_seconds:g} s"
    outcomes = "  ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    return f"{seconds}  fired {progress.fired}  in flight {progress.in_flight}  {outcomes}".rstrip()


def _ports(progress: Progress, time_waits: int) -> str:
    half = progress.half_ports_after
    warning = "" if half is None else f", half the range gone after {half:,} connections"
    return f"ports used {progress.ports:,}, TIME_WAIT {time_waits:,}{warning}"


def _panel(title: str, progress: Progress, time_waits: int) -> RenderableType:
    elapsed, duration = progress.elapsed_seconds, progress.duration_seconds
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    waiting = "  waiting for answers" if elapsed > duration and progress.in_flight else ""
    bar.add_row(
        ProgressBar(duration, min(elapsed, duration)),
        f"{min(elapsed, duration):.1f} / {duration:g} s{waiting}",
    )
    outcomes = dict(progress.outcomes)
    answered = sum(outcomes.pop(name) for name in progress.outcomes if name == "ok" or name.startswith("ok_"))
    counts = Text.assemble(
        ("fired ", "dim"), f"{progress.fired:,} of {progress.planned:,}   ",
        ("in flight ", "dim"), f"{progress.in_flight:,}   ",
        ("ok ", "dim"), (f"{answered:,}", "green"),
    )  # fmt: skip
    failures = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (f"{count:,}", "red")) for name, count in sorted(outcomes.items())
    )
    ports = Text(_ports(progress, time_waits), "yellow" if progress.half_ports_after is not None else "dim")
    return Group(Text(title, "bold", no_wrap=True, overflow="ellipsis"), bar, counts, ports, failures)


def render(summary: RunSummary) -> RenderableType:
    """Return the summary for the terminal: about twenty lines, 80 columns, units everywhere."""
    failed = summary.error_share
    state = Text.assemble(
        (summary.state.upper(), STATE_STYLES[summary.state]),
        (" (interrupted)" if summary.interrupted else "", "bold yellow"),
        (f"  {failed:.1%} failed" if failed else "", "red"),
        f"  {summary.url}",
    )
    generator = summary.generator
    parts: list[RenderableType] = [state, "", Text(told(summary)), "", _times(summary), ""]
    parts.append(_fact("outcomes", "  ".join(f"{name} {n:,}" for name, n in summary.outcomes.items())))
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
    """Return several steps for the terminal: a row for each, and what has to be said of it."""
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
    # One by one they would be the same sentences again and again, and hide the faults among them.
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


def verdict_of(result: ThresholdResult) -> str:
    """A threshold's verdict; that it was missed catches the eye."""
    if result.state == TOO_FEW:
        return f"{TOO_FEW} ({result.samples} of {result.samples_needed})"
    return "passed" if result.passed else "MISSED"


def observed(threshold: str, value: float | None) -> str:
    """What was observed of a threshold's metric, with its unit."""
    if value is None:
        return "never"
    if threshold.startswith("errors"):
        return f"{value:.2%}"
    return f"{value:.1f}/s" if threshold.startswith(("achieved", "goodput")) else seconds(value)


def seconds(value: float | None) -> str:
    """Return a duration with three digits and a fitting unit: `850 us`, `4.21 ms`, `1.20 s`."""
    if value is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            number = value / factor
            return f"{number:.{max(0, 2 - len(str(int(number))) + 1)}f} {unit}"
    return f"{value * 1e6:.0f} us"


def told(summary: RunSummary) -> str:
    """What was offered and what came of it, in a line."""
    slo = summary.slo_seconds
    goodput = f"  goodput {summary.goodput_per_second:.1f}/s within {seconds(slo)}" if slo else ""
    offered = summary.offered_per_second
    load = summary.workload if offered is None else f"offered {offered:.1f}/s"
    return (
        f"{load}  achieved {summary.achieved_per_second:.1f}/s "
        f"(answers {summary.expect}){goodput}  for {summary.window_seconds:.1f} s"
    )


def _times(summary: RunSummary) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right", min_width=7, no_wrap=True)
    for name, cells in times(summary):
        table.add_row(name, *cells)
    return table


def times(summary: RunSummary) -> Iterator[tuple[str, list[str]]]:
    """What took how long, by name: the words for each of `COLUMNS`."""
    failed = summary.infinitely_late > 0
    rows: list[tuple[str, Quantiles, bool]] = [
        ("latency (from due time)", summary.latency_seconds, failed),
        ("  of what was answered", summary.answered_latency_seconds, False),
        ("service (from sending)", summary.service_seconds, failed),
        ("  connecting", summary.connect_seconds, False),
        ("  TLS handshake", summary.tls_seconds, False),
        ("  until the first byte", summary.first_byte_seconds, False),
        ("  until the last", summary.rest_seconds, False),
        ("late sending", summary.lateness_seconds, False),
        ("late receiving, at most", summary.receive_lateness_seconds, False),
    ]
    hidden = []
    if summary.clients is not None:  # due and sent are one moment there
        hidden += [summary.latency_seconds, summary.lateness_seconds]
    if not failed:
        hidden.append(summary.answered_latency_seconds)
    if summary.tls_seconds.max is None:
        hidden.append(summary.tls_seconds)
    rows = [row for row in rows if not any(row[1] is found for found in hidden)]
    for name, found, has_never in rows:
        cells = (getattr(found, column) for _, column in COLUMNS)
        yield name, ["never" if has_never and cell is None else seconds(cell) for cell in cells]


def books_of(summary: RunSummary) -> str:
    """The client's books, three lines that add up; of kept connections one more."""
    books = summary.ledger
    parts = {"connected": books.connected}
    for name in ("connect_failed", "connect_timeout", "connect_aborted"):
        if count := getattr(books, name):
            parts[name] = count
    sent = " + ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in parts.items())
    kept = f"\nthe ledger counts requests; connections {books.connections:,}" if summary.keep_alive else ""
    return (
        f"planned {books.planned:,} = sent {books.sent:,} + not sent {books.not_sent:,}\n"
        f"sent = {sent}\nconnected = answered {books.answered:,} + unanswered {books.unanswered:,}{kept}"
    )


def _fact(name: str, value: str, style: str = "") -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=10, style="dim")
    row.add_column(style=style)
    row.add_row(name, Text(value))
    return row
