"""The exporter: a process of its own that publishes the metrics of all IO processes.

gunicorn's arbiter starts and stops it by `Exporter`; the rest of this module runs in the exporter itself. A
pipe connects them: its read end is the exporter's stdin. The arbiter holds the write end, each IO process
inherits it by fork, and none of them writes. So stdin reaches its end when the last of these processes has
exited, however it exits, and only then does the exporter exit.

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
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, TextIO

import structlog

from metrics.admin import Admin
from metrics.shared import Together
from service.config.settings import Settings
from service.config.sources import read_settings
from service.lifecycle.states import EXIT_CANNOT_START
from service.log.output import catch
from service.log.setup import configure_logging
from service.net.addresses import url

log = structlog.get_logger("offloop.exporter")

RETRY_SECONDS: Final = 0.05
"""Between two attempts to bind a port that the older exporter still has."""

PATIENCE_SECONDS: Final = 5.0
"""How long to retry if there is no older exporter. gunicorn retries as long for its own port."""

STOP_SECONDS: Final = 5.0
"""How long the arbiter waits for the exporter to exit, which takes milliseconds."""


class Exporter:
    """The exporter's process, as the arbiter starts and stops it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, folder: Path) -> bool:
        """Start it, and wait until it serves or waits for an older exporter's port.

        Args:
            folder: where the IO processes write their metrics.

        Returns:
            False if it could not start; it has logged why.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.multi.exporter", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        with self._process.stdout as output:
            return bool(output.readline())

    def restart_if_dead(self, folder: Path) -> None:
        """Start it again if it has exited."""
        if self._process is not None and self._process.poll() is not None:
            self.start(folder)

    def stop(self) -> None:
        """Let it exit once all IO processes have, and wait for that; then its port is free."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)


def main(folder: Path) -> int:
    """Publish the metrics in `folder` until stdin ends; returns the exit code: 0, or 2 if it cannot start."""
    # A terminal and a service manager send these to every process, and the exporter exits last.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = read_settings([])
    catch()  # without a thread: the arbiter waits for this process to say that it serves
    configure_logging(settings.log_format)
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    with (folder / "exporters").open("a") as lock:  # each exporter of the folder holds it, shared
        alone = _is_alone(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            return _publish(folder, settings, alone)
        finally:
            if _is_alone(lock):
                shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, settings: Settings, alone: bool) -> int:
    if not alone:
        print("waiting", flush=True)  # it may take longer than the arbiter should wait
    try:
        admin = _open(Together(folder), settings, PATIENCE_SECONDS if alone else math.inf)
    except (OSError, UnicodeError) as error:
        address = url(settings.admin_host, settings.admin_port)
        log.error("cannot bind the admin address", address=address, reason=str(error))  # noqa: TRY400
        return EXIT_CANNOT_START
    if admin is not None:
        log.info("exporter ready", admin=url(*admin.address))
        if alone:
            print("ready", flush=True)
        while not _stdin_ends_within(None):
            pass
        admin.close()
    return 0


def _open(together: Together, settings: Settings, patience_seconds: float) -> Admin | None:
    """Serve as soon as the port is free; None if stdin has ended before that.

    Raises:
        OSError: the address cannot be bound, or its port has not become free in `patience_seconds`.
    """
    deadline = time.monotonic() + patience_seconds
    host, port = settings.admin_host, settings.admin_port
    while True:
        try:
            return Admin(host, port, together.registry, lambda: (True, "ok"), together.ready)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        if _stdin_ends_within(RETRY_SECONDS):
            return None


def _stdin_ends_within(seconds: float | None) -> bool:
    """Wait for the end of stdin for so many seconds; None: for as long as it takes."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _is_alone(lock: TextIO) -> bool:
    """Whether no other exporter holds the lock. If one does, the call has given up its own hold on it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
