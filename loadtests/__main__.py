"""The command line of the instrument: argv in, exit code out.

Knows flags, defaults and exit codes. Touches argv and, for a wrong one, stderr. Never measures: each
command hands over to the module that does.
"""

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from loadtests.arguments import (
    EXIT_CODES_HELP,
    INTERRUPTED,
    INVALID,
    MISSED,
    PASSED,
    USAGE,
    Help,
    Parser,
    add_load_flags,
    add_machine_flags,
    add_request_flags,
    count,
    duration,
    loads,
    machine_of,
    phases_of,
    positive,
    request_of,
    success,
    threshold,
    whole,
)
from loadtests.experiment import compare
from loadtests.experiment import run as experiment
from loadtests.experiment.child import ServiceError
from loadtests.experiment.folder import FolderError, RunFolder
from loadtests.experiment.plan import Factors, PlanError
from loadtests.experiment.presets import PRESETS
from loadtests.files import write_json
from loadtests.load import doctor
from loadtests.load.folder import holds_run, holds_steps, read_run, read_steps
from loadtests.load.generator import GeneratorError
from loadtests.load.live import render, render_steps
from loadtests.load.port_state import port_rules, states
from loadtests.load.ports import without_flag
from loadtests.load.results import StepsSummary
from loadtests.load.run import Keep, Order, UsageError, examined, run
from loadtests.load.steps import run_steps
from loadtests.peers import plan as peers_plan

if TYPE_CHECKING:
    from loadtests.capacity.results import Capacity

