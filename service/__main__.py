"""The command `python -m service`: argv in, exit code out.

The only place that reads argv, and that chooses an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import structlog

from service import logs
from service.loading import StartError
from service.loops import LOOPS
from service.orders import Orders
from service.serve import (
    EXIT_CANNOT_START,
    EXIT_CLEAN,
    EXIT_DRAIN_DEADLINE,
    EXIT_FORCED,
    EXIT_LISTENER_BROKEN,
    serve,
)
from service.settings import Settings
from service.sources import listing, read
from service.states import Event
from service.tokens import raise_open_files

log = structlog.get_logger("offloop")


def handed_over(environ: Mapping[str, str], pid: int) -> int | None:
    """The descriptor of the socket that systemd has handed to this process (sd_listen_fds(3)), if it has.

    Raises:
        ValueError: there are several.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return None
    if environ.get("LISTEN_FDS") != "1":
        raise ValueError(f"LISTEN_FDS: one socket can be served, not {environ.get('LISTEN_FDS')}")
    return 3  # SD_LISTEN_FDS_START


def with_listener(settings: Settings) -> Settings:
    """The settings with the socket that was handed over, if one was.

    Raises:
        ValueError: there are several.
    """
    fd = settings.fd or handed_over(os.environ, os.getpid())
    return settings.model_copy(update={"fd": fd})


def listen_to_signals(orders: Orders) -> None:
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
    # Not through the loop, not through the log, which this very signal may have interrupted in a write.
    # Workers see that their parent has gone and end within milliseconds.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), b"offloop: second signal: ended at once\n")
    os._exit(EXIT_FORCED)


def main(argv: Sequence[str]) -> int:
    """Run the service; returns 0 clean, 1 drain deadline hit, 2 cannot start, 3 listener broken."""
    # When we end without cleaning up, this helper of multiprocessing does, and would say so at length.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    orders = Orders(_force)
    listen_to_signals(orders)
    try:
        reading = read(argv)
        settings = with_listener(reading.settings)
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"offloop: {line}", file=sys.stderr)
        return EXIT_CANNOT_START
    if reading.show:
        print(listing(reading, colors=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
        for line in reading.strangers:
            print(f"offloop: {line}", file=sys.stderr)
        return EXIT_CLEAN
    # The interpreter lets a thread wait 5 ms for the GIL each time it needs it. The admin thread needs it
    # about ten times per scrape, so while inline work computes, a scrape took 58 ms; with 1 ms it is 15.
    sys.setswitchinterval(0.001)
    raise_open_files()  # before the workers: they inherit it
    logs.configure(settings.log_format)
    if reading.strangers:
        log.warning("unknown variables", ignored=reading.strangers)
    with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
        try:
            code = runner.run(serve(settings, orders, reread=lambda: with_listener(read(argv).settings)))
        except StartError as error:
            print(f"offloop: {error}", file=sys.stderr)
            return EXIT_CANNOT_START
    if code in (EXIT_DRAIN_DEADLINE, EXIT_LISTENER_BROKEN):
        # Work in a thread cannot be stopped, and a normal exit would wait for it beyond the deadline.
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
