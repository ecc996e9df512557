"""The service under test as a child process: start, wait for its ready line, stop.

Knows the command lines of the service and of the designs of loadtests/peers, and our JSON
log. Touches one child at a time, by its id.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from urllib.error import URLError
from urllib.request import urlopen

from loadtests.exits import BrokenError
from loadtests.experiment.plan import Variant
from loadtests.sessions import kill_session

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0

TEMPORARY: Final = "offloop-peer-"
"""Of the folder for temporary files of a design: killed, it leaves some. Short, for the names of sockets."""


class ServiceError(BrokenError):
    """The service did not start, or ended with an error; the message is one sentence."""


class ServiceChild:
    """`python -m service FLAGS` with its log in a file; a context manager that always stops it.

    It has a session of its own, so Ctrl-C does not reach it: it is stopped after the last scrape.
    """

    MODULE: ClassVar[str] = "service"

    def __init__(self, flags: Sequence[str], log: Path) -> None:
        self._log = log
        self._flags = list(flags)
        self._before: list[str] = []  # of its command
        self._offset = log.stat().st_size if log.exists() else 0  # several children may write to one log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self.admin_url = ""
        self.work: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ServiceError: it exited, or was not ready in time.
        """
        try:
            self.launch()
            self.wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop it with SIGTERM if it was launched; a bad exit code is an error unless one is under way."""
        code = self._end()
        if code and kind is None:
            raise ServiceError(f"the service ended with exit code {code}; its log is {self._log}")

    def launch(self) -> None:
        """Start the process without waiting, so that several can start at the same time."""
        with self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*self._before, sys.executable, "-m", self.MODULE, *self._flags],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the service's own process."""
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        """Whether its own process has started and not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self) -> None:
        """Wait for its ready line, which has its addresses.

        Raises:
            ServiceError: it exited, or was not ready in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            for event in self._events():
                if event["event"] == "work":
                    self.work = event
                if event["event"] == "ready":
                    self.url, self.admin_url = event["address"], event["admin"]
                    return
            if (code := self._process.poll()) is not None:
                last = self._log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                raise ServiceError(f"the service ended at start with exit code {code}: {' '.join(last)}")
            if time.monotonic() > deadline:
                raise ServiceError(f"the service was not ready after {READY_SECONDS:.0f} s; see {self._log}")
            time.sleep(0.02)

    def _events(self) -> list[dict[str, Any]]:
        with self._log.open(encoding="utf-8") as log:
            log.seek(self._offset)
            return [json.loads(line) for line in log if line.startswith("{") and line.endswith("}\n")]

    def _end(self) -> int:
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            return self._process.wait()


def with_temporary(folder: str) -> list[str]:
    """What to put before a command, so that its temporary files lie in this folder."""
    return ["/usr/bin/env", f"TMPDIR={folder}"]  # whatever PATH is


def allow_descriptors(pid: int) -> None:
    """Let a design open as many files as it may, by prlimit(2) where there is one; ours does so itself."""
    if hasattr(resource, "prlimit"):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


class DesignChild(ServiceChild):
    """One of the designs of loadtests/peers, with the work and the workers of `variant`.

    It has no admin port and says nothing. It is started by its command line, because the room of the designs
    is above this one. It ends by SIGKILL, with everything in its session: on SIGTERM it would first work
    through its queue, for clients that have left.
    """

    MODULE = "loadtests.peers"

    def __init__(self, design: str, variant: Variant, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        numbers = (variant.work_units, variant.workers)
        super().__init__([design, str(port), variant.work, *map(str, numbers)], log)
        self.url = f"http://127.0.0.1:{port}"
        self._temporary = tempfile.TemporaryDirectory(prefix=TEMPORARY)
        self._before = with_temporary(self._temporary.name)

    def launch(self) -> None:
        """Start it, with as many descriptors as it may have: our service takes them, too."""
        super().launch()
        allow_descriptors(self.pid)

    def wait_ready(self) -> None:
        """Wait for one answer, so that its pool is up.

        Raises:
            ServiceError: it exited, or did not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(URLError, OSError), urlopen(f"{self.url}/data", timeout=5):
                return
            time.sleep(0.02)
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise ServiceError(f"the design {self._flags[0]!r} did not start: {' '.join(last)}")

    def _end(self) -> int:
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()
        self._temporary.cleanup()
        return 0
