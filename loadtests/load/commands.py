"""The commands `run` and `ports`: their flags, and how a result becomes an exit code.

Imports what a command needs when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from loadtests.arguments import EXIT_CODES_HELP, Arguments, Commands, add_command
from loadtests.exits import INTERRUPTED, MISSED, OF_STATE, PASSED, UsageError
from loadtests.load import ceiling
from loadtests.load.flags import (
    add_load_flags,
    add_machine_flags,
    machine_of,
    phases_of,
    run_as_typed,
)
from loadtests.load.values import duration, threshold


def add(commands: Commands) -> None:
    """Add both."""
    _add_run(commands)
    _add_ports(commands)


def _add_run(commands: Commands) -> None:
    parser = add_command(
        commands,
        "run",
        _run,
        help="send one load to one URL and sum it up",
        description="Send each request when it is due, whether or not earlier ones have been answered, on a "
        "connection of its own (unless --keep-alive); or keep --clients busy in a closed loop.",
        epilog=f"{EXIT_CODES_HELP} With several rates: 1 if one missed, else 3 if one is INVALID.",
    )
    parser.add_argument("url", metavar="URL", help="http or https URL")
    add_load_flags(parser)
    add_machine_flags(parser)
    add = parser.add_argument_group("result").add_argument
    add(
        "--threshold",
        action="append",
        default=[],
        type=threshold,
        metavar="'p99<100ms'",
        help="what the run must reach; repeatable. Metrics: p50, p90, p95, p99, p99.9, max (us, ms, s), "
        "errors (%%), achieved, goodput (per second). A request without the expected answer counts as "
        "infinitely late. A threshold needs samples to pass: 72 for p95, 368 for p99, 3688 for p99.9, 300 "
        "for errors<1%%",
    )
    add(
        "--slo",
        type=duration,
        metavar="TIME",
        help="time after a request was due within which its answer counts as goodput: 100ms, 1.5s",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder: plan, samples, summary and a page (report.html), latency.hlog and latency.hgrm for "
        "HdrHistogram's tools, and seconds.ndjson with a line per second; several rates have a folder each",
    )
    add("--json", metavar="FILE", help="write the summary as JSON; - is stdout")
    add("--junit", type=Path, metavar="FILE", help="write the thresholds as JUnit XML, for CI systems")


def _run(arguments: Arguments) -> int:
    from loadtests.load.order import Keep, Order
    from loadtests.load.run import run
    from loadtests.load.steps import run_steps

    phases = phases_of(arguments)
    if not arguments.keep_alive:  # the ceiling is one of connections
        _warn_above_ceiling(max(phase.rate or 0.0 for phase in phases), arguments.cache / ceiling.FILE)
    order = Order(
        thresholds=arguments.threshold,
        slo_seconds=arguments.slo,
        keep=Keep(out=arguments.out, json=arguments.json, junit=arguments.junit),
        command=run_as_typed(arguments),
        machine=machine_of(arguments),
    )
    found = run(phases[0], order) if len(phases) == 1 else run_steps(phases, order)
    return INTERRUPTED if found.interrupted else OF_STATE[found.state]


def _warn_above_ceiling(rate: float, kept: Path) -> None:
    found = ceiling.remembered(kept)
    if found is not None and rate > found.per_second:
        print(
            f"{rate:g}/s is more than this generator sends on time, {found.per_second:,.0f}/s when "
            "`self-test` last measured it: the run is likely to be INVALID",
            file=sys.stderr,
        )


def redraw(path: Path) -> int:
    """Show again what `run --out` measured, and draw its pages."""
    from rich.console import Console

    from loadtests.load import page
    from loadtests.load.folder import holds_steps, read_run, read_steps
    from loadtests.load.render import render, render_steps
    from loadtests.load.results import StepsSummary

    try:
        found = read_steps(path) if holds_steps(path) else read_run(path).summary
        drawn = page.draw(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    Console().print(render_steps(found) if isinstance(found, StepsSummary) else render(found))
    print(f"\nPage: {drawn}")
    return OF_STATE[found.state]


def _add_ports(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ports",
        _ports,
        help="say whether the local ports suffice for a run, and what helps if not",
        description="Without a URL: the local ports of this machine, and when a used port is free again. "
        "With a URL and the flags of `run`: whether every request of that run would find a port, and "
        "commands that help if not. Nothing is sent.",
        epilog="Exit codes: 0 every request would find a port, 1 at least one would not, 2 the command "
        "cannot be run as typed.",
    )
    parser.add_argument("url", metavar="URL", nargs="?", help="http or https URL")
    add_load_flags(parser)


def _ports(arguments: Arguments) -> int:
    from loadtests.load import doctor
    from loadtests.load.port_state import port_rules, states

    for line in doctor.state_lines(port_rules(), states()):
        print(line)
    if arguments.url is None:
        return PASSED
    found = doctor.examined(phases_of(arguments), run_as_typed(arguments))
    print()
    for line in doctor.lines(found):
        print(line)
    return PASSED if found.suffices else MISSED
