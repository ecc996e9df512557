"""What a person sees: progress on stderr while the load runs, the summary on stdout after it.

Knows how a terminal of 80 columns is filled, and that a log file is no terminal. Touches only the
console it is given. Never computes a figure and never reads the clock: progress brings its own.
"""

from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.load.facts import Progress
from loadtests.load.phase import Phase

STATE_STYLES = {"ok": "bold green", "missed": "bold red", "invalid": "bold yellow"}
COLUMNS = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p99_9"), ("max", "max"))


class Display:
    """A context in which `update` shows progress: redrawn on a terminal, else a line per second."""

    def __init__(self, phase: Phase, console: Console) -> None:
        self._title = f"{phase.method} {phase.url}  {phase.load}"
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

    def update(self, progress: Progress) -> None:
        """Show where the phase stands."""
        if self._live is not None:
            self._live.update(_panel(self._title, progress), refresh=True)
        elif progress.elapsed_seconds >= self._next_line:
            self._next_line = progress.elapsed_seconds // 1 + 1
            self._console.print(_line(progress), markup=False, highlight=False, soft_wrap=True)


def _line(progress: Progress) -> str:
    seconds = f"{progress.elapsed_seconds:.0f}/{progress.duration_seconds:g} s"
    outcomes = "  ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    return f"{seconds}  fired {progress.fired}  in flight {progress.in_flight}  {outcomes}".rstrip()


def _panel(title: str, progress: Progress) -> RenderableType:
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
    counts = Text.assemble(
        ("fired ", "dim"), f"{progress.fired:,} of {progress.planned:,}   ",
        ("in flight ", "dim"), f"{progress.in_flight:,}   ",
        ("ok ", "dim"), (f"{outcomes.pop('ok', 0):,}", "green"),
    )  # fmt: skip
    failures = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (f"{count:,}", "red")) for name, count in sorted(outcomes.items())
    )
    return Group(Text(title, "bold", no_wrap=True, overflow="ellipsis"), bar, counts, failures)


def render(summary: dict[str, Any]) -> RenderableType:
    """Return the summary for the terminal: about twenty lines, 80 columns, units everywhere."""
    failed = summary["error_share"]
    state = Text.assemble(
        (summary["state"].upper(), STATE_STYLES[summary["state"]]),
        (" (interrupted)" if summary["interrupted"] else "", "bold yellow"),
        (f"  {failed:.1%} failed" if failed else "", "red"),
        f"  {summary['url']}",
    )
    parts: list[RenderableType] = [state, "", _rates(summary), "", _times(summary), ""]
    parts.append(_fact("outcomes", "  ".join(f"{name} {n:,}" for name, n in summary["outcomes"].items())))
    parts.append(_fact("ledger", _books(summary["ledger"])))
    generator = summary["generator"]
    parts.append(
        _fact(
            "generator",
            f"{generator['cpu_share']:.1%} of one core, {generator['gc_pauses']} GC pauses "
            f"up to {seconds(generator['gc_max_pause_seconds'])}",
        )
    )
    for result in summary["thresholds"]:
        verdict = "passed" if result["passed"] else "MISSED"
        parts.append(
            _fact("threshold", f"{result['threshold']} {verdict}", "green" if result["passed"] else "red")
        )
    parts += [_fact("INVALID", sentence, "yellow") for sentence in summary["invalid_because"]]
    parts += [_fact("caution", sentence, "yellow") for sentence in summary["cautions"]]
    return Group(*parts)


def seconds(value: float | None) -> str:
    """Return a duration with three digits and a fitting unit: `850 us`, `4.21 ms`, `1.20 s`."""
    if value is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            number = value / factor
            return f"{number:.{max(0, 2 - len(str(int(number))) + 1)}f} {unit}"
    return f"{value * 1e6:.0f} us"


def _rates(summary: dict[str, Any]) -> RenderableType:
    slo = summary["slo_seconds"]
    goodput = f"  goodput {summary['goodput_per_second']:.1f}/s within {seconds(slo)}" if slo else ""
    clients, offered = summary["clients"], summary["offered_per_second"]
    load = f"offered {offered:.1f}/s" if clients is None else summary["load"]
    return Text(
        f"{load}  achieved {summary['achieved_per_second']:.1f}/s "
        f"(answers 200){goodput}  for {summary['window_seconds']:.1f} s"
    )


def _times(summary: dict[str, Any]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    table.add_column("")
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right", min_width=8)
    rows = {
        "latency (from due time)": "latency_seconds",
        "service (from sending)": "service_seconds",
        "connecting": "connect_seconds",
        "lateness of sending": "lateness_seconds",
    }
    if summary["clients"] is not None:  # due and sent are one moment there
        rows = {name: key for name, key in rows.items() if name.startswith(("service", "connecting"))}
    for name, key in rows.items():
        table.add_row(name, *(seconds(summary[key][column]) for _, column in COLUMNS))
    return table


def _books(books: dict[str, int]) -> str:
    parts = [name for name in books if name == "connected" or (name.startswith("connect_") and books[name])]
    sent = " + ".join(f"{name.replace('_', ' ')} {books[name]:,}" for name in parts)
    return (
        f"planned {books['planned']:,} = sent {books['sent']:,} + not sent {books['not_sent']:,}\n"
        f"sent = {sent}\nconnected = answered {books['answered']:,} + unanswered {books['unanswered']:,}"
    )


def _fact(name: str, value: str, style: str = "") -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=10, style="dim")
    row.add_column(style=style)
    row.add_row(name, Text(value))
    return row
