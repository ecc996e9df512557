"""gunicorn's worker: one of several IO processes, on one listener, through the same `serve` as the command.

Knows gunicorn's contract: heartbeat, signals, exit codes. What all processes need is read and made by the
arbiter (gunicorn_conf.py) and inherited by fork. Loads no WSGI application and sets no event-loop policy.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
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
from service.lifecycle.run import serve
from service.lifecycle.states import EXIT_CLEAN, EXIT_FORCED, Event
from service.loops import LOOPS
from service.multi.shares import ShareError, share
from service.net.connection_limit import raise_open_files

log = structlog.get_logger("offloop.worker")

ARBITERS_ALONE: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals that mean something to the arbiter. A terminal sends the first and the last to every process."""


class IOProcess(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """One IO process: `serve` with its share of the settings, until the arbiter says stop."""

    settings: ClassVar[Settings]
    """Of the whole service."""
    folder: ClassVar[Path]
    """Of the metrics of all processes."""
    alive: bool

    @staticmethod
    def check_config(cfg: Any, log: Any) -> None:  # noqa: ARG004  # gunicorn's signature
        """Refuse what gunicorn can do and we cannot.

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
        """There is none: what we serve is named by the settings."""

    def init_signals(self) -> None:
        """Take over from the arbiter, whose handlers a fork has left here.

        SIGABRT is what gunicorn sends to a process whose loop has not turned for its `timeout`: it says
        where it stands, and dies. SIGCHLD is for whoever starts processes here.
        """
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in ARBITERS_ALONE:
            signal.signal(number, signal.SIG_IGN)
        self._control = Control(force=_force)
        signal.signal(signal.SIGTERM, lambda *_: self._stop(Event.TERMINATE))
        signal.signal(signal.SIGINT, lambda *_: self._stop(Event.INTERRUPT))
        signal.signal(signal.SIGQUIT, lambda *_: _force())
        faulthandler.enable()

    def run(self) -> None:
        """Serve to the end, and end with the exit code that the arbiter understands."""
        # A worker process runs the script that its parent was started from. Ours has no use for gunicorn's.
        vars(sys.modules["__main__"]).pop("__file__", None)
        structlog.contextvars.bind_contextvars(pid=self.pid)
        raise_open_files()
        try:
            settings = share(self.settings, self.cfg.workers, self.cfg.graceful_timeout)
            self._metrics = SharedMetrics(Slot(self.folder))
            sampler = Sampler(self._metrics)
            with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
                code = runner.run(
                    serve(
                        settings,
                        self._control,
                        listener=self.sockets[0].sock,
                        metrics=self._metrics,
                        admin=False,
                        heartbeat=self._beat,
                    )
                )
            sampler.close()
        except (StartError, ShareError) as error:
            code = self._cannot_start(error)
        if code == EXIT_CLEAN:
            sys.exit()
        # Work in a thread cannot be stopped, and a normal exit would wait for it beyond the deadline.
        logging.shutdown()
        os._exit(code)

    def _cannot_start(self, error: Exception) -> int:
        """Halt the arbiter, or it would start another that cannot start either.

        One of us says so: a second such exit code would meet it in its halt, and end it with a traceback.
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
            self._end(Event.INTERRUPT, "the arbiter has gone")
        elif self._metrics.answered >= self.max_requests:
            self._end(Event.TERMINATE, "max requests")

    def _end(self, why: Event, reason: str) -> None:
        if self.alive:
            log.info("ending", reason=reason)
            self._stop(why)

    def _stop(self, why: Event) -> None:
        # Once: the arbiter says it again and again, and a service manager to every process at the same time.
        if self.alive:
            self.alive = False
            self._control.stop(why)


def _force() -> None:
    os._exit(EXIT_FORCED)
