"""gunicorn's configuration: `gunicorn -c service/gunicorn_conf.py` runs several IO processes.

The arbiter executes this file at its start and again at each SIGHUP; what must outlast that is kept by
`IOProcess` and by the arbiter. The settings are those of `python -m service`, from environment and file;
gunicorn's own flags win over what is derived from them here. gunicorn reads the names of its settings and
ignores all others.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from metrics.shared import KeptCounter
from service.config.settings import Settings
from service.config.sources import read
from service.lifecycle.process import prepare_process
from service.lifecycle.states import EXIT_CANNOT_START
from service.multi import shares
from service.multi.exporter import Exporter
from service.multi.io_process import IOProcess

log = structlog.get_logger("offloop")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks for the folder under this name alone


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
    return reading.settings


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
    inherited = os.environ.get(METRICS_FOLDER) if "GUNICORN_PID" in os.environ else None
    folder = inherited or tempfile.mkdtemp(prefix="offloop-", dir=server.cfg.worker_tmp_dir)
    Path(folder).mkdir(mode=0o700, exist_ok=True)  # the older exporter may have removed it just now
    os.chown(folder, server.cfg.uid, server.cfg.gid)
    os.environ[METRICS_FOLDER] = folder
    IOProcess.folder = Path(folder)
    IOProcess.output.count(KeptCounter(IOProcess.folder, "log_lines_dropped_total").inc)
    server.exporter = Exporter()
    if not server.exporter.start(IOProcess.folder):
        raise RuntimeError("the metrics could not be published")


def pre_exec(server: Any) -> None:
    """Pass the metrics folder on to the arbiter that SIGUSR2 starts."""
    server.cfg.env_orig[METRICS_FOLDER] = os.environ[METRICS_FOLDER]


def pre_fork(server: Any, worker: IOProcess) -> None:  # noqa: ARG001  # gunicorn's signature
    """Restart an exporter that has died: the only hook that the arbiter calls again and again."""
    server.exporter.restart_if_dead(IOProcess.folder)


def on_exit(server: Any) -> None:
    """Stop the exporter, which frees the admin port and removes the metrics folder."""
    server.exporter.stop()
