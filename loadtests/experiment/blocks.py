"""A block: a saturated service between two readings, and whether it may be judged. Pure.

Knows what throughput, utilisation and service demand are, and which inputs spoil a block. Its results never
decide whether a block is void.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Literal

from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import Ledger
from loadtests.experiment.plan import Variant
from loadtests.load.facts import GeneratorFacts
from loadtests.neighbours import MOST_STOLEN, Shares, Usage, shares

ENDED_EARLY: Final = "a reading came after the load had ended: the machine stood still"
NO_SPEED: Final = "the worker could not be followed: it was replaced meanwhile"
"""A block without a speed, paired with one that has a speed, would be a ratio of two different figures."""

MOST_GENERATOR: Final = 0.8
"""Of one core while sending: a busier thread queues its own sends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs(Shares):
    """Use of the machine between two readings, and how busy the generator was."""

    generator: float  # share of one core, while it sent

    def faults(self, most_stolen: float = MOST_STOLEN) -> tuple[str, ...]:
        """Why what was measured meanwhile says nothing about the service; empty if it may be judged."""
        found = Shares.faults(self, most_stolen)
        if self.generator > MOST_GENERATOR:
            found = (*found, f"the load generator was busy for {self.generator:.0%} of its core")
        return found


def inputs(before: Usage, after: Usage, cores: float, generator: float) -> Inputs:
    """The shares between two readings; `generator` is its share of one core."""
    return Inputs(**dataclasses.asdict(shares(before, after, cores)), generator=generator)


def generator_share(facts: GeneratorFacts) -> float:
    """Share of one core while the generator sent; 0 if it was stopped before it began."""
    return facts.sending_cpu_seconds / facts.sending_seconds if facts.sending_seconds else 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A saturated service between two readings of its own counters.

    `cycle`: blocks of the same cycle are paired. `part`: "cycle"; "beside", which no claim needs; or "ramp",
    a stretch of a phase of the ramp. `offered_per_second`: None in a closed loop, which always asks for more.
    `piece_seconds`: CPU seconds of a fixed piece of work on the worker's core meanwhile (speed.py); None: not
    measured.
    """

    part: Literal["cycle", "beside", "ramp"]
    cycle: int
    variant: str
    workers: int
    offered_per_second: float | None
    seconds: float
    tasks: int
    work_cpu_seconds: float
    io_cpu_seconds: float  # of the IO process, without the work that ran in it
    generator_cpu_seconds: float
    inputs: Inputs
    outcomes: dict[str, int]
    ledger: Ledger | None  # None for a stretch of a phase, which has its own
    piece_seconds: float | None = None
    void_because: tuple[str, ...] = ()

    @property
    def throughput_per_second(self) -> float:
        """X: units of work done per second."""
        return self.tasks / self.seconds

    @property
    def utilisation(self) -> float:
        """U = X x S: CPU seconds of work per second, in cores."""
        return self.work_cpu_seconds / self.seconds

    @property
    def demand_seconds(self) -> float:
        """S, the service demand: CPU seconds of one unit of work."""
        return self.work_cpu_seconds / self.tasks

    @property
    def steady_throughput(self) -> float:
        """X at equal speed: units of work done in the time of one piece on the worker's core.

        Only its ratio to another block's has a meaning. Without a measured speed it is X itself.
        """
        return self.throughput_per_second * (self.piece_seconds or 1.0)

    @property
    def steady_demand(self) -> float:
        """S at equal speed: one unit of work in pieces; S itself without a measured speed."""
        return self.demand_seconds / (self.piece_seconds or 1.0)

    @property
    def io_seconds_per_request(self) -> float:
        """CPU seconds of the IO process for one request."""
        return self.io_cpu_seconds / self.tasks

    def share_of_left(self, cores: float) -> float:
        """U as a share of the cores that generator and IO process leave to the work."""
        return self.work_cpu_seconds / (
            cores * self.seconds - self.generator_cpu_seconds - self.io_cpu_seconds
        )

    @property
    def pressure(self) -> float:
        """What was offered as a share of workers / S; infinite in a closed loop."""
        if self.offered_per_second is None:
            return float("inf")
        return self.offered_per_second * self.demand_seconds / self.workers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of load: two readings, and what generator and clients report of the time between them.

    `spoilt`: what went wrong in measuring it. The other fields are those of `Block`.
    """

    before: Reading
    after: Reading
    facts: GeneratorFacts
    offered_per_second: float | None = None
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
    ledger: Ledger | None = None
    piece_seconds: float | None = None
    spoilt: Sequence[str] = ()


def block(
    variant: Variant,
    stretch: Stretch,
    *,
    part: Literal["cycle", "beside", "ramp"],
    cycle: int,
    cores: float,
) -> Block:
    """What happened in a stretch of load, and whether it may be judged."""
    before, after = stretch.before, stretch.after
    seconds = after.seconds - before.seconds
    generator = generator_share(stretch.facts)
    work = after.task_cpu_seconds - before.task_cpu_seconds
    io = after.io_cpu_seconds - before.io_cpu_seconds
    shares = inputs(before, after, cores, generator)
    faults = [*shares.faults(), *stretch.spoilt]
    tasks = after.tasks - before.tasks
    if tasks < 1 or work <= 0:
        faults.append("not one unit of work was done")
    return Block(
        part=part,
        cycle=cycle,
        variant=variant.name,
        workers=variant.workers,
        offered_per_second=stretch.offered_per_second,
        seconds=seconds,
        tasks=tasks,
        work_cpu_seconds=work,
        io_cpu_seconds=max(io - work, 0.0) if variant.offload in ("inline", "thread") else io,
        generator_cpu_seconds=generator * seconds,
        inputs=shares,
        outcomes=stretch.outcomes,
        ledger=stretch.ledger,
        piece_seconds=stretch.piece_seconds,
        void_because=tuple(faults),
    )
