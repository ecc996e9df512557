"""The load generator as a process of its own: `python -m loadtests.load.driver`.

Reads orders from stdin, one JSON line each, `{"phase": {...}, "samples_path": "..."}`, until it is
closed. Of each phase it writes lines of progress to stdout (a pipe) five times a second, leaves a file
of samples, and says last `{"end": null}`, or `{"end": "why it could not start"}`. Knows the clocks:
nobody else in loadtests/load reads them. Touches stdin, stdout, signals and those files. Never draws,
sums up or judges.

A process of its own, so that nothing the parent does can delay a send. Ctrl-C goes to the whole
group and is ignored here, for the parent decides; SIGTERM or a vanished parent means: stop, mark
what was under way, write the file, end.
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
    """Counts and times the collections of the GC: pauses in which nothing is sent."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_seconds = 0.0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def restart(self) -> None:
        """Collect what the last phase left, take what stays out of all later collections, count anew."""
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
    """How long the main thread was ready to run and had no core, by the kernel's own account, seconds.

    proc(5): the second number of schedstat, in nanoseconds; a reading costs 1.5 us. Stays at zero
    where the kernel keeps no such account.
    """

    def __init__(self, path: Path = Path("/proc/self/schedstat")) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        """Read the account."""
        if self._descriptor is None:
            return 0.0
        return int(os.pread(self._descriptor, 100, 0).split(None, 2)[1]) / 1e9


def emit(message: dict[str, Any], *, wait: bool = False) -> bool:
    """Write one line to stdout; False when nobody reads any more.

    Without `wait` it never blocks: a pipe takes up to PIPE_BUF bytes whole or not at all (pipe(7)),
    and a slow reader misses a line of progress.
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
    """Serves one order after the other."""

    def __init__(self) -> None:
        self._loop: LoadLoop | None = None
        self._ended = False
        self._waiting = True  # for an order or an address: there is nothing yet to keep
        self._pauses = GcPauses()
        self._clocks = Clocks(wall=time.monotonic, cpu=time.process_time, core_wait=CoreWait())

    def serve(self, orders: Iterable[str]) -> None:
        """Run the phase of each line until there are no more, or until `end`."""
        for line in orders:
            order = json.loads(line)
            problem = self._run(Phase.from_json(order["phase"]), Path(order["samples_path"]))
            if self._ended or not emit({"end": problem}, wait=True):
                break

    def end(self, *_: object) -> None:
        """Stop the phase under way, and serve no other: the handler of SIGTERM.

        It may come while the GC calls back, where an exception would be reported and lost. So what sends
        looks at `_ended`, and what waits, with nothing to keep, ends without one.
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
        # Sockets with a range of their own take any port of it (inet_hash_connect).
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
    """Serve the orders of stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    driver = Driver()
    signal.signal(signal.SIGTERM, driver.end)
    driver.serve(sys.stdin)


if __name__ == "__main__":
    main()
