"""The command line of the instrument: argv and environment in, exit code out.

Knows which rooms have commands and what each error means to the shell. Never measures: each command hands
over to its room.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from loadtests import report
from loadtests.arguments import EXIT_CODES_HELP, Handler, Parser
from loadtests.capacity import commands as capacity
from loadtests.exits import INTERRUPTED, INVALID, USAGE, BrokenError, UsageError
from loadtests.experiment import commands as experiment
from loadtests.load import commands as load
from loadtests.peers import commands as peers


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = Parser(
        prog="python -m loadtests",
        description="Measure an HTTP service: under an open load, at its capacity, beside others.",
        epilog=EXIT_CODES_HELP,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for room in (load, capacity, experiment, report, peers):
        room.add(commands)
    arguments = parser.parse_args(argv)
    arguments.words = sys.argv[1:] if argv is None else list(argv)
    arguments.cache = _cache()
    _forget_settings()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a cancelled job cleans up as well
        signal.signal(number, _end)
    handler: Handler = arguments.handler
    try:
        return handler(arguments)
    except (UsageError, BrokenError) as error:
        print(f"python -m loadtests: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else INVALID
    except KeyboardInterrupt as end:
        return 128 + end.number if isinstance(end, _Ended) else INTERRUPTED


class _Ended(KeyboardInterrupt):
    """A signal that asks the command to stop, treated like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _end(number: int, _: object) -> NoReturn:
    raise _Ended(number)


def _cache() -> Path:
    """The folder for what is kept between commands on this machine (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offloop"


def _forget_settings() -> None:
    """Take the service's variables out of the environment: the plan alone says how a service is started."""
    for name in [name for name in os.environ if name.startswith("SERVICE_")]:
        del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
