"""gunicorn's worker: one of several IO processes on one listener, each with the same `serve` as the command.

Knows gunicorn's contract: heartbeat, signals, exit codes. The arbiter reads settings and certificates and
prepares the process (gunicorn_conf.py); forks inherit all of it. Loads no WSGI application and sets no
event-loop policy.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

import structlog
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from metrics.shared import Sampler, SharedMetrics
from metrics.slots import Slot
from service.app.loading import StartError
from service.config.settings import Settings
from service.lifecycle.control import Control
from service.lifecycle.process import EXIT_SECONDS, collect_less, end_within
from service.lifecycle.run import serve
from service.lifecycle.service import Service
from service.lifecycle.states import EXIT_CLEAN, EXIT_FORCED, Event, State
from service.log.output import Output
from service.loops import LOOPS
from service.multi.exporter import stall_seconds
from service.multi.shares import ShareError, share
from service.multi.siblings import Siblings, Unready
from service.multi.starts import Starts, pause_seconds
from service.net.listener import Listener
from service.offload.fork_server import remove_directory
from service.web.connection import Tls

log = structlog.get_logger("offloop.worker")

FOR_THE_ARBITER: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals for the arbiter alone. A terminal sends the first and the last of them to every process."""

ENDING: Final = frozenset({State.LAME_DUCK.value, State.DRAINING.value, State.STOPPED.value})
"""Why an IO process that ends anyway is not ready."""

PAUSE_STEP_SECONDS: Final = 0.1
"""How soon a process that waits for its next try sees that it is to end."""


