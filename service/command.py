"""The command from its arguments to its exit code, once its signals are heard.

Knows settings, logs and the event loop's runner. Reads neither argv nor the environment: it is given both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, MutableMapping, Sequence

import structlog

from service.app.loading import StartError
from service.config.settings import Settings
from service.config.sources import listing, read
from service.lifecycle.control import Control
from service.lifecycle.run import serve
from service.lifecycle.states import EXIT_CANNOT_START, EXIT_CLEAN
from service.log import setup as logs
from service.loops import LOOPS
from service.net.connection_limit import raise_open_files
from service.net.listener import adopt

log = structlog.get_logger("offloop")

LAST_SECONDS = 1.0
"""How long, after the service has stopped, threads may go on that it knows nothing of: an application's own.
The interpreter would wait for them for ever."""


def run(argv: Sequence[str], environ: MutableMapping[str, str], control: Control) -> int:
    """Run the service; returns 0 clean, 1 drain deadline hit, 2 cannot start, 3 listener broken."""
    # When we end without cleaning up, this helper of multiprocessing does, and would say so at length.
    environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
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
        listener = _listener(settings, environ)
    except ValueError as error:
        return _cannot_start(str(error))
    # The interpreter lets a thread wait 5 ms for the GIL each time it needs it. The admin thread needs it
    # about ten times per scrape, so while inline work computes, a scrape took 58 ms; with 1 ms it is 15.
    sys.setswitchinterval(0.001)
    raise_open_files()  # before the workers: they inherit it
    logs.configure(settings.log_format)
    if reading.unknown_variables:
        log.warning("unknown variables", ignored=reading.unknown_variables)
    with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
        try:
            code = runner.run(serve(settings, control, reread=lambda: read(argv).settings, listener=listener))
        except StartError as error:
            code = _cannot_start(str(error))
        # It is over: no signal may change the exit code now, and nothing that was left behind may hold it up.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        last = threading.Timer(LAST_SECONDS if code == EXIT_CLEAN else 0.1, os._exit, (code,))
        last.daemon = True
        last.start()
    return code


def _cannot_start(sentences: str) -> int:
    for sentence in sentences.splitlines():
        print(f"offloop: {sentence}", file=sys.stderr)
    return EXIT_CANNOT_START


def _listener(settings: Settings, environ: Mapping[str, str]) -> socket.socket | None:
    """The socket that was handed over, if one was; first of all, for its number may soon mean something else.

    Raises:
        ValueError: it cannot be served; one sentence.
    """
    fd = settings.fd or handed_over(environ, os.getpid())
    if fd is None:
        return None
    try:
        return adopt(fd)
    except OSError as error:
        raise ValueError(f"--fd {fd} cannot be served: {error.strerror}") from error


def handed_over(environ: Mapping[str, str], pid: int) -> int | None:
    """The descriptor of the socket that systemd has handed to this process (sd_listen_fds(3)), if it has.

    Raises:
        ValueError: there are several.
    """
    count = environ.get("LISTEN_FDS", "0")
    if environ.get("LISTEN_PID") != str(pid) or count == "0":
        return None
    if count != "1":
        raise ValueError(f"LISTEN_FDS: one socket can be served, not {count}")
    return 3  # SD_LISTEN_FDS_START
