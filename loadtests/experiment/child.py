"""The service under test as a child process: start, wait for its ready line, stop.

Knows the command line of the service and its JSON log. Touches one child at a time, by its id.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from loadtests.exits import BrokenError

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


class ServiceError(BrokenError):
    """The service did not start, or ended with an error; the message is one sentence."""


class ServiceChild:
    """`python -m service FLAGS` with its log in a file; a context manager that always stops it.

    It has a session of its own, so Ctrl-C does not reach it: it is stopped after the last scrape.
    """

    def __init__(self, flags: Sequence[str], log: Path) -> None:
        self._log = log
        self._flags = list(flags)
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
                [sys.executable, "-m", "service", *self._flags],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the service's own process."""
        assert self._process is not None
        return self._process.pid

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
