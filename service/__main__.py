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

from service.orders import Orders
from service.states import EXIT_FORCED, Event


def _listen_to_signals(orders: Orders) -> None:
    """Turn SIGTERM and SIGINT into orders to stop, SIGHUP into one to reload.

    Through `signal` and not the event loop, because a loop that is blocked does not hear, and a second
    signal must be heard then above all. A handler runs between two bytecodes of whatever blocks.
    """
    for number, why in ((signal.SIGTERM, Event.TERMINATE), (signal.SIGINT, Event.INTERRUPT)):
        signal.signal(number, functools.partial(_stop, orders, why))
    signal.signal(signal.SIGHUP, lambda *_: orders.reload())


def _stop(orders: Orders, why: Event, *_: object) -> None:
    orders.stop(why)


def _force() -> None:
    # Not through the loop, and not through the log, which this very signal may have interrupted in a write.
    # Nor into a pipe that nobody empties. Workers see that their parent has gone and end within milliseconds.
    with contextlib.suppress(Exception):
        if select.select([], [2], [], 0)[1]:
            os.write(2, b"offloop: second signal: ended at once\n")
    os._exit(EXIT_FORCED)


def main() -> int:
    """Run the service; returns its exit code."""
    orders = Orders(_force)
    _listen_to_signals(orders)
    from service.command import run  # the slow part: everything else is imported here

    return run(sys.argv[1:], os.environ, orders)


if __name__ == "__main__":
    sys.exit(main())
