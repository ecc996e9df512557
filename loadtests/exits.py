"""How a command ends: the exit codes, and the errors that lead to two of them. Knows no command."""

from typing import Final

PASSED, MISSED, USAGE, INVALID, INTERRUPTED = 0, 1, 2, 3, 130

OF_STATE: Final = {"ok": PASSED, "missed": MISSED, "invalid": INVALID}
"""The exit code of a run, by the state of its summary."""


class UsageError(Exception):
    """The command cannot be run as typed; the message is one sentence for the user."""


class BrokenError(Exception):
    """A part of the measurement failed, so there is no result; the message is one sentence for the user."""