EXIT_CODES = {"ok": PASSED, "missed": MISSED, "invalid": INVALID}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = Parser(
        prog="python -m loadtests",
        description="Measure an HTTP service with an open load.",
        epilog=f"{EXIT_CODES_HELP} Of several rates: 1 if one missed, else 3 if one is INVALID.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands)
    add_ports(commands)
    add_capacity(commands)
    add_self_test(commands)
    add_experiment(commands)
    add_report(commands)
    add_compare(commands)
    add_peers(commands)
    arguments = parser.parse_args(argv)
    arguments.words = sys.argv[1:] if argv is None else list(argv)
    handler: Callable[[argparse.Namespace], int] = arguments.handler
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a cancelled job cleans up as well
        signal.signal(number, _end)
    try:
        return handler(arguments)
    except (UsageError, FolderError, PlanError) as error:
        print(f"python -m loadtests: {error}", file=sys.stderr)
        return USAGE
    except (GeneratorError, ServiceError) as error:
        print(f"python -m loadtests: {error}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt as end:
        return 128 + end.number if isinstance(end, _Ended) else INTERRUPTED


class _Ended(KeyboardInterrupt):
    """A signal that asks to end, treated as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _end(number: int, _: object) -> NoReturn:
    raise _Ended(number)


def add_run(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `run URL`: one load against one URL."""
    parser = commands.add_parser(
        "run",
        help="send one load to one URL and sum up",
        description="Send requests when they are due, whatever the answers do, one connection each "
        "(unless --keep-alive); or keep clients busy in a closed loop.",
        epilog=EXIT_CODES_HELP,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_run)
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
        help="repeatable; p50, p90, p95, p99, p99.9, max (us, ms, s), errors (%%), achieved, goodput (per "
        "second). A request without the expected answer counts as infinitely late. With too few samples "
        "(72 for p95, 368 for p99, 3688 for p99.9, 300 for errors<1%%) nothing passes",
    )
    add(
        "--slo",
        type=duration,
        metavar="TIME",
        help="latest an answer may come, from when it was due, to count as goodput: 100ms, 1.5s",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep plan, samples and summary there, with a page (report.html), latency.hlog and latency.hgrm "
        "for HdrHistogram's readers and seconds.ndjson, a line per second; of several rates in a folder each",
    )
    add("--json", metavar="FILE", help="write the summary as JSON; - is stdout")
    add("--junit", type=Path, metavar="FILE", help="write the thresholds as JUnit's XML, for CI systems")


def add_ports(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `ports [URL]`: whether the local ports will do."""
    parser = commands.add_parser(
        "ports",
        help="say whether the local ports will do for a run, and what helps",
        description="Without a URL: the local ports of this machine and the rules by which they come back. "
        "With one, and the flags of `run`: what would happen, and commands that help. Nothing is sent.",
        epilog="Exit codes: 0 every request would find a port, 1 one would not, 2 the command cannot be run "
        "as typed.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_ports)
    parser.add_argument("url", metavar="URL", nargs="?", help="http or https URL")
    add_load_flags(parser)


def _ports(arguments: argparse.Namespace) -> int:
    for line in doctor.state_lines(port_rules(), states()):
        print(line)
    if arguments.url is None:
        return PASSED
    found = examined(phases_of(arguments), _typed(arguments))
    print()
    for line in doctor.lines(found):
        print(line)
    return PASSED if found.suffices else MISSED


def _typed(arguments: argparse.Namespace) -> list[str]:
    """The run as a person would type it again; into no folder, for that would already hold a run."""
    program = Path(sys.executable)
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    _, *words = arguments.words  # the command's own name comes first
    return [str(program), "-m", "loadtests", "run", *without_flag(words, "--out")]


def add_capacity(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `capacity URL`: how many requests a second a service can take."""
    parser = commands.add_parser(
        "capacity",
        help="find how many requests a second a service can take",
        description="Search by trials at fixed rates for the highest load at which the SLO is met, and say "
        "between which two loads it lies (3 minutes). Of a service of ours the load is told as a share of "
        "its limit, workers / S, too: so far as its speed drifts, that is taken out.",
        epilog="Exit codes: 0 the capacity is bracketed, 2 the command cannot be run as typed, 3 INVALID or "
        "out of time, 130 interrupted.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_capacity)
    parser.add_argument("url", metavar="URL", help="http or https URL")
    add = parser.add_argument_group("search").add_argument
    add(
        "--slo",
        action="append",
        type=threshold,
        metavar="'p99<100ms'",
        help="what a load must meet, repeatable, as --threshold of `run` (default: p99<100ms)",
    )
    add("--success", type=success, default="99%", metavar="SHARE", help="of the requests that must succeed")
    add("--clients", type=count, default=16, metavar="N", help="of the closed loop from which it starts")
    add("--budget", type=positive, default=180.0, metavar="SECONDS", help="time after which no trial begins")
    add("--admin-url", metavar="URL", help="of a service of ours (default: the next port, if it is one)")
    add("--out", type=Path, metavar="DIR", help="keep the result there, with all trials and a page")
    add_request_flags(parser)
    add_machine_flags(parser)


def _capacity(arguments: argparse.Namespace) -> int:
    from loadtests.capacity import bench, folder
    from loadtests.capacity import run as capacity

    slo = (*(arguments.slo or [threshold("p99<100ms")]), arguments.success)
    if any(one.metric == "goodput" for one in slo):
        raise UsageError("goodput is no SLO of a capacity: give the latency that an answer may take")
    phase = request_of(arguments)
    examined([phase], _typed(arguments))
    order = bench.Order(
        phase=phase,
        thresholds=slo,
        clients=arguments.clients,
        budget_seconds=arguments.budget,
        admin_url=arguments.admin_url or bench.admin_url_of(arguments.url),
        machine=machine_of(arguments),
    )
    with folder.kept(arguments.out) as keep, bench.Bench(order) as loads:
        found = capacity.find(order, loads, Console(stderr=True))
        keep(found)
    return _tell_capacity(found, arguments.out)


def _tell_capacity(found: "Capacity", out: Path | None) -> int:
    from loadtests.capacity import tell

    for line in tell.lines(found):
        print(line)
    if out is not None:
        from loadtests.capacity import page  # matplotlib takes a second, and is needed for this alone

        print(f"\nPage: {page.draw(out)}")
    if found.state == "interrupted":
        return INTERRUPTED
    return PASSED if found.state == "complete" else INVALID


def add_self_test(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `self-test`: what this machine's generator can do."""
    parser = commands.add_parser(
        "self-test",
        help="find how many connections a second this generator can make on time",
        description="Send to a server that does nothing, at rates that are searched for, until the generator "
        "is late. The answer is kept, and `run` warns before a rate above it (1 minute).",
        epilog="Exit codes: 0 found, 3 this machine is too busy to be on time at all.",
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_self_test)


def _self_test(_: argparse.Namespace) -> int:
    from loadtests.capacity import self_test

    with self_test.trials() as trial:
        found = self_test.measure(trial, Console(stderr=True))
    if found is None:
        print("INVALID: the generator was never on time; something else keeps this machine busy")
        return INVALID
    print(f"ceiling       {found.per_second:,.0f} connections/s on time, {found.above_per_second:,.0f}/s not")
    print(f"              above it: {found.why}")
    print(f"generator     {found.cpu_seconds * 1e6:.0f} us of CPU for one request")
    self_test.keep(found, _ceiling_file())
    return PASSED


def _ceiling_file() -> Path:
    """Where what the generator can do on this machine is kept (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offloop" / "self-test.json"


def add_experiment(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `experiment`: the 2017 experiment on this machine, judged and drawn."""
    parser = commands.add_parser(
        "experiment",
        help="reproduce the 2017 experiment on this machine",
        description="Start every variant of the service, measure them in turns, judge and draw.",
        epilog=EXIT_CODES_HELP,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_experiment)
    add = parser.add_argument
    questions = "; ".join(f"{name}: {preset.question}" for name, preset in PRESETS.items()).replace("%", "%%")
    add("--preset", choices=tuple(PRESETS), default="quick", metavar="NAME", help=questions)
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/DATE-TIME-PRESET)")
    factor = parser.add_argument_group("factors", "what the preset sets, unless given here").add_argument
    factor("--work-ms", type=positive, metavar="MS", help="CPU time of one request")
    factor("--work-units", type=count, metavar="N", help="units of one request; without, they are calibrated")
    factor("--cycles", type=count, metavar="N", help="cycles before claims are judged; below 12 few can be")
    factor("--more-cycles", type=whole, metavar="N", help="at most so many more if a claim is undecided")
    factor("--block-seconds", type=positive, metavar="SECONDS", help="measured length of a block")
    factor("--settle-seconds", type=positive, metavar="SECONDS", help="discarded beginning of a block")
    factor("--clients", type=count, metavar="N", help="clients of a block, per worker, in a closed loop")
    factor(
        "--overload", type=positive, metavar="X", help="load of an overload, times workers / S just measured"
    )
    factor(
        "--overload-seconds",
        type=positive,
        metavar="SECONDS",
        help="length of an overload, or of a ramp's phase",
    )
    factor("--overload-repeats", type=count, metavar="N", help="overloads of each variant")
    factor("--budget-seconds", type=positive, metavar="SECONDS", help="time after which no more cycles begin")
    factor("--accept-batch", type=count, metavar="N", help="connections accepted per turn of the loop")
    factor("--backlog", type=count, metavar="N", help="size of the kernel's accept queue")
    factor("--loop", choices=("uvloop", "asyncio"), help="event loop of the service")
    factor("--slo-seconds", type=positive, metavar="SECONDS", help="an answer later than this is not in time")
    factor("--timeout-seconds", type=positive, metavar="SECONDS", help="when a client gives up")
    factor("--seed", type=whole, metavar="N", help="of the order in which variants are measured")


def add_report(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `report RUN`: redraw what an experiment or a run measured."""
    parser = commands.add_parser(
        "report",
        help="redraw verdict and figures of a run folder",
        description="Judge and draw again from what is in the folder; nothing is measured.",
        epilog=EXIT_CODES_HELP,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_report)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `experiment` or `run --out` wrote")


def add_compare(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `compare A B`: what changed between two runs, and whether it is more than noise."""
    parser = commands.add_parser(
        "compare",
        help="compare two run folders",
        description="Say of each figure that two runs share: better, worse, or no difference beyond noise. "
        "Both folders come from `experiment`, or both from `run --out`.",
        epilog="Exit codes: 0 nothing got worse, 1 something did, 2 the folders cannot be compared.",
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_compare)
    parser.add_argument("a", type=Path, metavar="A", help="run folder before the change")
    parser.add_argument("b", type=Path, metavar="B", help="run folder after it")


def add_peers(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `peers`: our service beside the usual designs under overload."""
    parser = commands.add_parser(
        "peers",
        help="our service beside the usual designs under overload (12 minutes)",
        description="Keep all designs up and load them in turns, with the same work and clients that "
        "give up after 1 s; judge each by its ratios to ours in the same cycle. Needs the extra `peers`.",
        epilog=EXIT_CODES_HELP,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=_peers)
    add = parser.add_argument
    add("--works-ms", type=loads, default="0.5,4,40", metavar="X,X,...", help="CPU time of a request")
    add(
        "--times",
        type=loads,
        default="3,10",
        metavar="X,X,...",
        help="loads, as multiples of the limit (cores / S); where the generator can offer none of them on "
        "time, what it can",
    )
    add("--cycles", type=count, default=6, metavar="N", help="blocks of each design; 6 give an interval")
    add("--seconds", type=positive, default=1.5, metavar="SECONDS", help="measured in each block")
    add("--seed", type=int, default=1, metavar="N", help="of the order of the blocks")
    add(
        "--designs",
        type=_designs,
        default=",".join(peers_plan.TITLES),
        metavar="NAME,...",
        help="which to measure; offloop always is",
    )
    add("--json", type=Path, metavar="FILE", help="keep all figures there, and a drawing beside it")


def _designs(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in peers_plan.TITLES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(peers_plan.TITLES)}")
    return names


def _peers(arguments: argparse.Namespace) -> int:
    from loadtests.peers import race, report

    _forget_settings()
    results = race.race(
        race.Order(
            designs=peers_plan.with_ours(arguments.designs),
            works_ms=arguments.works_ms,
            times=arguments.times,
            cycles=arguments.cycles,
            measured_seconds=arguments.seconds,
            seed=arguments.seed,
        ),
        Console(stderr=True),
    )
    console = Console(width=None if sys.stdout.isatty() else 80)
    for table in report.tables(results):
        console.print(table, highlight=False)
    if arguments.json is not None:
        from loadtests.peers import figure  # matplotlib takes a second, and is needed for this alone

        write_json(arguments.json, results.to_json())
        figure.draw(results, arguments.json.with_suffix(".svg"))
    return INVALID if results.invalid else PASSED


def _forget_settings() -> None:
    """Take the service's variables out of the environment: the plan alone says how it is started."""
    for name in [name for name in os.environ if name.startswith("SERVICE_")]:
        del os.environ[name]


def _experiment(arguments: argparse.Namespace) -> int:
    started = datetime.now().astimezone()
    path = arguments.out or Path("runs") / f"{started:%Y%m%d-%H%M%S}-{arguments.preset}"
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Factors)}
    chosen = {name: value for name, value in given.items() if value is not None}
    factors = dataclasses.replace(PRESETS[arguments.preset].factors, **chosen)
    _forget_settings()
    console = Console(stderr=True)
    try:
        experiment.run(arguments.preset, factors, path, console)
    except KeyboardInterrupt:
        if (path / "summary.json").exists():
            console.print(f"Interrupted. Draw what was measured: python -m loadtests report {path}")
        raise
    return _draw(path)


def _report(arguments: argparse.Namespace) -> int:
    from loadtests.capacity import folder

    path = arguments.run
    if folder.holds_capacity(path):
        try:
            return _tell_capacity(folder.read(path), path)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return _redraw(path) if holds_run(path) else _draw(path)


def _redraw(path: Path) -> int:
    """Show again what `run --out` measured, and draw its pages."""
    from loadtests.load import page  # matplotlib takes a second that no other command should

    try:
        found = read_steps(path) if holds_steps(path) else read_run(path).summary
        drawn = page.draw(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    Console().print(render_steps(found) if isinstance(found, StepsSummary) else render(found))
    print(f"\nPage: {drawn}")
    return EXIT_CODES[found.state]


def _compare(arguments: argparse.Namespace) -> int:
    a, b = compare.load(arguments.a), compare.load(arguments.b)
    comparison = compare.compare(a, b)
    print(compare.as_text(a, b, comparison), end="")
    return MISSED if comparison.is_worse else PASSED


def _draw(path: Path) -> int:
    from loadtests.experiment import report  # matplotlib takes a second that no other command should

    summary, text = report.draw(RunFolder(path))
    print(text, end="")
    print(f"\nReport, figures and data: {path}")
    return INVALID if report.is_invalid(summary) else PASSED


def _run(arguments: argparse.Namespace) -> int:
    phases = phases_of(arguments)
    if not arguments.keep_alive:  # the ceiling is one of connections
        _warn_above_ceiling(max(phase.rate or 0.0 for phase in phases))
    order = Order(
        thresholds=arguments.threshold,
        slo_seconds=arguments.slo,
        keep=Keep(out=arguments.out, json=arguments.json, junit=arguments.junit),
        command=_typed(arguments),
        machine=machine_of(arguments),
    )
    found = run(phases[0], order) if len(phases) == 1 else run_steps(phases, order)
    return INTERRUPTED if found.interrupted else EXIT_CODES[found.state]


def _warn_above_ceiling(rate: float) -> None:
    from loadtests.capacity import self_test

    found = self_test.remembered(_ceiling_file())
    if found is not None and rate > found.per_second:
        print(
            f"{rate:g}/s is above what this generator sends on time, {found.per_second:,.0f}/s as "
            "`self-test` last found: the run is likely to be INVALID",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
