"""A log that is a pipe, which a test reads as long as it likes and then no more."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import until

PIPE_BYTES = 4096
"""The least that a pipe of Linux holds: a dozen lines fill it."""


class Log:
    """The reading end. Nothing is read but by these methods."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._text = b""
        self._lines: list[dict[str, Any]] = []

    def line(self, event: str) -> dict[str, Any]:
        """Read until there is one more line with this event; lines before it are given up."""
        return until(lambda: self.next(event), f"a line {event!r}")

    def close(self) -> None:
        """Be gone: what is written from now on gets EPIPE."""
        os.close(self._end)

    def next(self, event: str) -> dict[str, Any]:
        """The next line with this event, if it has come; else an empty one."""
        self._read()
        while self._lines:
            if (line := self._lines.pop(0))["event"] == event:
                return line
        return {}

    def _read(self) -> None:
        try:
            while data := os.read(self._end, 65536):
                self._text += data
        except BlockingIOError:  # nothing there now, and nobody has closed the other end
            pass
        *lines, self._text = self._text.split(b"\n")
        self._lines += [json.loads(line) for line in lines if line.startswith(b"{")]


@contextmanager
def unread(path: Path) -> Iterator[Log]:
    """The log of a child that is started with this path."""
    log = Log(path)
    try:
        yield log
    finally:
        log.close()
