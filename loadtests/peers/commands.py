"""The command `peers`: its flags, and how a result becomes an exit code.

Imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from loadtests.arguments import (
    EXIT_CODES_HELP,
    Arguments,
    Commands,
    WrongValue,
    add_command,
    count,
    positive,
    several,
)
from loadtests.exits import INVALID, PASSED
from loadtests.peers.plan import TITLES, with_ours


def add(commands: Commands) -> None:
    """Add it."""
    parser = add_command(
        commands,
        "peers",
        _peers,
        help="compare offloop with the usual designs under overload (30 minutes)",
        description="Start all designs and load them in turn, with the same work and with clients that give "
        "up after 1 s; judge each by its ratio to offloop in the same cycle. Needs the extra `peers`.",
        epilog=EXIT_CODES_HELP,
    )
    add = parser.add_argument
    add("--works-ms", type=several, default="0.5,4,40", metavar="X,X,...", help="CPU time of a request")
    add(
        "--times",
        type=several,
        default="3,10",
        metavar="X,X,...",
        help="loads, as multiples of the limit (cores / S); the highest that the generator can send on time "
        "takes the place of all above it",
    )
    add("--cycles", type=count, default=6, metavar="N", help="blocks of each design; an interval takes 6")
    add("--seconds", type=positive, default=1.5, metavar="SECONDS", help="measured length of a block")
    add("--seed", type=int, default=1, metavar="N", help="seed of the order of the blocks")
    add(
        "--designs",
        type=_designs,
        default=",".join(TITLES),
        metavar="NAME,...",
        help="which to measure; offloop is always one of them",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON, and a drawing beside them")


def _designs(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in TITLES:
            raise WrongValue(f"{name!r} is none of {', '.join(TITLES)}")
    return names


def _peers(arguments: Arguments) -> int:
    from rich.console import Console

    from loadtests.files import write_json
    from loadtests.peers import race, report

    results = race.race(
        race.Order(
            designs=with_ours(arguments.designs),
            works_ms=arguments.works_ms,
            times=arguments.times,
            cycles=arguments.cycles,
            measured_seconds=arguments.seconds,
            seed=arguments.seed,
            cache=arguments.cache,
        ),
        Console(stderr=True),
    )
    console = Console(width=None if sys.stdout.isatty() else 80)
    for table in report.tables(results):
        console.print(table, highlight=False)
    if arguments.json is not None:
        from loadtests.peers import figure  # matplotlib takes a second to import

        write_json(arguments.json, results.to_json())
        figure.draw(results, arguments.json.with_suffix(".svg"))
    return INVALID if results.invalid else PASSED
