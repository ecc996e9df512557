"""The commands `capacity` and `self-test`: their flags, and how a result becomes an exit code.

Imports what a command needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.arguments import Arguments, Commands, add_command, count, positive
from loadtests.exits import INTERRUPTED, INVALID, PASSED, UsageError
from loadtests.load.flags import (
    add_machine_flags,
    add_request_flags,
    machine_of,
    request_of,
    run_as_typed,
)
from loadtests.load.values import success, threshold

if TYPE_CHECKING:
    from loadtests.capacity.results import Capacity


def add(commands: Commands) -> None:
    """Add both."""
    _add_capacity(commands)
    add_command(
        commands,
        "self-test",
        _self_test,
        help="find how many connections a second this generator makes on time",
        description="Send at higher and higher rates to a server that does nothing, until the generator is "
        "late (1 minute). The result is kept, and `run` warns when its rate is higher.",
        epilog="Exit codes: 0 found, 3 the machine is too busy for the generator to be on time at all.",
    )


def _add_capacity(commands: Commands) -> None:
    parser = add_command(
        commands,
        "capacity",
        _capacity,
        help="find how many requests a second a service can take",
        description="Search for the highest rate at which the service meets the SLO, by trials at fixed "
        "rates, and print the two rates between which it lies (3 minutes). If the service is offloop, loads "
        "are also given as a share of its limit, workers / S, where S (the service demand) is the CPU time "
        "of a request: this takes out the drift of the machine's speed.",
        epilog="Exit codes: 0 the capacity is bracketed, 2 the command cannot be run as typed, 3 INVALID or "
        "out of time, 130 interrupted.",
    )
    parser.add_argument("url", metavar="URL", help="http or https URL")
    add = parser.add_argument_group("search").add_argument
    add(
        "--slo",
        action="append",
        type=threshold,
        metavar="'p99<100ms'",
        help="what a rate must reach, like --threshold of `run`; repeatable (default: p99<100ms)",
    )
    add("--success", type=success, default="99%", metavar="SHARE", help="share of requests that must succeed")
    add("--clients", type=count, default=16, metavar="N", help="clients of the closed loop that comes first")
    add("--budget", type=positive, default=180, metavar="SECONDS", help="time after which no trial begins")
    add(
        "--admin-url",
        metavar="URL",
        help="admin endpoint of an offloop service (default: the next port, if it answers as one)",
    )
    add("--out", type=Path, metavar="DIR", help="folder for the result, with all trials and a page")
    add_request_flags(parser)
    add_machine_flags(parser)


def _capacity(arguments: Arguments) -> int:
    from rich.console import Console

    from loadtests.capacity import bench, folder
    from loadtests.capacity import run as capacity
    from loadtests.load.doctor import examined

    slo = (*(arguments.slo or [threshold("p99<100ms")]), arguments.success)
    if any(one.metric == "goodput" for one in slo):
        raise UsageError("goodput is no SLO of a capacity: give the latency that an answer may have")
    phase = request_of(arguments)
    examined([phase], run_as_typed(arguments))
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
    return _show(found, arguments.out)


def redraw(path: Path) -> int:
    """Show again what `capacity --out` found, and draw its page."""
    from loadtests.capacity import folder

    try:
        return _show(folder.read(path), path)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _show(found: Capacity, out: Path | None) -> int:
    from loadtests.capacity import tell

    for line in tell.lines(found):
        print(line)
    if out is not None:
        from loadtests.capacity import page  # matplotlib takes a second to import

        print(f"\nPage: {page.draw(out)}")
    if found.state == "interrupted":
        return INTERRUPTED
    return PASSED if found.state == "complete" else INVALID


def _self_test(arguments: Arguments) -> int:
    from rich.console import Console

    from loadtests.capacity import self_test
    from loadtests.load import ceiling

    with self_test.trials() as trial:
        found = self_test.measure(trial, Console(stderr=True))
    if found is None:
        print("INVALID: the generator was never on time; something else keeps this machine busy")
        return INVALID
    print(f"ceiling       {found.per_second:,.0f} connections/s on time, {found.above_per_second:,.0f}/s not")
    print(f"              above it: {found.why}")
    print(f"generator     {found.cpu_seconds * 1e6:.0f} us of CPU for one request")
    ceiling.keep(found, arguments.cache / ceiling.FILE)
    return PASSED
