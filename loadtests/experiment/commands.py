"""The commands `experiment` and `compare`: their flags, and how a result becomes an exit code.

Imports what a command needs when it runs.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path

from loadtests.arguments import EXIT_CODES_HELP, Arguments, Commands, add_command, count, positive, whole
from loadtests.exits import INVALID, MISSED, PASSED
from loadtests.experiment.plan import Factors
from loadtests.experiment.presets import PRESETS


def add(commands: Commands) -> None:
    """Add both."""
    _add_experiment(commands)
    parser = add_command(
        commands,
        "compare",
        _compare,
        help="compare two run folders",
        description="For each figure that both runs have: is B better, worse, or no different beyond noise? "
        "Both folders come from `experiment`, or both from `run --out`.",
        epilog="Exit codes: 0 nothing got worse, 1 something did, 2 the folders cannot be compared.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="run folder before the change")
    parser.add_argument("b", type=Path, metavar="B", help="run folder after it")


def _add_experiment(commands: Commands) -> None:
    parser = add_command(
        commands,
        "experiment",
        _experiment,
        help="reproduce the 2017 experiment on this machine",
        description="Start every variant of the service, measure them in turn, judge the claims of the post "
        "and draw the figures.",
        epilog=EXIT_CODES_HELP,
    )
    add = parser.add_argument
    questions = "; ".join(f"{name}: {preset.question}" for name, preset in PRESETS.items()).replace("%", "%%")
    add("--preset", choices=tuple(PRESETS), default="quick", metavar="NAME", help=questions)
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/DATE-TIME-PRESET)")
    factor = parser.add_argument_group("factors", "what the preset sets, unless given here").add_argument
    factor("--work-ms", type=positive, metavar="MS", help="CPU time of one request")
    factor("--work-units", type=count, metavar="N", help="units of work per request (default: calibrated)")
    factor(
        "--cycles",
        type=count,
        metavar="N",
        help="cycles before claims are judged; with fewer than 12 few can be decided",
    )
    factor("--more-cycles", type=whole, metavar="N", help="most cycles to add while a claim is undecided")
    factor("--block-seconds", type=positive, metavar="SECONDS", help="measured length of a block")
    factor("--settle-seconds", type=positive, metavar="SECONDS", help="start of a block, not measured")
    factor("--clients", type=count, metavar="N", help="closed-loop clients of a block, per worker")
    factor("--overload", type=positive, metavar="X", help="load of an overload, as a multiple of workers / S")
    factor(
        "--overload-seconds",
        type=positive,
        metavar="SECONDS",
        help="length of an overload, of a phase of the ramp, or of a trigger (in whole seconds)",
    )
    factor("--overload-repeats", type=count, metavar="N", help="overloads of each variant")
    factor("--budget-seconds", type=positive, metavar="SECONDS", help="time after which no cycle is added")
    factor("--base", type=positive, metavar="X", help="load before and after a trigger, times the limit")
    factor("--before-seconds", type=count, metavar="N", help="whole seconds before a trigger")
    factor("--after-seconds", type=count, metavar="N", help="whole seconds that a case is watched after it")
    factor("--retries", type=count, metavar="N", help="of clients that retry, for each request at most")
    factor("--accept-batch", type=count, metavar="N", help="connections accepted per turn of the loop")
    factor("--backlog", type=count, metavar="N", help="size of the kernel's accept queue")
    factor("--loop", choices=("uvloop", "asyncio"), help="event loop of the service")
    factor("--slo-seconds", type=positive, metavar="SECONDS", help="latency up to which an answer is in time")
    factor("--timeout-seconds", type=positive, metavar="SECONDS", help="time after which a client gives up")
    factor("--seed", type=whole, metavar="N", help="seed of the order in which variants are measured")


def _experiment(arguments: Arguments) -> int:
    from rich.console import Console

    from loadtests.experiment import run as experiment

    started = datetime.now().astimezone()
    path = arguments.out or Path("runs") / f"{started:%Y%m%d-%H%M%S}-{arguments.preset}"
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Factors)}
    chosen = {name: value for name, value in given.items() if value is not None}
    factors = dataclasses.replace(PRESETS[arguments.preset].factors, **chosen)
    console = Console(stderr=True)
    try:
        experiment.run(arguments.preset, factors, path, console)
    except KeyboardInterrupt:
        if (path / "summary.json").exists():
            console.print(f"Interrupted. Draw what was measured: python -m loadtests report {path}")
        raise
    return redraw(path)


def redraw(path: Path) -> int:
    """Judge and draw what an experiment measured."""
    from loadtests.experiment import report
    from loadtests.experiment.folder import RunFolder

    summary, text = report.draw(RunFolder(path))
    print(text, end="")
    print(f"\nReport, figures and data: {path}")
    return INVALID if report.is_invalid(summary) else PASSED


def _compare(arguments: Arguments) -> int:
    from loadtests.experiment import compare

    a, b = compare.load(arguments.a), compare.load(arguments.b)
    comparison = compare.compare(a, b)
    print(compare.as_text(a, b, comparison), end="")
    return MISSED if comparison.is_worse else PASSED
