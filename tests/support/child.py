"""Starts the real command as a child and watches what is left of it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import getsource
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.request import urlopen

from loadtests.sessions import kill_session
from metrics.exposition import parse
from tests.support import ROOT
from tests.support.processes import session
from tests.support.waiting import until

HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""

# As process 1 of a PID namespace, as in a container; the child is then unshare(1).
ALONE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


LOG_IN = """
import os, shutil, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests
log = os.dup(2)
os.login_tty(int(sys.argv[1]))
os.dup2(log, 2)
os.execv(shutil.which(sys.argv[2]), sys.argv[2:])
"""


class Child:
    """`python -m service` in a session of its own, with JSON logs in a file.

    `files`: how many files it may open, as after `ulimit -n`; its soft and its hard limit.
    `listener`: a listening socket, handed over as systemd does (sd_listen_fds(3)).
    `terminal`: a descriptor of the terminal that controls its session.
    `before`: a command that starts the one that follows it, such as a shell's, nohup's, nsenter's.
    """

    def __init__(
        self,
        log: Path,
        *flags: str,
        files: int | None = None,
        listener: socket.socket | None = None,
        terminal: int | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self._log = log
        lower = [] if terminal is None else [sys.executable, "-c", LOG_IN, str(terminal)]
        lower += before
        if files:
            lower += ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
        if listener is not None:
            lower += [sys.executable, "-c", HAND_OVER, str(listener.fileno())]
        passed = [] if listener is None else [listener.fileno()]
        passed += [] if terminal is None else [terminal]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(*lower, sys.executable, "-m", "service"),
                    *("--port", "0", "--admin-port", "0", "--log-format", "json", *flags),
                ],
                stderr=stderr,
                cwd=ROOT,
                start_new_session=True,
                pass_fds=passed,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines with this event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def log(self) -> str:
        """Its whole lines: the last may be seen while it is being written, in part."""
        text = self._log.read_text()
        return text[: text.rfind("\n") + 1]

    def ready(self) -> tuple[str, str]:
        """Wait for the ready line; return both base URLs."""
        self.wait_until(lambda: self.events("ready"))
        line = self.events("ready")[0]
        return line["address"], line["admin"]

    def scrape(self) -> dict[str, float]:
        with urlopen(f"{self.ready()[1]}/metrics") as answer:
            return parse(answer.read().decode())

    def wait_until(self, condition: Callable[..., object], seconds: float = 30.0) -> None:
        """Wait for what the child will do soon; its end meanwhile is an error, told with its log."""

        def holds() -> bool:
            answer = bool(condition())
            assert answer or self.is_running(), self._log.read_text()
            return answer

        until(holds, lambda: f"{getsource(condition).strip()}\n{self._log.read_text()}", seconds)

    def is_running(self) -> bool:
        """Whether there is anything left to wait for."""
        return self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def session(self) -> set[int]:
        """Process ids of the child's session: itself, its workers and multiprocessing's helpers."""
        return session(self.process.pid)


@contextmanager
def service(
    log: Path,
    *flags: str,
    files: int | None = None,
    listener: socket.socket | None = None,
    before: Sequence[str] = (),
) -> Iterator[Child]:
    """A child that is ended whatever the test does."""
    with ended(Child(log, *flags, files=files, listener=listener, before=before)) as child:
        yield child


class Leader(Protocol):
    """A child with a session of its own."""

    process: subprocess.Popen[bytes]


L = TypeVar("L", bound=Leader)


@contextmanager
def ended(child: L) -> Iterator[L]:
    """End a child afterwards, with all that belongs to it."""
    try:
        yield child
    finally:
        kill_session(child.process.pid)
        child.process.wait(10)
