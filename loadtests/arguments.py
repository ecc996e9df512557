"""What the arguments of all commands have in common: the parser, its kinds of values, how it reports errors.

The only module that knows argparse. Each room declares its own commands with this, in a module that imports
little: a command pays for its own libraries only.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from loadtests.exits import USAGE

EXIT_CODES_HELP: Final = (
    "Exit codes: 0 passed, 1 a threshold was missed, 2 the command cannot be run as typed, "
    "3 the run is INVALID (the generator or the machine was the bottleneck, or there are too few samples), "
    "130 interrupted."
)

Arguments = argparse.Namespace
WrongValue = argparse.ArgumentTypeError
"""What a kind of value raises; the message is one clause that names the value."""

Handler = Callable[[Arguments], int]
"""Runs a command and returns its exit code."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag or value in one sentence, without the usage page."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(USAGE, f"{self.prog}: {message} (see --help)\n")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Appends the default to each help text, unless it is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]
else:
    Commands = argparse._SubParsersAction  # generic in the stubs alone


def add_command(
    commands: Commands, name: str, handler: Handler, *, help: str, description: str, epilog: str
) -> Parser:
    """Add one command; returns its parser, for its flags."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=handler)
    return parser


def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise WrongValue(f"{text!r} is not a positive number")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise WrongValue(f"{text!r} is not a whole number of at least 1")
    return int(text)


def whole(text: str) -> int:
    """A whole number."""
    if not text.isdecimal():
        raise WrongValue(f"{text!r} is not a whole number")
    return int(text)


def several(text: str) -> tuple[float, ...]:
    """Positive numbers, separated by commas."""
    return tuple(positive(part) for part in text.split(","))
