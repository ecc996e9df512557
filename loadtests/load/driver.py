"""The load generator as a process of its own: `python -m loadtests.load.driver`.

Reads orders from stdin, one JSON line each, `{"phase": {...}, "samples_path": "..."}`, until it is closed.
For each phase it writes lines of progress to stdout (a pipe) five times a second, then a file of samples, and
finally the line `{"end": null}`, or `{"end": "why it could not start"}`. Knows the clocks: no other module of
loadtests/load reads them. Touches stdin, stdout, signals and those files. Never draws, sums up or judges.

It is a process of its own, so that nothing the parent does can delay a send. Ctrl-C goes to the whole group
and is ignored here, because the parent decides. On SIGTERM, or when the parent is gone, it stops, marks the
requests that are under way, writes the file and exits.
"""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loadtests.files import write_json
from loadtests.load.endpoint import Endpoint, make_endpoint
from loadtests.load.facts import GeneratorFacts, Progress
from loadtests.load.loop import LoadLoop
from loadtests.load.phase import Phase
from loadtests.load.port_state import port_rules
from loadtests.load.readiness import Clocks
from loadtests.load.sample import to_columns


class GcPauses:
    """Counts and times garbage collections: nothing is sent during these pauses."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_seconds = 0.0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def restart(self) -> None:
        """Collect the garbage of the last phase, exempt what stays from later collections, reset."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self.count = 0
        self.longest_seconds = 0.0

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic()
        else:
            self.count += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - self._began)


class CoreWait:
    """How long the main thread was ready to run and had no core, in seconds, as the kernel counts it.

    proc(5): the second number of schedstat, in nanoseconds; a reading costs 1.5 us. Zero if the kernel does
    not count it.
    """

    def __init__(self, path: Path = Path("/proc/self/schedstat")) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        """Read the count."""
        if self._descriptor is None:
            return 0.0
        return int(os.pread(self._descriptor, 100, 0).split(None, 2)[1]) / 1e9


def emit(message: dict[str, Any], *, wait: bool = False) -> bool:
    """Write one line to stdout; returns False if the reader has closed the pipe.

    Without `wait` it never blocks: a pipe takes up to PIPE_BUF bytes whole or not at all (pipe(7)), and a
    slow reader misses a line of progress.
    """
    descriptor = sys.stdout.fileno()
    os.set_blocking(descriptor, wait)
    with contextlib.suppress(BlockingIOError):
        try:
            os.write(descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return False
    return True


class Driver:
    """Runs one order after the other."""

    def __init__(self) -> None:
        self._loop: LoadLoop | None = None
        self._ended = False
        self._waiting = True  # for an order or an address: no samples exist yet
        self._pauses = GcPauses()
        self._clocks = Clocks(wall=time.monotonic, cpu=time.process_time, core_wait=CoreWait())

    def serve(self, orders: Iterable[str]) -> None:
        """Run the phase of each line until there are no more lines, or until `end`."""
        for line in orders:
            order = json.loads(line)
            problem = self._run(Phase.from_json(order["phase"]), Path(order["samples_path"]))
            if self._ended or not emit({"end": problem}, wait=True):
                break

    def end(self, *_: object) -> None:
        """Stop the running phase and accept no other: the handler of SIGTERM.

        It may run inside a callback of the GC, where an exception would be reported and lost. So a running
        phase checks `_ended`, and a driver that waits, with no samples to write, exits at once.
        """
        self._ended = True
        if self._waiting:
            os._exit(os.EX_OK)
        if self._loop is not None:
            self._loop.stop = True

    def _run(self, phase: Phase, samples_path: Path) -> str | None:
        """Run one phase and write its file; return why it could not start, else None."""
        try:
            endpoint = make_endpoint(phase)
        except OSError as error:
            return f"{phase.url}: {error.strerror or error}"
        self._waiting = False
        self._pauses.restart()
        epoch, cpu = time.time(), time.process_time()
        # A socket with a port range of its own takes any port of it (inet_hash_connect).
        late = None if phase.port_range is not None else port_rules().late_parity
        loop = LoadLoop(phase, endpoint, _emit_progress, self._clocks, late)
        self._loop = loop
        if self._ended:
            loop.stop = True
        loop.run()
        facts = _facts(loop, endpoint, self._pauses, epoch, cpu)
        write_json(samples_path, {**to_columns(loop.samples), "generator": facts.to_json()})
        self._loop = None
        self._waiting = True
        return None


def _emit_progress(progress: Progress) -> bool:
    return emit(dataclasses.asdict(progress))


def _facts(loop: LoadLoop, endpoint: Endpoint, pauses: GcPauses, epoch: float, cpu: float) -> GeneratorFacts:
    return GeneratorFacts(
        address=endpoint.name,
        started_monotonic=loop.started,
        started_epoch=epoch,
        wall_seconds=time.monotonic() - loop.started,
        cpu_seconds=time.process_time() - cpu,
        sending_seconds=loop.effort.seconds,
        sending_cpu_seconds=loop.effort.cpu_seconds,
        busiest_second_cpu_share=loop.effort.busiest_share,
        gc_pauses=pauses.count,
        gc_max_pause_seconds=pauses.longest_seconds,
        interrupted=loop.interrupted,
        unreachable=loop.unreachable,
        late_port_parity=loop.late_port_parity,
        not_closed_by_server=loop.not_closed_by_server,
    )


def main() -> None:
    """Run the orders of stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    driver = Driver()
    signal.signal(signal.SIGTERM, driver.end)
    driver.serve(sys.stdin)


if __name__ == "__main__":
    main()
