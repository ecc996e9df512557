"""What an experiment consists of: factors, variants, steps, visits, and the plan of them all. Pure.

Knows how a rate follows from the measured limit, and how a plan is written down. Touches nothing and
reads no clock, so the same calibration always gives the same plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Self

from loadtests.load.phase import Phase

DATA: Final = "service.work:data"


class PlanError(Exception):
    """The factors make no experiment; the message is one sentence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the calibration found for one work function: so many units take so much CPU."""

    work_units: int
    s_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What is the same for all variants of an experiment unless a preset varies it."""

    work_ms: float = 4.0
    rounds: int = 2
    loads: tuple[float, ...] = (0.5, 0.8, 0.95, 1.1)  # shares of the limit
    phase_seconds: float = 2.5
    overload: float = 1.5  # share of the limit
    overload_seconds: float = 5.0
    accept_batch: int = 1
    backlog: int = 128
    loop: str = "uvloop"
    slo_seconds: float = 0.5
    timeout_seconds: float = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One configuration of the service; `s_seconds` is what one request costs by the calibration."""

    name: str
    title: str
    offload: str
    workers: int
    work_units: int
    s_seconds: float
    accept_batch: int
    backlog: int
    loop: str
    work: str = DATA
    protected: bool = False  # admission and deadlines as the service has them; else neither, as in the post

    @property
    def limit_per_second(self) -> float:
        """What the workers could answer if nothing else cost CPU: workers / S."""
        return self.workers / self.s_seconds

    def flags(self) -> list[str]:
        """The service's command line, on free ports."""
        chosen = {
            "port": 0,
            "admin-port": 0,
            "log-format": "json",
            "offload": self.offload,
            "workers": self.workers,
            "work": self.work,
            "work-units": self.work_units,
            "accept-batch": self.accept_batch,
            "backlog": self.backlog,
            "loop": self.loop,
            **({} if self.protected else {"queue-wait": "off", "deadline": "off"}),
        }
        return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]

    def with_work_of(self, share: float) -> Self:
        """The same variant with a share of the work per request."""
        units = max(1, round(self.work_units * share))
        return dataclasses.replace(self, work_units=units, s_seconds=self.s_seconds * units / self.work_units)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One phase of load on one variant.

    `kind`: "measure" for capacity and latency, "overload" for a phase meant to leave a queue
    standing, "ramp" for one of a row of rising rates, which is both.
    """

    id: str
    variant: str
    round: int
    kind: str
    load: float  # share of the variant's limit
    rate: float  # requests per second
    duration_seconds: float

    def phase(self, url: str, timeout_seconds: float) -> Phase:
        """The order for the generator."""
        return Phase(
            url=url, rate=self.rate, duration_seconds=self.duration_seconds, timeout_seconds=timeout_seconds
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One start of the service: a variant and the steps that run on it, overload last."""

    variant: Variant
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole experiment, as written to plan.json before the first connection."""

    preset: str
    cores: int
    factors: Factors
    visits: tuple[Visit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read a plan back; unknown or missing fields raise `TypeError`."""
        factors = {**fields["factors"], "loads": tuple(fields["factors"]["loads"])}
        visits = tuple(
            Visit(
                variant=Variant(**visit["variant"]),
                steps=tuple(Step(**step) for step in visit["steps"]),
            )
            for visit in fields["visits"]
        )
        return cls(**{**fields, "factors": Factors(**factors), "visits": visits})

    @property
    def variants(self) -> dict[str, Variant]:
        """Each variant once, in the order of its first visit."""
        return {visit.variant.name: visit.variant for visit in self.visits}

    @property
    def steps(self) -> list[Step]:
        """All steps in the order in which they run."""
        return [step for visit in self.visits for step in visit.steps]

    @property
    def load_seconds(self) -> float:
        """How long requests are sent, all steps together."""
        return sum(step.duration_seconds for step in self.steps)


def alternate(
    measured: Sequence[Variant], overloaded: Sequence[Variant], factors: Factors
) -> tuple[Visit, ...]:
    """Visits of all variants, every other round in reverse.

    A machine that drifts then cannot favour the variant that always comes first. Overload phases
    run in the first round, as the last step of their visit: what they leave behind disturbs nobody.
    """
    everyone = [*measured, *(variant for variant in overloaded if variant not in measured)]
    visits = []
    for number in range(1, factors.rounds + 1):
        for variant in everyone if number % 2 else everyone[::-1]:
            steps = [
                step_of(variant, number, "measure", load * variant.limit_per_second, factors.phase_seconds)
                for load in factors.loads
                if variant in measured
            ]
            if number == 1 and variant in overloaded:
                rate = factors.overload * variant.limit_per_second
                steps.append(step_of(variant, number, "overload", rate, factors.overload_seconds))
            if steps:
                visits.append(Visit(variant=variant, steps=tuple(steps)))
    return tuple(visits)


def step_of(variant: Variant, number: int, kind: str, rate: float, seconds: float) -> Step:
    """One step of round `number` at `rate` requests per second for `seconds`."""
    rate = round(rate, 1)
    return Step(
        id=f"{number}-{variant.name}-{kind}-{rate:g}",
        variant=variant.name,
        round=number,
        kind=kind,
        load=round(rate / variant.limit_per_second, 3),
        rate=rate,
        duration_seconds=seconds,
    )
