"""Progress on stderr while a load runs: redrawn on a terminal, else a line per second.

Knows how a terminal of 80 columns is filled, and that a log file is no terminal. Touches only the console it
is given. Never reads the clock: progress brings its own.
"""

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.load.facts import Progress
from loadtests.load.phase import Phase


class Display:
    """A context in which `update` shows progress: redrawn on a terminal, else a line per second.

    `step`: a title, if the phase is one of several.
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
        """Show how far the phase has come. `time_waits`: sockets of this machine in TIME_WAIT."""
        if self._live is not None:
            self._live.update(_panel(self._title, progress, time_waits), refresh=True)
        elif progress.elapsed_seconds >= self._next_line:
            self._next_line = progress.elapsed_seconds // 1 + 1
            line = f"{_line(progress)}  {_ports(progress, time_waits)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(progress: Progress) -> str:
    seconds = f"{progress.elapsed_seconds:.0f}/{progress.duration_seconds:g} s"
    outcomes = "  ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    fired = f"fired {progress.fired}{_retried(progress)}"
    return f"{seconds}  {fired}  in flight {progress.in_flight}  {outcomes}".rstrip()


def _retried(progress: Progress) -> str:
    return f" + {progress.retried:,} retries" if progress.retried else ""


def _ports(progress: Progress, time_waits: int) -> str:
    half = progress.half_ports_after
    warning = "" if half is None else f", half of the range used after {half:,} connections"
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
        ("fired ", "dim"), f"{progress.fired:,} of {progress.planned:,}{_retried(progress)}   ",
        ("in flight ", "dim"), f"{progress.in_flight:,}   ",
        ("ok ", "dim"), (f"{answered:,}", "green"),
    )  # fmt: skip
    failures = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (f"{count:,}", "red")) for name, count in sorted(outcomes.items())
    )
    ports = Text(_ports(progress, time_waits), "yellow" if progress.half_ports_after is not None else "dim")
    return Group(Text(title, "bold", no_wrap=True, overflow="ellipsis"), bar, counts, ports, failures)
