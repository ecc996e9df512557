"""gunicorn's configuration: `gunicorn -c service/gunicorn_conf.py` runs several IO processes.

The entrance of the arbiter, which executes it at its start and anew at each SIGHUP: what must outlast that
is kept by `IOProcess` and by the arbiter. The settings are those of `python -m service`, from environment and
file; gunicorn's own flags win over what is derived from them here. gunicorn sees names of its settings alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from service.config.settings import Settings
from service.config.sources import read
from service.lifecycle.states import EXIT_CANNOT_START
from service.log import setup as logs
from service.multi import shares as share
from service.multi.exporter import Exporter
from service.multi.io_process import IOProcess

log = structlog.get_logger("offloop")

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's name: it looks nowhere else


def _settings() -> Settings:
    """The settings; at a SIGHUP, those from before if the new ones are wrong."""
    try:
        reading = read([])
    except ValueError as error:
        if not hasattr(IOProcess, "settings"):
            for line in str(error).splitlines():
                print(f"offloop: {line}", file=sys.stderr)
            sys.exit(EXIT_CANNOT_START)
        log.error("reload refused", reason=str(error))  # noqa: TRY400  # the sentences are enough
        return IOProcess.settings
    logs.configure(reading.settings.log_format)
    structlog.contextvars.bind_contextvars(pid=os.getpid())  # several processes write to one log
    if reading.unknown_variables:
        log.warning("unknown variables", ignored=reading.unknown_variables)
    return reading.settings


# When we end without cleaning up, this helper of multiprocessing does, and would say so at length.
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
settings = IOProcess.settings = _settings()
# gunicorn's own lines go the way of ours.
logconfig_dict = {"root": {}, "loggers": {"gunicorn.error": {"handlers": [], "propagate": True}}}

wsgi_app = "service.lifecycle.run:serve"  # gunicorn wants a name; nobody loads it
worker_class = IOProcess
workers = int(os.environ.get("WEB_CONCURRENCY") or share.processes(settings.workers))
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
backlog = settings.backlog
graceful_timeout = share.graceful_timeout(settings)
# Written to all the time, and a page of a file on a disk may have to wait for the disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
# A thread in the arbiter, which forks; all it can do signals can.
control_socket_disable = True


def when_ready(server: Any) -> None:
    """Make the folder of the metrics and start the exporter; the IO processes to come inherit both.

    After a SIGUSR2 the folder is that of the arbiter before, so that all counters go on.
    """
    inherited = os.environ.get(FOLDER) if "GUNICORN_PID" in os.environ else None
    folder = inherited or tempfile.mkdtemp(prefix="offloop-", dir=server.cfg.worker_tmp_dir)
    Path(folder).mkdir(mode=0o700, exist_ok=True)  # the arbiter before may have gone just now
    os.chown(folder, server.cfg.uid, server.cfg.gid)
    os.environ[FOLDER] = folder
    IOProcess.folder = Path(folder)
    server.exporter = Exporter()
    if not server.exporter.start(IOProcess.folder):
        raise RuntimeError("the metrics could not be published")


def pre_exec(server: Any) -> None:
    """Leave the folder to the arbiter that SIGUSR2 starts."""
    server.cfg.env_orig[FOLDER] = os.environ[FOLDER]


def pre_fork(server: Any, worker: IOProcess) -> None:  # noqa: ARG001  # gunicorn's signature
    """Replace an exporter that has died, when there is an occasion."""
    server.exporter.keep_up(IOProcess.folder)


def on_exit(server: Any) -> None:
    """Leave no port and no folder behind."""
    server.exporter.end()
