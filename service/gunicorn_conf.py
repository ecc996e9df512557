"""gunicorn's configuration: `gunicorn -c service/gunicorn_conf.py` runs several IO processes.

The arbiter executes this file at its start and again at each SIGHUP; what must outlast that is kept by
`IOProcess` and by the arbiter. The arbiter alone reads the certificates: IO processes inherit them, also one
that is started while their files are being replaced. The settings are those of `python -m service`, from
environment and file; gunicorn's own flags win over what is derived from them here. gunicorn reads the names
of its settings and ignores all others.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from metrics.shared import KeptCounter
from service.app.loading import StartError, load_tls
from service.config.settings import Settings
from service.config.sources import read
from service.folder import inherit, make, remove_if_unused, sweep
from service.lifecycle.process import prepare_process
from service.lifecycle.service import TLS
from service.lifecycle.states import EXIT_CANNOT_START
from service.multi import shares
from service.multi.exporter_process import ExporterProcess
from service.multi.io_process import IOProcess
from service.multi.starts import Starts

log = structlog.get_logger("offloop")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks for the folder under this name alone

HELD_FOLDER = "OFFLOOP_METRICS_FD"

FOLDERS = "offloop-metrics-"

ADDRESSES = frozenset({"host", "port", "backlog", "admin_host", "admin_port"})
"""What arbiter and exporter have bound."""


def _settings() -> Settings:
    """The settings, and the process prepared for them; at a SIGHUP with wrong settings, those from before."""
    try:
        reading = read([])
    except ValueError as error:
        if not hasattr(IOProcess, "settings"):
            for line in str(error).splitlines():
                print(f"offloop: {line}", file=sys.stderr)
            sys.exit(EXIT_CANNOT_START)
        log.error("reload refused", reason=str(error))  # noqa: TRY400  # the sentences are enough
        return IOProcess.settings
    structlog.contextvars.bind_contextvars(pid=os.getpid())  # several processes write to one log
    IOProcess.output = prepare_process(reading, os.environ)  # IO processes and exporter inherit all of it
    return _with_certificates(_with_addresses(reading.settings))


def _with_addresses(settings: Settings) -> Settings:
    """These settings with the addresses of the start: gunicorn exits if it cannot bind another one."""
    if not hasattr(IOProcess, "settings"):
        return settings
    first = {name: getattr(IOProcess.settings, name) for name in ADDRESSES}
    if changed := [name for name in sorted(ADDRESSES) if getattr(settings, name) != first[name]]:
        log.warning("settings need a restart", settings=changed)
    return settings.model_copy(update=first)


def _with_certificates(settings: Settings) -> Settings:
    """These settings, their certificates read; at a SIGHUP with unusable ones, those from before stay."""
    try:
        IOProcess.tls = load_tls(settings)
    except StartError as error:
        if not hasattr(IOProcess, "settings"):
            print(f"offloop: {error}", file=sys.stderr)
            sys.exit(EXIT_CANNOT_START)
        log.error("certificates refused", reason=str(error), now="the old ones")  # noqa: TRY400
        return settings.model_copy(update={name: getattr(IOProcess.settings, name) for name in TLS})
    return settings


settings = IOProcess.settings = _settings()
# gunicorn's own log lines reach the handler of the service.
logconfig_dict = {"root": {}, "loggers": {"gunicorn.error": {"handlers": [], "propagate": True}}}

wsgi_app = "service.lifecycle.run:serve"  # gunicorn demands a name; `IOProcess` does not load it
worker_class = IOProcess
workers = int(os.environ.get("WEB_CONCURRENCY") or shares.processes(settings.workers))
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
backlog = settings.backlog
graceful_timeout = shares.graceful_timeout(settings)
# The metrics are files there, mapped into memory and written all the time; a page on a disk may have to wait.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
# It would be a thread in the arbiter, which forks; signals can do all that it can.
control_socket_disable = True


def when_ready(server: Any) -> None:
    """Make the metrics folder and start the exporter, for all IO processes to come.

    After a SIGUSR2 the folder is the older arbiter's, so that all counters go on.

    Raises:
        RuntimeError: the exporter could not start; it has logged why.
    """
    parent, uid, gid = Path(server.cfg.worker_tmp_dir), server.cfg.uid, server.cfg.gid
    sweep(parent, FOLDERS, uid)
    inherited = os.environ.get(METRICS_FOLDER) if "GUNICORN_PID" in os.environ else None
    held = os.environ.pop(HELD_FOLDER, None)
    if inherited:
        server.folder = inherit(Path(inherited), int(held) if held else None, uid, gid)
    else:
        server.folder = make(parent, FOLDERS, uid, gid)
    IOProcess.folder = server.folder.path
    os.environ[METRICS_FOLDER] = str(IOProcess.folder)
    server.log_dropped = KeptCounter(IOProcess.folder, "log_lines_dropped_total")
    IOProcess.starts = Starts()
    server.exporter = ExporterProcess(IOProcess.folder)
    if not server.exporter.start():
        on_exit(server)
        raise RuntimeError("the metrics could not be published")
    # Neither a thread, because the arbiter forks, nor a hook: gunicorn has none that it calls regularly. What
    # it waits in goes on after a signal handler (PEP 475), and forks do not inherit the timer (fork(2)).
    signal.signal(signal.SIGALRM, lambda *_: _each_second(server))
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # the interpreter's end resets the handler


def _each_second(server: Any) -> None:
    """Look after what the arbiter does not.

    It may have interrupted anything: it neither logs nor waits, and what goes wrong is tried again.
    """
    with contextlib.suppress(Exception):
        if not server.LISTENERS:  # the first that the arbiter gives up when it stops
            IOProcess.starts.stop()
        IOProcess.starts.want(server.num_workers)  # SIGTTIN, SIGTTOU and SIGWINCH change it
        server.log_dropped.show(IOProcess.output.dropped)
        server.exporter.tick()


def on_reload(server: Any) -> None:
    """Let the IO processes that are started next replace those of now: one by one, as they are ready."""
    IOProcess.starts.reload(server.cfg.workers)


def child_exit(server: Any, worker: IOProcess) -> None:
    """Start another one for an IO process of the last HUP that ended while older ones are still there.

    The arbiter counts processes, and an older one makes up for it: that one would keep what the HUP was to
    replace, for ever. Called in the arbiter's main loop (Arbiter.reap_workers), also while it waits at a HUP.
    """
    generation, here = IOProcess.starts.generation, server.WORKERS.values()
    newest = sum(each.generation == generation for each in here)
    if server.LISTENERS and worker.generation == generation and newest < server.num_workers <= len(here):
        server.spawn_worker()


def pre_exec(server: Any) -> None:
    """Pass the metrics folder on to the arbiter that SIGUSR2 starts.

    Held, because this arbiter may end before that one has begun, and the counters with it: SIGTERM may come
    together with SIGUSR2.
    """
    server.cfg.env_orig[METRICS_FOLDER] = os.environ[METRICS_FOLDER]
    server.cfg.env_orig[HELD_FOLDER] = str(server.folder.pass_on())


def on_exit(server: Any) -> None:
    """Stop the exporter, which frees the admin port and removes the metrics folder."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    server.folder.release()
    server.exporter.stop()
    remove_if_unused(server.folder.path)  # if there was no exporter to do it
