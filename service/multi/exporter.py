"""The exporter: a process of its own that publishes the metrics of all IO processes.

`Exporter` is how gunicorn's arbiter starts it and keeps it up, the rest is what it does. The two share a
pipe: its stdin. The arbiter holds the other end, and so does, through fork, each of its IO processes; nobody
writes. So it ends when the last of them has, and is scraped until then, however they end.

After SIGUSR2 there are two arbiters for a while, and two exporters on one folder. Each can speak for all
processes; the younger waits for the port. The last one removes the folder.
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
from service.log import setup as logs

log = structlog.get_logger("offloop.exporter")

AGAIN_SECONDS: Final = 0.05
"""How often it is looked whether the older exporter has left the port."""

PATIENCE_SECONDS: Final = 5.0
"""How long a port in use may stay so if there is no older exporter. gunicorn waits as long for its own."""

END_SECONDS: Final = 5.0
"""How long the arbiter waits for its end, which takes milliseconds."""

EXIT_CANNOT_START: Final = 2  # as of the service, which is too much to import for a number


class Exporter:
    """The exporter as the arbiter sees it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, folder: Path) -> bool:
        """Start it; False if it could not start, and has said why."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.multi.exporter", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        with self._process.stdout as said:
            return bool(said.readline())

    def keep_up(self, folder: Path) -> None:
        """Start it again if it has died."""
        if self._process is not None and self._process.poll() is not None:
            self.start(folder)

    def end(self) -> None:
        """Let it end, once all IO processes have; afterwards its port is free."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)


def main(folder: Path) -> int:
    """Publish until stdin ends; returns 0, or 2 if that was not possible."""
    # A terminal and a service manager send these to every process: it goes when the others have gone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = read_settings([])
    logs.configure(settings.log_format)
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    with (folder / "exporters").open("a") as tenants:
        alone = _is_alone(tenants)
        fcntl.flock(tenants, fcntl.LOCK_SH)
        try:
            return _publish(folder, settings, alone)
        finally:
            if _is_alone(tenants):
                shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, settings: Settings, alone: bool) -> int:
    if not alone:
        print("waiting", flush=True)  # for longer than the arbiter should
    try:
        admin = _open(Together(folder), settings, PATIENCE_SECONDS if alone else math.inf)
    except (OSError, UnicodeError) as error:
        address = _url(settings.admin_host, settings.admin_port)
        log.error("cannot bind the admin address", address=address, reason=str(error))  # noqa: TRY400
        return EXIT_CANNOT_START
    if admin is not None:
        log.info("exporter ready", admin=_url(*admin.address))
        if alone:
            print("ready", flush=True)
        while not _has_ended(None):
            pass
        admin.close()
    return 0


def _open(together: Together, settings: Settings, patience_seconds: float) -> Admin | None:
    """Serve as soon as the port is free; None if stdin has ended before that."""
    deadline = time.monotonic() + patience_seconds
    host, port = settings.admin_host, settings.admin_port
    while True:
        try:
            return Admin(host, port, together.registry, lambda: (True, "ok"), together.ready)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        if _has_ended(AGAIN_SECONDS):
            return None


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _has_ended(seconds: float | None) -> bool:
    """Whether stdin ends within so many seconds."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _is_alone(tenants: TextIO) -> bool:
    """Whether no other exporter has the folder. If one has, our own lock is open now."""
    try:
        fcntl.flock(tenants, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
