"""The command `report RUN`: finds out which room wrote a folder, and has it judged and drawn again there."""

from __future__ import annotations

from pathlib import Path

from loadtests.arguments import EXIT_CODES_HELP, Commands, add_command
from loadtests.capacity import commands as capacity
from loadtests.experiment import commands as experiment
from loadtests.load import commands as load


def add(commands: Commands) -> None:
    """Add it."""
    parser = add_command(
        commands,
        "report",
        lambda arguments: redraw(arguments.run),
        help="draw verdict, page and figures of a run folder again",
        description="Judge and draw again from what is in the folder; nothing is measured.",
        epilog=EXIT_CODES_HELP,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder of `experiment`, `run --out` or `capacity --out`"
    )


def redraw(path: Path) -> int:
    """Judge and draw a folder again; returns the exit code. Raises `UsageError` for a folder of no run."""
    from loadtests.capacity.folder import holds_capacity
    from loadtests.load.folder import holds_run

    if holds_capacity(path):
        return capacity.redraw(path)
    return load.redraw(path) if holds_run(path) else experiment.redraw(path)
