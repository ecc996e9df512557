"""gunicorn's worker: one of several IO processes on one listener, each with the same `serve` as the command.

Knows gunicorn's contract: heartbeat, signals, exit codes. The arbiter reads the settings and prepares the
process (gunicorn_conf.py); forks inherit both. Loads no WSGI application and sets no event-loop policy.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar, Final

import structlog
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from metrics.shared import Sampler, SharedMetrics
from metrics.slots import Slot
from service.app.loading import StartError
from service.config.settings import Settings
from service.lifecycle.control import Control
from service.lifecycle.process import collect_less
from service.lifecycle.run import serve
from service.lifecycle.service import Service
from service.lifecycle.states import EXIT_CLEAN, EXIT_FORCED, Event
from service.log.output import Output
from service.loops import LOOPS
from service.multi.shares import ShareError, share

log = structlog.get_logger("offloop.worker")

FOR_THE_ARBITER: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals for the arbiter alone. A terminal sends the first and the last of them to every process."""


class IOProcess(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """One IO process: serves with its share of the settings until the arbiter stops it."""

    settings: ClassVar[Settings]
    """The settings of the whole service."""
    folder: ClassVar[Path]
    """The folder in which all IO processes write their metrics."""
    output: ClassVar[Output]
    """Of the log: the arbiter's, which each IO process has inherited."""
    alive: bool
    """gunicorn's flag: False once this process is to stop."""

    @staticmethod
    def check_config(cfg: Any, log: Any) -> None:  # noqa: ARG004  # gunicorn's signature
        """Refuse what gunicorn can be configured to do and the service cannot.

        Raises:
            RuntimeError: one sentence; gunicorn prints it and exits with 1.
        """
        if len(cfg.address) != 1 or not isinstance(cfg.address[0], (tuple, int)):
            raise RuntimeError("one TCP address can be served, not " + ", ".join(map(str, cfg.address)))
        if cfg.is_ssl:
            raise RuntimeError("for TLS set SERVICE_TLS_CERT and SERVICE_TLS_KEY, not --certfile")
        if IOProcess.settings.fd is not None:
            raise RuntimeError(
                "a socket is handed to gunicorn by LISTEN_FDS or --bind fd://3, not by SERVICE_FD"
            )
        if cfg.reuse_port:
            raise RuntimeError("--reuse-port loses what waits in the queue of a process that ends")
        try:
            share(IOProcess.settings, cfg.workers, cfg.graceful_timeout)
        except ShareError as error:
            raise RuntimeError(str(error)) from error

    def load_wsgi(self) -> None:
        """Load nothing: the settings name what is served."""

    def init_signals(self) -> None:
        """Replace the arbiter's handlers, which the fork has inherited.

        gunicorn sends SIGABRT to a process whose loop has not turned for its `timeout`: faulthandler writes
        the stack, and the process dies. SIGCHLD gets its default: here it concerns only what starts worker
        processes.
        """
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in FOR_THE_ARBITER:
            signal.signal(number, signal.SIG_IGN)
        self._control = Control(force=_force)
        signal.signal(signal.SIGTERM, lambda *_: self._stop(Event.TERMINATE))
        signal.signal(signal.SIGINT, lambda *_: self._stop(Event.INTERRUPT))
        signal.signal(signal.SIGQUIT, lambda *_: _force())
        faulthandler.enable()

    def run(self) -> None:
        """Serve until stopped, then exit with a code that the arbiter understands."""
        # multiprocessing makes a worker process run the script of its parent, which is gunicorn's here.
        vars(sys.modules["__main__"]).pop("__file__", None)
        structlog.contextvars.bind_contextvars(pid=self.pid)
        self.output.start()
        try:
            settings = share(self.settings, self.cfg.workers, self.cfg.graceful_timeout)
            self._metrics = SharedMetrics(Slot(self.folder))
            self.output.count(self._metrics.log_dropped.inc)
            sampler = Sampler(self._metrics)
            with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
                service = Service(settings, metrics=self._metrics, listener=self.sockets[0].sock, admin=False)
                code = runner.run(serve(service, self._control, started=collect_less, heartbeat=self._beat))
            sampler.close()
        except (StartError, ShareError) as error:
            code = self._cannot_start(error)
        if code == EXIT_CLEAN:
            sys.exit()
        # Work on a thread cannot be stopped, and a normal exit would wait for it beyond the deadline.
        self.output.flush()
        os._exit(code)

    def _cannot_start(self, error: Exception) -> int:
        """Halt the arbiter, or it would replace this process by another that cannot start either.

        Only the first IO process returns the code for that. The arbiter would meet a second one while it
        halts, and exit with a traceback.
        """
        try:
            (self.folder / f"halt-{self.ppid}").touch(exist_ok=False)
        except FileExistsError:
            return EXIT_FORCED
        log.error("cannot start", reason=str(error))
        return int(Arbiter.WORKER_BOOT_ERROR)

    def _beat(self, ready: bool, why: str) -> None:
        self.notify()
        self._metrics.slot.say(ready, why)
        if os.getppid() != self.ppid:
            self._stop_because(Event.INTERRUPT, "the arbiter has gone")
        elif self._metrics.answered >= self.max_requests:
            self._stop_because(Event.TERMINATE, "max requests")

    def _stop_because(self, why: Event, reason: str) -> None:
        if self.alive:
            log.info("ending", reason=reason)
            self._stop(why)

    def _stop(self, why: Event) -> None:
        # Once: the arbiter repeats its signal, and a service manager sends one to every process at once.
        if self.alive:
            self.alive = False
            self._control.stop(why)


def _force() -> None:
    os._exit(EXIT_FORCED)