class IOProcess(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """One IO process: serves with its share of the settings until the arbiter stops it."""

    settings: ClassVar[Settings]
    """The settings of the whole service."""
    tls: ClassVar[Tls | None]
    """How to encrypt. The forks share one context: a session that one of them began is good at the others."""
    folder: ClassVar[Path]
    """The folder in which all IO processes write their metrics."""
    starts: ClassVar[Starts]
    """How the starts of all IO processes of this arbiter go."""
    output: ClassVar[Output]
    """Of the log: the arbiter's, which each IO process has inherited."""
    alive: bool
    """gunicorn's flag: False once this process is to stop."""
    generation: int
    """Which SIGHUP started it: see `Starts`."""

    def __init__(self, *arguments: Any) -> None:
        """Called by the arbiter, just before the fork."""
        super().__init__(*arguments)
        self._control = Control(force=_force)
        self.generation = self.starts.generation
        self._is_ready = False
        self._is_replaced = False
        self._metrics: SharedMetrics | None = None
        self._unready = Unready()

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
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: self._terminate())
        signal.signal(signal.SIGINT, lambda *_: self._stop(Event.INTERRUPT))
        signal.signal(signal.SIGQUIT, lambda *_: _force())
        faulthandler.enable()

    def init_process(self) -> None:
        """Start and serve. A start that fails ends this process, and with it no other one."""
        self.init_signals()  # else this process, which may fail from here on, would hear no signal meanwhile
        structlog.contextvars.bind_contextvars(pid=self.pid)
        self.output.start()
        try:
            super().init_process()
        except Exception as error:
            if self._is_ready:
                raise  # gunicorn logs it, and starts another one
            self._exit(self._cannot_start(error))

    def run(self) -> None:
        """Serve until stopped, then exit with a code that the arbiter understands."""
        # multiprocessing makes a worker process run the script of its parent, which is gunicorn's here.
        vars(sys.modules["__main__"]).pop("__file__", None)
        settings = share(self.settings, self.cfg.workers, self.cfg.graceful_timeout)
        self._metrics = SharedMetrics(Slot(self.folder))
        self._metrics.log_dropped.set_function(lambda: self.output.dropped)
        sampler = Sampler(self._metrics)
        with asyncio.Runner(loop_factory=LOOPS[settings.loop]) as runner:
            service = Service(
                settings,
                metrics=self._metrics,
                listener=Listener(self.sockets[0].sock),
                admin=False,
                tls=self.tls,
            )
            code = runner.run(serve(service, self._control, started=self._started, heartbeat=self._beat))
        sampler.close()
        self._exit(code)

    def _exit(self, code: int) -> NoReturn:
        if code == EXIT_CLEAN:
            end_within(EXIT_SECONDS, self.output, code)
            sys.exit()
        # Work on a thread cannot be stopped, and a normal exit would wait for it beyond the deadline.
        self.output.flush()
        remove_directory()
        os._exit(code)

    def _started(self) -> None:
        self._is_ready = True
        self.starts.succeed()
        collect_less()

    def _cannot_start(self, error: Exception) -> int:
        """Wait before the arbiter replaces this process by another; returns the exit code.

        If no IO process of this arbiter has ever been ready, the first that fails halts it instead: no other
        one will be able to start either. A second exit code of that kind would meet the arbiter while it
        halts, and end it with a traceback.
        """
        if not self.alive:  # it was told to end meanwhile, and the arbiter may be halting already
            return EXIT_CLEAN
        failures = self.starts.fail()
        halts = not self.starts.any_ready and self.starts.may_halt()
        if halts or self.starts.any_ready:
            is_expected = isinstance(error, (StartError, ShareError))
            reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
            log.error("cannot start", reason=reason, exc_info=None if is_expected else error)
        if halts:
            return int(Arbiter.WORKER_BOOT_ERROR)
        if self._metrics is not None:
            self._metrics.slot.say(False, "cannot start")
        return self._pause(pause_seconds(failures))

    def _pause(self, seconds: float) -> int:
        # Without a heartbeat: gunicorn holds no process for stuck before its first one. After it, a machine
        # that stands still for `timeout` would kill this one.
        end = time.monotonic() + seconds
        while self.alive and os.getppid() == self.ppid:
            if time.monotonic() > end:
                return EXIT_FORCED
            time.sleep(PAUSE_STEP_SECONDS)
        return EXIT_CLEAN

    def _beat(self, ready: bool, why: str) -> None:
        self.notify()
        assert self._metrics is not None
        self._metrics.slot.say(ready, why)
        if self._is_replaced and self._is_dispensable():
            self._stop(Event.TERMINATE)
        if os.getppid() != self.ppid:
            self._stop_because(Event.INTERRUPT, "the arbiter has gone")
        elif self._metrics.answered >= self.max_requests:
            self._stop_because(Event.TERMINATE, "max requests")
        elif self._unready.too_long(ready or why in ENDING) and self._may_leave(1):
            # It takes its share of the connections, and the exporter's readiness is that of any: nobody else
            # would end it. Without notice, as no balancer is to look elsewhere.
            self._stop_because(Event.INTERRUPT, f"not ready: {why}")

    def _is_dispensable(self) -> bool:
        """Whether the service has what it is to have without this one, or needs nothing any more."""
        return not self.starts.replaces(self.generation) or self._may_leave(self.starts.wanted)

    def _may_leave(self, wanted: int) -> bool:
        assert self._metrics is not None
        slot, seconds = self._metrics.slot, stall_seconds(self.settings)
        return self.alive and Siblings(slot, seconds).let_go(wanted)

    def _stop_because(self, why: Event, reason: str) -> None:
        if self.alive:
            log.info("ending", reason=reason)
            self._stop(why)

    def _terminate(self) -> None:
        # At a SIGHUP gunicorn says this at once, when those that are to take over have only just begun. They
        # may never be ready: then this one goes on. The arbiter says it again and again, and all at its end.
        if self._is_ready and self.starts.replaces(self.generation):
            self._is_replaced = True
        else:
            self._stop(Event.TERMINATE)

    def _stop(self, why: Event) -> None:
        # Once: the arbiter repeats its signal, and a service manager sends one to every process at once.
        if self.alive:
            self.alive = False
            self._control.stop(why)


def _force() -> None:
    os._exit(EXIT_FORCED)
