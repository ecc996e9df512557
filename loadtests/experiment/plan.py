"""What an experiment consists of: factors, variants, cycles, phases, and the plan of them all. Pure.

Knows how an order follows from a seed. Touches nothing and reads no clock, so the same calibration and seed
always give the same plan.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final

from loadtests.exits import UsageError

DATA: Final = "service.work:data"

FIRST_LOOK: Final = 12
"""Cycles before anything is judged. At the level of one of several claims and one of three looks, eight pairs
have no finite exact interval; with a t interval eight pairs once found a difference of inline and inline."""


class PlanError(UsageError):
    """No experiment is possible with these factors; the message is one sentence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the calibration found for one work function: units of work and their CPU time."""

    work_units: int
    s_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What can be set for an experiment; a preset has its own defaults. The field names are flags."""

    work_ms: float = 4.0
    work_units: int | None = (
        None  # of one request, instead of calibrating; for instance from another run's plan
    )
    cycles: int = FIRST_LOOK  # before the first look
    more_cycles: int = 8  # most cycles to add for undecided claims, while there is time
    block_seconds: float = 1.2  # between the two readings of a block
    settle_seconds: float = 0.3  # of a block, before the first reading
    clients: int = 8  # of a block, per worker
    overload: float = 1.5  # times the limit, workers / S as just measured
    overload_seconds: float = 2.5
    overload_repeats: int = 3
    budget_seconds: float = 165.0  # for cycles and overloads; one that has begun is finished
    accept_batch: int = 1  # as the post's loop did
    backlog: int = 1024
    loop: str = "uvloop"
    slo_seconds: float = 0.5
    timeout_seconds: float = 5.0
    base: float = 0.6  # load before and after a trigger, times the limit; the trigger itself is an overload
    before_seconds: int = 4
    after_seconds: int = 30
    retries: int = 3  # of clients that retry, for each request at most
    seed: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One configuration of the service."""

    name: str
    title: str
    offload: str
    workers: int
    work_units: int
    accept_batch: int
    backlog: int
    loop: str
    work: str = DATA
    protected: bool = False  # admission and deadlines as by default; else neither, as in the post

    def flags(self) -> list[str]:
        """The service's command line, on free ports.

        The workers are not niced, as they are by the service's default: a neighbour would then slow down
        the variants with workers and not the one without.
        """
        chosen = {
            "port": 0,
            "admin-port": 0,
            "log-format": "json",
            "offload": self.offload,
            "workers": self.workers,
            "worker-nice": 0,
            "work": self.work,
            "work-units": self.work_units,
            "accept-batch": self.accept_batch,
            "backlog": self.backlog,
            "loop": self.loop,
            **({} if self.protected else {"queue-wait": "off", "deadline": "off"}),
        }
        return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Rising rates: at each rate one phase of each variant, seconds apart."""

    variants: tuple[str, ...]
    rates_per_second: tuple[float, ...]
    phase_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One design whose clients retry in one way. `design`: a variant of ours, or one of loadtests/peers."""

    name: str
    title: str
    design: str
    retry: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A load above the limit between a base load before and after it; each case meets it by itself.

    `variant`: ours; its work and its workers are those of every design. `base`, `peak`: loads, as multiples
    of the limit, workers / S as measured just before each case. `retries`: of each request at most.
    """

    variant: str
    cases: tuple[Case, ...]
    base: float
    peak: float
    before_seconds: int
    seconds: int
    after_seconds: int
    retries: int

    @property
    def all_seconds(self) -> int:
        """From the first request of a case to its last."""
        return self.before_seconds + self.seconds + self.after_seconds

    def segments(self, limit_per_second: float) -> tuple[tuple[float, float], ...]:
        """The rates and for how many seconds each is offered."""
        base, peak = (round(times * limit_per_second, 1) for times in (self.base, self.peak))
        return (base, self.before_seconds), (peak, self.seconds), (base, self.after_seconds)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole experiment, as written to plan.json before the first connection.

    `measured`: variants with a block in every cycle. `beside`: variants of a few more cycles, which no claim
    needs. `overloaded`, `ramp`, `curve`: variants with open-loop phases. `killed`: variants that lose a
    worker. `trigger`: cases, each with a design of its own.
    """

    preset: str
    cores: float  # a fraction under a quota
    factors: Factors
    variants: tuple[Variant, ...]
    measured: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    overloaded: tuple[str, ...] = ()
    curve: tuple[str, ...] = ()
    killed: tuple[str, ...] = ()
    ramp: Ramp | None = None
    trigger: Trigger | None = None

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            LookupError: the plan has none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise LookupError(f"no variant {name!r} in this plan")

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many cycles the claims are judged."""
        first, more = self.factors.cycles, self.factors.more_cycles
        return tuple(sorted({first, first + more // 2, first + more}))

    def order(self, names: tuple[str, ...], cycle: int) -> tuple[str, ...]:
        """The order of the variants' blocks in one cycle; cycles count from 1.

        Every odd cycle is shuffled, every even one mirrors the one before: a steady drift through both then
        affects all variants alike, at the same mean time.
        """
        shuffled = list(names)
        random.Random(f"{self.factors.seed}:{(cycle + 1) // 2}").shuffle(shuffled)
        return tuple(shuffled if cycle % 2 else reversed(shuffled))

    def block_seconds(self) -> float:
        """About how long one block takes, with its start, its end and the readings."""
        return self.factors.settle_seconds + self.factors.block_seconds + 0.25

    def overload_seconds(self) -> float:
        """About how long one overload of each variant takes: draining takes half its length."""
        return len(self.overloaded) * self.factors.overload_seconds * 1.5

    def case_seconds(self) -> float:
        """About how long one case of the trigger takes: a block, a start, the load, and the last to give up,
        after all their retries or with none.
        """
        if self.trigger is None:
            return 0.0
        last = (1 + self.trigger.retries / 2) * self.factors.timeout_seconds
        return self.block_seconds() + 1.5 + self.trigger.all_seconds + last

    def seconds_after_cycles(self, beside_cycles: int) -> float:
        """About how long everything after the cycles takes."""
        overloads = self.factors.overload_repeats * self.overload_seconds()
        return overloads + beside_cycles * len(self.beside) * self.block_seconds() + 3.0 * len(self.killed)
