"""The designs as processes: all run at the same time, and all but the measured one are quiet.

Knows how each is started. Touches child processes, each the leader of a session of its own, and log files.

Why quiet: a design that keeps working for clients that have disconnected does not stop when its block ends.
Left running, one such design halved the goodput of the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self
from urllib.error import URLError
from urllib.request import urlopen

from loadtests.experiment.child import TEMPORARY, ServiceError, allow_descriptors, with_temporary
from loadtests.peers import trees
from loadtests.peers.plan import IN_RUST, OURS, TITLES
from loadtests.sessions import kill_session

DATA: Final = "service.work:data"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.4
"""How long a design is observed. /proc counts in hundredths of a second: at the share below that is one
tick."""

QUIET_SHARE: Final = 0.025  # of a core
PATIENCE_SECONDS: Final = 0.8
"""How long a design may keep working before it is restarted, which takes a second as well."""

MOST_STARTS: Final = 5  # a design that is then not quiet ends the run


class Contender:
    """One design as a child process. `program`: what cargo.py has built, for a design in Rust."""

    def __init__(
        self, name: str, work_units: int, workers: int, folder: Path, program: Path | None = None
    ) -> None:
        self.name = name
        self._program = program
        self._work_units, self._workers = work_units, workers
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: tempfile.TemporaryDirectory[str]  # of one start
        self.url = ""

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of its process tree so far."""
        return 0.0 if self._process is None else trees.cpu_seconds(self._process.pid)

    def start(self) -> None:
        """Start it and wait for one answer, so that its pool is up.

        Raises:
            ServiceError: it exited, or did not answer in time.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._temporary = tempfile.TemporaryDirectory(prefix=TEMPORARY)
        with self._log.open("wb") as log:
            # In a session of its own, so that Ctrl-C does not reach it, and all of it can be killed.
            self._process = subprocess.Popen(
                [*with_temporary(self._temporary.name), sys.executable, "-m", *self._command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        allow_descriptors(self._process.pid)
        self._await_answer(self._process)

    def stop(self, patience_seconds: float = STOP_SECONDS) -> None:
        """Stop it and everything in its session, by SIGKILL after the given time."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # its queue may take longer
                process.wait(patience_seconds)
        finally:
            kill_session(process.pid)
            process.wait()
            self._temporary.cleanup()

    def _command(self, port: int) -> list[str]:
        if self.name == OURS:
            flags = {"port": port, "admin-port": 0, "work-units": self._work_units, "workers": self._workers}
            return ["service", *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
        command = ["loadtests.peers", self.name, str(port), DATA, str(self._work_units), str(self._workers)]
        return [*command, str(self._program)] if self.name in IN_RUST else command

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(URLError, OSError), urlopen(f"{self.url}/data", timeout=5):
                return
            time.sleep(0.02)
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise ServiceError(
            f"the design {TITLES[self.name]!r} did not start: {' '.join(said) or 'it printed nothing'}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """How the designs became quiet: after how long, with which CPU seconds, and which were restarted."""

    seconds: float
    cpu_seconds: dict[str, float]
    started_anew: frozenset[str]


class Contenders:
    """All designs with one amount of work; a context manager that always stops them."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        self._all = {contender.name: contender for contender in contenders}

    def __enter__(self) -> Self:
        """Start them one after the other.

        Raises:
            ServiceError: one of them could not be started.
        """
        try:
            for contender in self._all.values():
                contender.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __getitem__(self, name: str) -> Contender:
        """One design by name."""
        return self._all[name]

    def settle(self, patience_seconds: float = PATIENCE_SECONDS) -> Settled:
        """Wait until every design is quiet; one that is not after the given time is restarted.

        Raises:
            ServiceError: one is never quiet, or could not be restarted.
        """
        began = time.monotonic()
        anew: dict[str, float] = {}
        for _ in range(MOST_STARTS):
            cpu, busy = self._watch(patience_seconds)
            if not busy:
                return Settled(time.monotonic() - began, {**cpu, **anew}, frozenset(anew))
            for name in busy:
                anew.setdefault(name, cpu[name])
                self._all[name].stop(0)  # with SIGTERM it would first work through its queue
                self._all[name].start()
        raise ServiceError(
            f"the designs {', '.join(sorted(anew))} are never quiet, not even right after their start"
        )

    def _watch(self, patience_seconds: float) -> tuple[dict[str, float], list[str]]:
        """Observe until all are quiet or the time is over; their CPU seconds, and which are busy."""
        deadline = time.monotonic() + patience_seconds
        looked, before = time.monotonic(), self._cpu()
        while True:
            time.sleep(LOOK_SECONDS)
            now, after = time.monotonic(), self._cpu()
            busy = [name for name in after if after[name] - before[name] > QUIET_SHARE * (now - looked)]
            if not busy or now >= deadline:
                return after, busy
            looked, before = now, after

    def _cpu(self) -> dict[str, float]:
        return {name: contender.cpu_seconds for name, contender in self._all.items()}

    def _stop(self) -> None:
        with contextlib.ExitStack() as stack:  # goes on with the others if stopping one fails
            for contender in self._all.values():
                stack.callback(contender.stop)
