"""The command from its arguments to its exit code, once its signal handlers are installed.

Knows settings and the event loop's runner. Reads neither argv nor the environment: it is given both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from service.app.loading import StartError
from service.config.settings import Settings
from service.config.sources import listing, read
from service.lifecycle.control import Control
from service.lifecycle.process import EXIT_SECONDS, collect_less, end_within, prepare_process
from service.lifecycle.run import serve
from service.lifecycle.service import Service
from service.lifecycle.states import EXIT_CANNOT_START, EXIT_CLEAN
from service.loops import LOOPS
from service.net.listener import adopt

FAILED_EXIT_SECONDS = 0.1
"""As EXIT_SECONDS, after a failed start, or a stop that has already waited for its whole deadline."""


def run(
    argv: Sequence[str],
    environ: MutableMapping[str, str],
    control: Control,
    each_second: Callable[[bool, str], object] | None = None,
) -> int:
    """Run the service as the settings say, until `control` or a failure stops it.

    Args:
        each_second: called once a second while the event loop turns, with readiness and its reason.

    Returns:
        0 clean, 1 drain deadline hit, 2 cannot start, 3 listener broken. For 2 stderr holds the reasons.

    Raises:
        SystemExit: 0, --help was asked for and has been printed.
    """
    try:
        reading = read(argv)
    except ValueError as error:
        return _cannot_start(str(error))
    if reading.show:
        print(listing(reading, colors=sys.stdout.isatty() and not environ.get("NO_COLOR")))
        for line in reading.unknown_variables:
            print(f"offloop: {line}", file=sys.stderr)
        return EXIT_CLEAN
    settings = reading.settings
    try:
        listener = _inherited_listener(settings, environ)
    except ValueError as error:
        return _cannot_start(str(error))
    output = prepare_process(reading, environ)
    output.start()
    with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
        try:
            service = Service(settings, listener=listener)
            service.metrics.log_dropped.set_function(lambda: output.dropped)
            code = runner.run(
                serve(
                    service,
                    control,
                    reread=lambda: read(argv).settings,
                    started=collect_less,
                    heartbeat=each_second,
                )
            )
        except StartError as error:
            code = _cannot_start(str(error))
        # The service has stopped: no signal may change the exit code, and no thread left behind may delay it.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        seconds = EXIT_SECONDS if code == EXIT_CLEAN else FAILED_EXIT_SECONDS
        end_within(seconds, output, code)
    return code


def _cannot_start(sentences: str) -> int:
    for sentence in sentences.splitlines():
        print(f"offloop: {sentence}", file=sys.stderr)
    return EXIT_CANNOT_START


def _inherited_listener(settings: Settings, environ: Mapping[str, str]) -> socket.socket | None:
    """The listening socket that this process inherited, if it did.

    Call it before anything opens a file: if the descriptor is not open, its number would soon name another.

    Raises:
        ValueError: it cannot be served; one sentence.
    """
    fd = settings.fd or systemd_listener(environ, os.getpid())
    if fd is None:
        return None
    try:
        return adopt(fd)
    except OSError as error:
        raise ValueError(f"--fd {fd} cannot be served: {error.strerror}") from error


def systemd_listener(environ: Mapping[str, str], pid: int) -> int | None:
    """The descriptor of the listening socket that systemd has passed to process `pid`, if it has.

    Source: sd_listen_fds(3).

    Raises:
        ValueError: there are several; one sentence.
    """
    count = environ.get("LISTEN_FDS", "0")
    if environ.get("LISTEN_PID") != str(pid) or count == "0":
        return None
    if count != "1":
        raise ValueError(f"LISTEN_FDS: one socket can be served, not {count}")
    return 3  # SD_LISTEN_FDS_START
