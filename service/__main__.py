"""The command `python -m service`: argv, environment and signals in, exit code out.

It imports next to nothing before the signal handlers are there: process 1 of a container does not even get a
SIGTERM that it has no handler for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys

from service.lifecycle.control import Control
from service.lifecycle.states import EXIT_FORCED, Event


def _listen_to_signals(control: Control) -> None:
    """Turn SIGTERM and SIGINT into orders to stop, SIGHUP into one to reload.

    Through `signal` and not the event loop, because a loop that is blocked does not hear, and a second
    signal must be heard then above all. A handler runs between two bytecodes of whatever blocks.
    """
    for number, why in ((signal.SIGTERM, Event.TERMINATE), (signal.SIGINT, Event.INTERRUPT)):
        signal.signal(number, functools.partial(_stop, control, why))
    signal.signal(signal.SIGHUP, lambda *_: control.reload())


def _stop(control: Control, why: Event, *_: object) -> None:
    control.stop(why)


def _force() -> None:
    # Not through the loop, and not through the log, which this very signal may have interrupted in a write.
    # Nor into a pipe that nobody empties. Workers see that their parent has gone and end within milliseconds.
    with contextlib.suppress(Exception):
        if select.select([], [2], [], 0)[1]:
            os.write(2, b"offloop: second signal: ended at once\n")
    os._exit(EXIT_FORCED)


def main() -> int:
    """Run the service; returns its exit code."""
    control = Control(_force)
    _listen_to_signals(control)
    from service.command import run  # the slow part: everything else is imported here

    return run(sys.argv[1:], os.environ, control)


if __name__ == "__main__":
    sys.exit(main())
