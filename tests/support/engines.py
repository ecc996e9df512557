"""Executors for `--executor` in tests, and a Dask cluster whose parts are processes of their own."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from loadtests.sessions import kill_session
from tests.support import ROOT
from tests.support.processes import children
from tests.support.waiting import until

WORKERS = 2
"""Of each of them."""

not_callable = 7


def threads() -> Executor:
    """The standard one."""
    return ThreadPoolExecutor(WORKERS)


def processes() -> Executor:
    """The standard one, made by the user: without what StockExecutor adds to it."""
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver"))


def number() -> int:
    """No executor."""
    return 7


def unreachable() -> Executor:
    """An engine that is away."""
    raise ConnectionRefusedError("nothing listens there")


class Cluster:
    """A scheduler and two workers with one thread each, on 127.0.0.1; logs and files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]  # known before it is up, and the same after a restart
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.parts: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all parts; they find each other."""
        here = ("--host", "127.0.0.1", "--no-dashboard")
        self._begin("dask_scheduler", *here, "--port", str(self.port))
        for _ in range(WORKERS):
            flags = ("--nworkers", "1", "--nthreads", "1", "--local-directory", str(self.folder))
            self._begin("dask_worker", self.address, *here, *flags)

    def is_up(self) -> bool:
        """Whether the scheduler has said that all workers are there."""
        return self.log().count("Register worker") >= WORKERS

    def log(self) -> str:
        """What the parts have said since the last start."""
        return "\n".join(file.read_text() for file in self.folder.glob("*.log"))

    def kill(self) -> None:
        """Kill all parts at once, as when their machines go."""
        for part in self.parts:
            kill_session(part.pid)
            part.wait(10)
        self.parts.clear()
        for file in self.folder.glob("*.log"):
            file.unlink()

    def workers(self) -> set[int]:
        """The processes in which tasks run: each is the child of one that starts it again when it dies."""
        return {pid for part in self.parts[1:] for pid in children(part.pid)}

    def _begin(self, module: str, *flags: str) -> None:
        with (self.folder / f"{len(self.parts)}.log").open("wb") as log:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *flags]
            self.parts.append(
                subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
            )


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """One that is up, and ended whatever the test does."""
    made = Cluster(folder)
    try:
        made.start()
        until(made.is_up, made.log)
        yield made
    finally:
        made.kill()
