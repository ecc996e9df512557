"""Trials against a service: sends one load after another, and reads the metrics of an offloop service.

Knows what to measure together. Touches the generator, the service's admin port if there is one, and /proc
through the witness. Never decides which load comes next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from loadtests.capacity.results import Saturation
from loadtests.capacity.trial import WAIT_SECONDS, Trial, Watched, Work, demand, seconds_needed, trial_of
from loadtests.experiment.child import ServiceError
from loadtests.experiment.counters import scrape
from loadtests.load.endpoint import make_endpoint
from loadtests.load.facts import GeneratorFacts
from loadtests.load.generator import Generator, read_samples
from loadtests.load.order import Machine
from loadtests.load.phase import Phase, Target
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.load.surroundings import Surroundings
from loadtests.load.thresholds import Threshold
from loadtests.load.witness import Witness

SATURATION_SECONDS: Final = 2.0
HOLD: Final = 3.0
"""The length of a hold, in trials."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to find.

    `phase`: the request, and how long to wait for its answer; its rate and duration are replaced. `clients`:
    of the closed loop. `admin_url`: of an offloop service, which reports its service demand S; None for any
    other service.
    """

    phase: Phase
    thresholds: tuple[Threshold, ...]
    clients: int
    budget_seconds: float
    admin_url: str | None
    machine: Machine = dataclasses.field(default_factory=Machine)


class Bench:
    """Trials with one load generator; a context manager.

    Raises `ServiceError` if an admin port stops answering, `GeneratorError` if the generator breaks.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._address = make_endpoint(order.phase).address
        figures = {} if order.admin_url is None else scrape(order.admin_url)
        self.workers = int(figures["workers"]) if figures.get("workers") else None

    def __enter__(self) -> Self:
        """Make a folder for the samples."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="offloop-capacity-"))
            self._path = Path(folder) / "samples.json"
            self._generator = stack.enter_context(Generator())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the generator."""
        self._stack.close()

    def saturate(self) -> Saturation:
        """Keep clients in a closed loop busy for a moment."""
        phase = dataclasses.replace(
            self._order.phase,
            rate=None,
            clients=self._order.clients,
            duration_seconds=SATURATION_SECONDS,
        )
        samples, facts, readings, _ = self._send(phase)
        return Saturation(
            clients=self._order.clients,
            throughput_per_second=summarise(samples, facts, phase).achieved_per_second,
            demand_seconds=demand(readings[0], readings[-1]) if readings else None,
        )

    def trial(self, rate: float, *, hold: bool) -> Trial:
        """Offer one rate."""
        thresholds = self._order.thresholds
        seconds = seconds_needed(rate, thresholds) * (HOLD if hold else 1.0)
        phase = dataclasses.replace(self._order.phase, rate=rate, clients=None, duration_seconds=seconds)
        samples, facts, readings, surroundings = self._send(phase)
        return trial_of(
            summarise(samples, facts, phase, thresholds=thresholds, surroundings=surroundings),
            samples,
            facts.started_monotonic,
            hold=hold,
            watched=Watched(
                readings=readings,
                workers=self.workers,
                wait_seconds=min(
                    (each.bound for each in thresholds if each.is_latency), default=WAIT_SECONDS
                ),
            ),
        )

    def _send(self, phase: Phase) -> tuple[list[Sample], GeneratorFacts, list[Work], Surroundings]:
        readings = self._read()
        machine = self._order.machine
        with (
            Witness(self._address, machine.server_processes) as witness,
            contextlib.closing(self._generator.run(phase, self._path)) as sending,
        ):
            for progress in sending:  # five times a second
                witness.look(progress.elapsed_seconds)
                readings += self._read()
        readings += self._read()
        samples, facts = read_samples(self._path)
        ours = (sample.local_port for sample in samples)
        return samples, facts, readings, witness.surroundings(ours, shared_machine=machine.shared)

    def _read(self) -> list[Work]:
        if self._order.admin_url is None:
            return []
        figures = scrape(self._order.admin_url)
        return [
            Work(seconds=time.monotonic(), tasks=figures["tasks"], cpu_seconds=figures["task_cpu_seconds"])
        ]


def admin_url_of(url: str) -> str | None:
    """The admin endpoint of an offloop service: the next port, if it has our metrics; else None."""
    target = Target.parse(url)
    guess = f"http://{target.authority.rpartition(':')[0] or target.host}:{target.port + 1}"
    try:
        return guess if scrape(guess).get("workers") else None
    except (ServiceError, ValueError):
        return None
