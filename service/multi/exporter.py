"""The exporter: a process of its own that publishes the metrics of all IO processes.

Two pipes connect it with gunicorn's arbiter, which looks after it (exporter_process.py). The read end of one
is the exporter's stdin. The arbiter holds the write end, each IO process inherits it by fork, and none of
them writes. So stdin reaches its end when the last of these processes has exited, however it exits, and only
then does the exporter exit. On the other, its stdout, it says every second that it still runs.

After SIGUSR2 there are two arbiters for a while, and two exporters on one folder. Each can publish the
metrics of all processes; the younger waits for the port. The last exporter removes the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final, TextIO

import structlog

from metrics.admin import Admin
from metrics.shared import Together
from service.config.settings import Settings
from service.config.sources import read_settings
from service.folder import remove_if_unused
from service.lifecycle.states import EXIT_CANNOT_START
from service.log.output import catch
from service.log.setup import configure_logging
from service.net.addresses import url

log = structlog.get_logger("offloop.exporter")

RETRY_SECONDS: Final = 0.05
"""Between two attempts to bind a port that the older exporter still has."""

PATIENCE_SECONDS: Final = 5.0
"""How long to retry if there is no older exporter. gunicorn retries as long for its own port."""

BEAT_SECONDS: Final = 1.0
"""Between two signs of life."""

TWO_HEARTBEATS_SECONDS: Final = 2.0
"""Of an IO process (lifecycle/run.py, which imports more than this process should load)."""

REMOVE_SECONDS: Final = 1.0
"""How long to wait for the last process to let go of the folder: it closes its pipe on its way out."""


def main(folder: Path, lost: str | None = None) -> int:
    """Publish the metrics in `folder` until stdin ends; returns the exit code: 0, or 2 if it cannot start.

    Args:
        lost: why the exporter before this one has ended. The arbiter cannot log it: it sees it in a signal
            handler.
    """
    # A terminal and a service manager send these to every process, and the exporter exits last.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = read_settings([])
    catch()  # without a thread: the arbiter waits for this process to say that it serves
    configure_logging(settings.log_format)
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    os.set_blocking(sys.stdout.fileno(), False)
    if lost:
        log.warning("exporter lost", reason=lost)
    with (folder / "exporters").open("a") as lock:  # each exporter of the folder holds it, shared
        alone = _is_alone(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        code = _publish(folder, settings, alone)
        end = time.monotonic() + REMOVE_SECONDS
        while code == 0 and _is_alone(lock) and not remove_if_unused(folder) and time.monotonic() < end:
            time.sleep(RETRY_SECONDS)
        return code


def _publish(folder: Path, settings: Settings, alone: bool) -> int:
    if not alone:
        _say()  # it may take longer than the arbiter should wait
    try:
        admin = _open(Together(folder, stall_seconds(settings)), settings, alone)
    except (OSError, UnicodeError) as error:
        address = url(settings.admin_host, settings.admin_port)
        log.error("cannot bind the admin address", address=address, reason=str(error))  # noqa: TRY400
        return EXIT_CANNOT_START
    if admin is not None:
        log.info("exporter ready", admin=url(*admin.address))
        _say()
        while not _stdin_ends_within(BEAT_SECONDS):
            _say()
        admin.close()
    return 0


def _open(together: Together, settings: Settings, alone: bool) -> Admin | None:
    """Serve as soon as the port is free; None if stdin has ended before that.

    Raises:
        OSError: the address cannot be bound, or its port has not become free in `PATIENCE_SECONDS` although
            no other exporter is there that may have it.
    """
    deadline = time.monotonic() + (PATIENCE_SECONDS if alone else math.inf)
    host, port = settings.admin_host, settings.admin_port
    while True:
        try:
            # That it answers is all that its liveness says: IO processes that hang are the arbiter's concern.
            return Admin(host, port, together.registry, lambda: (True, "ok"), together.ready)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        if _stdin_ends_within(RETRY_SECONDS):
            return None
        if not alone:
            _say()


def _say() -> None:
    """Give the arbiter a sign of life, if it listens."""
    with contextlib.suppress(OSError):  # the pipe is full, or the arbiter has gone
        os.write(sys.stdout.fileno(), b".")


def _stdin_ends_within(seconds: float) -> bool:
    """Wait for the end of stdin for so many seconds."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def stall_seconds(settings: Settings) -> float:
    """How old the last heartbeat of an IO process that counts as ready may be: two may be on their way."""
    return max(settings.loop_stall, TWO_HEARTBEATS_SECONDS)


def _is_alone(lock: TextIO) -> bool:
    """Whether no other exporter holds the lock. If one does, the call has given up its own hold on it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
