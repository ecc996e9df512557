"""The load generator as a process of its own: `python -m loadtests.load.driver`.

Reads `{"phase": {...}, "samples_path": "..."}` from stdin, writes a line of progress in JSON to
stdout (a pipe) five times a second, and leaves a file of samples. Knows the clock: nobody else in
loadtests reads it. Touches stdin, stdout, signals and that file. Never draws, sums up or judges.

A process of its own, so that nothing the parent does can delay a send. Ctrl-C goes to the whole
group and is ignored here, for the parent decides; SIGTERM or a vanished parent means: stop, mark
what was under way, write the file.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from loadtests.files import write_json
from loadtests.load.endpoint import make_endpoint
from loadtests.load.loop import OpenLoop
from loadtests.load.phase import Phase
from loadtests.load.sample import to_columns


class GcPauses:
    """Counts and times the collections of the GC: pauses in which nothing is sent."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_seconds = 0.0
        self._began = 0.0
        gc.collect()
        gc.freeze()  # what exists by now stays: no collection need look at it again
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic()
        else:
            self.count += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - self._began)


def emit_line(message: dict[str, Any]) -> bool:
    """Write one line to stdout without ever waiting; False when nobody reads any more.

    A pipe takes up to PIPE_BUF bytes whole or not at all (pipe(7)): a slow reader misses a line.
    """
    with contextlib.suppress(BlockingIOError):
        try:
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return False
    return True


def main() -> int:
    """Run the phase that stdin names; 0 when the file was written, 2 when nothing could start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.load(sys.stdin)
    os.set_blocking(sys.stdout.fileno(), False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    phase = Phase.from_json(order["phase"])
    try:
        endpoint = make_endpoint(phase)
    except OSError as error:
        emit_line({"error": f"{phase.url}: {error.strerror or error}"})
        return 2
    pauses = GcPauses()
    epoch, cpu = time.time(), time.process_time()
    loop = OpenLoop(phase, endpoint, emit_line, time.monotonic)
    signal.signal(signal.SIGTERM, lambda *_: setattr(loop, "stop", True))
    loop.run()
    facts = {
        "address": endpoint.name,
        "started_monotonic": loop.started,
        "started_epoch": epoch,
        "wall_seconds": time.monotonic() - loop.started,
        "cpu_seconds": time.process_time() - cpu,
        "gc_pauses": pauses.count,
        "gc_max_pause_seconds": pauses.longest_seconds,
        "interrupted": loop.stop,
        "unreachable": loop.unreachable,
    }
    write_json(Path(order["samples_path"]), {**to_columns(loop.samples), "generator": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
