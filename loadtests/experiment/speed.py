"""The speed of the cores while a block is measured, by a fixed piece of work. Linux only.

Touches one thread of this process. Knows nothing of the block.

Why: each core of a shared machine may be half as fast for a second or ten, because other guests of its
physical core compute too. The CPU time of a unit of work then doubles. Utilisation does not change with that,
throughput does, and two blocks that are seconds apart have different speeds. So a small fixed piece of work
runs again and again during the block, on the core on which the worker runs at that moment, and its CPU time
measures the speed of that core. Throughput times this CPU time is throughput at equal speed.

Cost: about 1 % of a core, in every block alike. Limit: a slowness that the block itself causes, by filling
both threads of one physical core, is taken out as well; raw throughput is shown beside it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Final, Self

import psutil

INTERVAL_SECONDS: Final = 0.025
UNITS: Final = 1200
"""Units of the kind of work that the service does: 0.16 ms on a fast core of the machine used to choose
it."""


def piece(units: int = UNITS) -> int:
    """A fixed amount of interpreted work: format strings and add up their lengths."""
    return sum(len(f"Value: {number}") for number in range(units))


class Speed:
    """A context manager: meanwhile a thread follows the processes `pids` from core to core.

    `seconds`: CPU seconds of one piece meanwhile; None if no piece could be run.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._workers = [psutil.Process(pid) for pid in pids]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speed", daemon=True)
        self._taken: list[float] = []

    def __enter__(self) -> Self:
        if hasattr(os, "sched_setaffinity"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether nothing was measured although it could be: the processes to follow are gone."""
        return hasattr(os, "sched_setaffinity") and not self._taken

    @property
    def seconds(self) -> float | None:
        """CPU seconds of one piece, as a harmonic mean: work is the integral of speed, 1 / seconds."""
        return len(self._taken) / sum(1 / seconds for seconds in self._taken) if self._taken else None

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(INTERVAL_SECONDS):
            with contextlib.suppress(psutil.Error, OSError):  # it has ended, or we may not use its core
                core = self._workers[number % len(self._workers)].cpu_num()
                os.sched_setaffinity(0, {core})  # of this thread alone (sched_setaffinity(2))
                began = time.thread_time()
                piece()
                self._taken.append(time.thread_time() - began)
            number += 1
