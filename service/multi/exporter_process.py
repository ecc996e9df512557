"""The exporter's process as the arbiter sees it: starts it, looks after it every second, stops it.

Knows processes and pipes. A pipe and not a process id says that it has ended: the arbiter reaps every child
(`waitpid(-1)`), so an id may be that of another process by now. What the exporter does is in exporter.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Final

import structlog

from service.multi.starts import pause_seconds

log = structlog.get_logger("offloop.exporter")

SILENT_TICKS: Final = 10
"""So many seconds without a sign of life, which comes every second: it hangs. Counted by calls and not by a
clock: while the arbiter itself was stopped it has heard nothing."""

ENDED: Final = "it has ended"

START_SECONDS: Final = 15.0
"""How long the first may say nothing: it imports for about a second, and then waits up to five for its port
(`exporter.PATIENCE_SECONDS`). Longer would be no kindness: gunicorn obeys no signal meanwhile."""

STOP_SECONDS: Final = 5.0
"""How long to wait for its exit, which takes milliseconds."""


class ExporterProcess:
    """Starts one exporter after the other.

    Args:
        folder: where the IO processes write their metrics.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # One pipe for all of them: so an IO process that is older than its exporter holds the write end, too.
        self._read_end, self._write_end = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._silent_ticks = 0
        self._failures = 0
        self._ticks_to_wait = 0
        self._lost = ENDED

    def start(self) -> bool:
        """Start the first, and wait until it serves or waits for an older exporter's port.

        Returns:
            False if it could not start, or hangs: in a disk, in a resolver. The log says why.
        """
        output = self._launch()
        if select.select([output], [], [], START_SECONDS)[0]:
            return bool(os.read(output, 1))
        log.warning("exporter lost", reason=f"it said nothing for {START_SECONDS:g} s, and was killed")
        assert self._process is not None
        self._process.kill()
        return False

    def tick(self) -> None:
        """Kill it if it hangs, start another if it has ended. To be called every second.

        In a signal handler: it logs nothing, waits for nothing but the fork, and holds no lock. What fails is
        tried again, later each time.

        Raises:
            OSError: it cannot be started now.
        """
        if self._process is None:
            self._start_again()
            return
        try:
            said = os.read(_output(self._process), 4096)
        except BlockingIOError:
            self._silent_ticks += 1
            if self._silent_ticks == SILENT_TICKS:
                self._lost = f"it said nothing for {SILENT_TICKS} s, and was killed"
                self._process.kill()
            return
        if said:
            self._silent_ticks = self._failures = self._ticks_to_wait = 0
        else:
            _let_go(self._process)
            self._process = None

    def stop(self) -> None:
        """Let it exit once all IO processes have, and wait for that; then its port is free."""
        os.close(self._write_end)
        if (process := self._process) is not None:
            self._process = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()  # one that hangs would outlive the service
            _let_go(process)

    def _start_again(self) -> None:
        self._ticks_to_wait -= 1
        if self._ticks_to_wait <= 0:
            self._failures += 1  # until it says something
            self._ticks_to_wait = pause_seconds(self._failures)
            self._launch(self._lost)
            self._lost = ENDED

    def _launch(self, *lost: str) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.multi.exporter", str(self._folder), *lost],
            stdin=self._read_end,
            stdout=subprocess.PIPE,
        )
        self._silent_ticks = 0
        output = _output(self._process)
        os.set_blocking(output, False)
        return output


def _output(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return process.stdout.fileno()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.close()
    process.poll()  # else Popen would look for its process id for ever
