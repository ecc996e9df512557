"""What this process writes to stderr: by a thread of its own, or dropped and counted. Nobody waits for it.

Knows one descriptor, poll(2) and a bounded buffer. Decides nothing about what a line says. A reader of stderr
that stops reading would otherwise stop whoever writes: the event loop, a probe, gunicorn's arbiter. `catch`
puts it in the place of `sys.stderr`, so that nothing goes by it: logging, whoever configures it, warnings,
tracebacks, an application's `print`.

Until `start()`, and in a child that was forked, there is no thread: a line goes out at once if that needs no
waiting. gunicorn's arbiter stays like that, because it forks, and a fork of several threads can lock up.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import io
import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

log = structlog.get_logger("offloop.log")

MOST_LINES: Final = 10_000
"""Lines that may wait to be written. It bounds what short ones cost beside their bytes."""

MOST_BYTES: Final = 2**20
"""Bytes that may wait; the last line may go beyond, or a longer traceback could never be read. A burst of the
request log is a third of it."""

FLUSH_SECONDS: Final = 1.0
"""How long an exit waits for a reader."""


class Output:
    """The way out of all lines of this process. Safe from any thread.

    Args:
        descriptor: where they go.
        tell: called with how many lines were dropped since it was called last, and how many in all, when
            lines flow again; it may write.
    """

    def __init__(self, descriptor: int, tell: Callable[[int, int], object]) -> None:
        self._descriptor = descriptor
        self._tell = tell
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Re-entrant: a finaliser that logs may run at any moment. Whoever holds it does not wait.
        self._lock = threading.RLock()
        self._context = contextvars.copy_context()
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._taken_lines = self._taken_bytes = 0  # into the buffer, under the lock
        self._gone_lines = self._gone_bytes = 0  # out of it, by the thread alone
        self._refused = 0  # under the lock
        self._lost = 0  # by the thread alone
        self._told = 0  # of these
        self._flows = True  # stderr takes lines

    @property
    def dropped(self) -> int:
        """Lines that had no room, or that stderr did not take, since the start of this process.

        A number to be read, and no metric that is told: a line can be dropped while a finaliser logs, which
        may run under any lock, also that of a metric.
        """
        return self._refused + self._lost

    def start(self) -> None:
        """Write by a thread from now on, which may wait for a reader while nobody else does."""
        self._context = contextvars.copy_context()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def stop(self) -> None:
        """Write all there is and end the thread; for tests, as a process just ends."""
        self._lines.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        atexit.unregister(self.flush)

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines so far are written, but no longer than `seconds`."""
        if self._thread is not None:
            written = threading.Event()
            self._lines.put(written)
            written.wait(seconds)

    def write(self, line: bytes) -> None:
        """Take a line, or drop and count it. Never waits."""
        with self._lock:
            if not (self._put(line) if self._thread is not None else self._deliver(line, 0)):
                self._refused += 1
                return
            dropped = self.dropped if self._flows else self._told
            untold, self._told = dropped - self._told, dropped
        if untold:
            # Not in the context of the request that happens to log now.
            self._context.copy().run(self._tell, untold, dropped)

    def _put(self, line: bytes) -> bool:
        lines, size = self._taken_lines - self._gone_lines, self._taken_bytes - self._gone_bytes
        if lines >= MOST_LINES or size >= MOST_BYTES:
            return False
        self._taken_lines += 1
        self._taken_bytes += len(line)
        self._lines.put(line)
        return True

    def _run(self) -> None:
        while (item := self._lines.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            self._flows = self._deliver(item, None)
            if not self._flows:
                self._lost += 1
            self._gone_lines += 1
            self._gone_bytes += len(item)

    def _deliver(self, line: bytes, patience: int | None) -> bool:
        """Write a line.

        A pipe that poll(2) calls writable takes PIPE_BUF bytes without waiting, whether or not it blocks.

        Args:
            patience: milliseconds to wait for room; None: as long as it takes.

        Returns:
            False if there was no room, or nobody who reads.
        """
        rest = memoryview(line)
        writable = select.poll()
        try:
            writable.register(self._descriptor, select.POLLOUT)
            while rest:
                if not writable.poll(patience):
                    return False
                # In one piece if it may wait: pieces would mix with what other processes write to this pipe.
                piece = rest if patience is None else rest[: select.PIPE_BUF]
                with contextlib.suppress(BlockingIOError):  # somebody has filled it meanwhile
                    rest = rest[os.write(self._descriptor, piece) :]
        except OSError:  # closed, or its reader has gone
            return False
        return True


class _Stderr(io.RawIOBase):
    """The bytes of `sys.stderr`."""

    def __init__(self, output: Output, descriptor: int) -> None:
        self.output = output
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: Any, /) -> int:
        """Hand over what a text stream has gathered until the end of a line."""
        line = bytes(data)
        self.output.write(line)
        return len(line)

    def fileno(self) -> int:
        """For those who write by themselves: faulthandler, processes that inherit it."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a person reads."""
        return os.isatty(self._descriptor)


def catch() -> Output:
    """Put an output in the place of `sys.stderr`, unless one is there already; returns it."""
    present: TextIO | None = sys.stderr
    if isinstance(raw := getattr(present, "buffer", None), _Stderr):
        return raw.output
    # None: whoever started this process has closed it, and its number may be another file's.
    descriptor = os.open(os.devnull, os.O_WRONLY) if present is None else present.fileno()
    output = Output(descriptor, _tell)
    encoding = "utf-8" if present is None else present.encoding
    # One write for each `write` that ends a line: a record of logging stays in one piece.
    sys.stderr = io.TextIOWrapper(
        _Stderr(output, descriptor), encoding, "backslashreplace", line_buffering=True
    )
    return output


def _tell(lines: int, total: int) -> None:
    log.warning("log lines dropped", lines=lines, total=total)
