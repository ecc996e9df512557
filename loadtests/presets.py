"""The plan of an experiment: which variants, which loads, in which order. Pure.

Knows the factors of the 2017 experiment and how a rate follows from the measured limit. Touches
nothing and reads no clock, so the same calibration always gives the same plan.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, Final, Self

from loadtests.plan import Phase

AS_PUBLISHED_FACTOR: Final = 5
"""The post's public history has N = 5000 in the inline figures and N = 1000 in the commit that added
the offload: its offloaded requests did a fifth of the work."""

MEASURED_LOADS: Final = (0.5, 0.8, 0.95, 1.1)
"""Shares of the limit. The last is just above it: while such a queue is still short, every answer is in
time and the rate of answers is the capacity."""

OVERLOAD: Final = 1.5
ALL_AT_ONCE: Final = 1000
"""An accept batch that empties the kernel queue in one turn of the loop."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One configuration of the service; `s_seconds` is what one request costs by the calibration."""

    name: str
    title: str
    offload: str
    workers: int
    work_units: int
    s_seconds: float
    accept_batch: int = 1
    backlog: int = 128
    loop: str = "uvloop"
    overload_only: bool = False

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
            "work-units": self.work_units,
            "accept-batch": self.accept_batch,
            "backlog": self.backlog,
            "loop": self.loop,
        }
        return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One phase of load on one variant."""

    id: str
    variant: str
    round: int
    load: float  # share of the variant's limit
    rate: float  # requests per second
    duration_seconds: float

    @property
    def is_overload(self) -> bool:
        """Whether this phase is meant to leave a queue standing."""
        return self.load == OVERLOAD

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
    s_seconds: float  # CPU seconds of one request, calibrated once for all variants
    slo_seconds: float
    timeout_seconds: float
    visits: tuple[Visit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read a plan back; unknown or missing fields raise `TypeError`."""
        visits = tuple(
            Visit(
                variant=Variant(**visit["variant"]),
                steps=tuple(Step(**step) for step in visit["steps"]),
            )
            for visit in fields["visits"]
        )
        return cls(**{**fields, "visits": visits})

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


def quick(
    *,
    cores: int,
    work_units: int,
    s_seconds: float,
    rounds: int = 2,
    phase_seconds: float = 2.5,
    overload_seconds: float = 6.0,
) -> Plan:
    """The default preset: as published and controlled, in under three minutes on two cores.

    Each round visits all variants, every other round in reverse, so that a machine that drifts
    cannot favour the one that always comes first. Overload phases run in the first round, as the
    last step of their visit: what they leave behind disturbs nobody.
    """
    fifth = round(work_units / AS_PUBLISHED_FACTOR)
    fifth_seconds = s_seconds * fifth / work_units
    ms, fifth_ms = f"{s_seconds * 1e3:.2g} ms", f"{fifth_seconds * 1e3:.2g} ms"
    inline = Variant(
        name="inline",
        title=f"inline, {ms}",
        offload="inline",
        workers=1,
        work_units=work_units,
        s_seconds=s_seconds,
    )
    one = replace(inline, name="process-1", title=f"1 worker, {ms}", offload="process")
    variants = (
        inline,
        one,
        replace(one, name="process-cores", title=f"{cores} workers, {ms}", workers=cores),
        replace(
            one,
            name="process-1-fifth",
            title=f"1 worker, {fifth_ms} (as published)",
            work_units=fifth,
            s_seconds=fifth_seconds,
        ),
        replace(
            inline,
            name="inline-batch",
            title=f"inline, {ms}, accept batch {ALL_AT_ONCE}",
            accept_batch=ALL_AT_ONCE,
            overload_only=True,
        ),
    )
    visits = []
    for number in range(1, rounds + 1):
        for variant in variants if number % 2 else reversed(variants):
            loads = () if variant.overload_only else MEASURED_LOADS
            if number == 1:
                loads = (*loads, OVERLOAD)
            if loads:
                visits.append(_visit(variant, number, loads, phase_seconds, overload_seconds))
    return Plan(
        preset="quick",
        cores=cores,
        s_seconds=s_seconds,
        slo_seconds=0.5,
        timeout_seconds=5.0,
        visits=tuple(visits),
    )


def _visit(
    variant: Variant, number: int, loads: tuple[float, ...], phase_seconds: float, overload_seconds: float
) -> Visit:
    steps = tuple(
        Step(
            id=f"{number}-{variant.name}-{load:g}x",
            variant=variant.name,
            round=number,
            load=load,
            rate=round(load * variant.limit_per_second, 1),
            duration_seconds=overload_seconds if load == OVERLOAD else phase_seconds,
        )
        for load in loads
    )
    return Visit(variant=variant, steps=steps)
