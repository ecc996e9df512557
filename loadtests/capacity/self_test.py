"""Searches for the ceiling of the generator: how many connections a second it makes on time.

Knows the null responder. Touches that child process and the generator.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtests.capacity.search import Search
from loadtests.load.ceiling import Ceiling
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from loadtests.load.results import RunSummary
from loadtests.load.summary import summarise

START: Final = 1500.0  # connections/s, which a slow core manages
TRIAL_SECONDS: Final = 2.0
HOLD_SECONDS: Final = 6.0
MOST_TRIALS: Final = 30

# The ceiling moves with the speed of the generator's core: trials switch between on time and late over some
# 10 %, so a narrower result means nothing.
SPREAD: Final = 0.02
WIDTH: Final = 0.1


def measure(trial: Callable[[float, float], RunSummary], console: Console) -> Ceiling | None:
    """Search for the ceiling; None if no trial was on time, or all were.

    `trial`: sends a rate for a number of seconds.
    """
    search = Search(START, spread=SPREAD, width=WIDTH)
    cpu, why = 0.0, ""
    for _ in range(MOST_TRIALS):
        if (ask := search.ask()) is None:
            break
        summary = trial(ask.load, HOLD_SECONDS if ask.hold else TRIAL_SECONDS)
        valid = not summary.invalid_because
        search.note(ask.load, passed=valid, hold=ask.hold)
        if valid:
            cpu = summary.generator.cpu_share * summary.window_seconds / max(summary.ledger.sent, 1)
        else:
            why = summary.invalid_because[0]
        told = "on time" if valid else why
        console.print(f"{ask.load:7.0f}/s  {told}", markup=False, highlight=False, soft_wrap=True)
    bracket = search.bracket
    if bracket.low is None or bracket.high is None:
        return None
    return Ceiling(per_second=bracket.low, above_per_second=bracket.high, cpu_seconds=cpu, why=why)


@contextlib.contextmanager
def trials() -> Iterator[Callable[[float, float], RunSummary]]:
    """Trials against a null responder in a process of its own; stops it and the generator afterwards."""
    command = [sys.executable, "-m", "loadtests.load.responder"]
    with (
        tempfile.TemporaryDirectory(prefix="offloop-self-test-") as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as responder,
        Generator() as generator,
    ):
        assert responder.stdin is not None
        assert responder.stdout is not None
        url = f"http://127.0.0.1:{int(responder.stdout.readline())}/"
        path = Path(folder) / "samples.json"

        def trial(rate: float, seconds: float) -> RunSummary:
            phase = Phase(url=url, rate=rate, duration_seconds=seconds)
            with contextlib.closing(generator.run(phase, path)) as sending:
                for _ in sending:
                    pass
            samples, facts = read_samples(path)
            return summarise(samples, facts, phase)

        try:
            yield trial
        finally:
            responder.stdin.close()
