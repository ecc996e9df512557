"""What an experiment measured, as types: blocks, phases, and the summary of a whole run. Pure.

Knows what each figure means and which figures make a block worth nothing. Every verdict and every drawing is
made from the summary alone, so a committed summary is enough to draw a report again.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, Literal

from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import HalfOpen, Ledger, reconcile
from loadtests.experiment.plan import Plan, Variant
from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from loadtests.load.results import Quantiles
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.machine import Environment

MOST_STOLEN: Final = 0.01
"""Of the machine's CPU time in a block. A hypervisor that takes more strikes one side of a pair and not the
other, for it takes turns of tens of milliseconds."""

MOST_OTHERS: Final = 0.05
"""The same for processes that are not ours. Below it is the machine's own house-keeping, and the error of a
figure that the kernel counts in ticks of 10 ms."""

MOST_THROTTLED: Final = 0.01
MOST_GENERATOR: Final = 0.8
"""Of one core while sending: one thread that is busier has begun to queue up its own work."""

SLOWEST_WATCH: Final = 5.0
"""Readings per second: with fewer, a queue can come and go unseen."""

PEAK_WINDOW_SECONDS: Final = 10.0
"""How far back the service's high-water mark reaches."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Who used the machine between two readings, as shares of all its CPU time."""

    stolen: float
    others: float
    throttled: float
    generator: float  # of one core, while it sent

    def faults(self) -> tuple[str, ...]:
        """Why what was measured meanwhile says nothing about the service; empty if it may be judged.

        By what went in alone, never by what came out: who drops blocks for their results finds what he seeks.
        """
        found = []
        if self.stolen > MOST_STOLEN:
            found.append(f"the hypervisor took {self.stolen:.0%} of the CPU time")
        if self.others > MOST_OTHERS:
            found.append(f"other processes of this machine used {self.others:.0%} of its CPU time")
        if self.throttled > MOST_THROTTLED:
            found.append(f"a CPU quota held us up for {self.throttled:.0%} of the CPU time")
        if self.generator > MOST_GENERATOR:
            found.append(f"the load generator was busy for {self.generator:.0%} of its core")
        return tuple(found)


def inputs(before: Reading, after: Reading, cores: float, generator: float) -> Inputs:
    """The shares between two readings; `generator` is its share of one core."""
    time = (after.seconds - before.seconds) * cores
    ours = after.ours_seconds - before.ours_seconds
    return Inputs(
        stolen=(after.stolen_seconds - before.stolen_seconds) / time,
        others=max(after.busy_seconds - before.busy_seconds - ours, 0.0) / time,
        throttled=(after.throttled_seconds - before.throttled_seconds) / time,
        generator=generator,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A saturated service between two readings of its own counters.

    `cycle`: what it is paired by. `part`: "cycle"; "beside", which no claim needs; or "ramp", a stretch of a
    phase of the ramp. `offered_per_second`: None in a closed loop, which always asks for more.
    """

    part: Literal["cycle", "beside", "ramp"]
    cycle: int
    variant: str
    workers: int
    offered_per_second: float | None
    seconds: float
    tasks: int
    work_cpu_seconds: float
    io_cpu_seconds: float  # of the IO process without work that ran in it
    generator_cpu_seconds: float
    inputs: Inputs
    outcomes: dict[str, int]
    ledger: Ledger | None  # of a stretch of a phase the phase has it
    void_because: tuple[str, ...] = ()

    @property
    def throughput_per_second(self) -> float:
        """X: units of work done per second."""
        return self.tasks / self.seconds

    @property
    def utilisation(self) -> float:
        """U = X x S: CPU seconds that the workers spent on the work, per second; cores' worth of work."""
        return self.work_cpu_seconds / self.seconds

    @property
    def demand_seconds(self) -> float:
        """S: CPU seconds of one unit of work."""
        return self.work_cpu_seconds / self.tasks

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


def block(
    variant: Variant,
    before: Reading,
    after: Reading,
    *,
    part: Literal["cycle", "beside", "ramp"],
    cycle: int,
    cores: float,
    facts: GeneratorFacts,
    offered_per_second: float | None = None,
    outcomes: dict[str, int] | None = None,
    ledger: Ledger | None = None,
    ended_early: bool = False,
) -> Block:
    """What happened between two readings, and whether it may be judged.

    `ended_early`: the load ended before the second reading, so part of it is of an idle service.
    """
    seconds = after.seconds - before.seconds
    generator = facts.sending_cpu_seconds / facts.sending_seconds
    work = after.task_cpu_seconds - before.task_cpu_seconds
    io = after.io_cpu_seconds - before.io_cpu_seconds
    shares = inputs(before, after, cores, generator)
    faults = list(shares.faults())
    tasks = after.tasks - before.tasks
    if ended_early:
        faults.append("a reading came after the load had ended: the machine stood still")
    if tasks < 1 or work <= 0:
        faults.append("not one unit of work was done")
    return Block(
        part=part,
        cycle=cycle,
        variant=variant.name,
        workers=variant.workers,
        offered_per_second=offered_per_second,
        seconds=seconds,
        tasks=tasks,
        work_cpu_seconds=work,
        io_cpu_seconds=max(io - work, 0.0) if variant.offload in ("inline", "thread") else io,
        generator_cpu_seconds=generator * seconds,
        inputs=shares,
        outcomes=outcomes or {},
        ledger=ledger,
        void_because=tuple(faults),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Counts since a phase began, at each reading: three cumulative curves and the two queues."""

    seconds: tuple[float, ...]
    offered: tuple[int, ...]
    accepted: tuple[int, ...]
    completed: tuple[int, ...]
    kernel_queue: tuple[int, ...]
    offload_queue: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """One open-loop phase.

    `kind`: "overload", "ramp", or "curve" (latency at one rate). `pressure`: offered x S / workers, with the
    S of this phase. `peak`: most connections accepted and not completed, by the service's own high-water
    mark. `goodput_per_second`: answers as expected within the SLO of their intended start, inside the phase.
    """

    id: str
    kind: Literal["overload", "ramp", "curve"]
    variant: str
    workers: int
    seconds: float
    offered_per_second: float
    goodput_per_second: float
    achieved_per_second: float
    latency_seconds: Quantiles
    lateness_p99_seconds: float | None
    samples: int
    tasks: int
    demand_seconds: float | None
    pressure: float | None
    peak: int
    kernel_queue_max: int
    kernel_queue_limit: int
    offload_queue_max: int
    outcomes: dict[str, int]
    ledger: Ledger
    inputs: Inputs
    interrupted: bool
    invalid_because: tuple[str, ...]
    timeline: Timeline | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Everything that was kept of one open-loop phase."""

    id: str
    kind: Literal["overload", "ramp", "curve"]
    variant: str
    phase: Phase
    readings: tuple[Reading, ...]
    half_open: HalfOpen


def phase_result(plan: Plan, raw: Raw, samples: Sequence[Sample], facts: GeneratorFacts) -> PhaseResult:
    """One phase: the clients' summary, the service's figures, and both books reconciled."""
    variant, phase, rows = plan.variant(raw.variant), raw.phase, raw.readings
    client = summarise(samples, facts, phase, slo_seconds=plan.factors.slo_seconds)
    begin = facts.started_monotonic
    during = [row for row in rows if begin <= row.seconds <= begin + phase.duration_seconds] or [rows[0]]
    first, last = rows[0], rows[-1]
    tasks = last.tasks - first.tasks
    demand = (last.task_cpu_seconds - first.task_cpu_seconds) / tasks if tasks else None
    offered = client.offered_per_second
    shares = inputs(
        during[0],
        during[-1] if during[-1].seconds > during[0].seconds else rows[-1],
        plan.cores,
        facts.sending_cpu_seconds / facts.sending_seconds,
    )
    faults = [*client.invalid_because, *shares.faults()]
    elapsed = during[-1].seconds - during[0].seconds
    if elapsed and (len(during) - 1) / elapsed < SLOWEST_WATCH:
        faults.append(f"the service could only be watched {(len(during) - 1) / elapsed:.1f} times a second")
    return PhaseResult(
        id=raw.id,
        kind=raw.kind,
        variant=raw.variant,
        workers=variant.workers,
        seconds=client.window_seconds,
        offered_per_second=offered,
        goodput_per_second=client.goodput_per_second,
        achieved_per_second=client.achieved_per_second,
        latency_seconds=client.latency_seconds,
        lateness_p99_seconds=client.lateness_seconds.p99 if client.lateness_seconds else None,
        samples=len(samples),
        tasks=tasks,
        demand_seconds=demand,
        pressure=offered * demand / variant.workers if demand else None,
        peak=peak(rows, begin, phase.duration_seconds),
        kernel_queue_max=max(row.kernel_queue for row in during),
        kernel_queue_limit=first.kernel_queue_limit,
        offload_queue_max=max(row.offload_queue for row in during),
        outcomes=client.outcomes,
        ledger=reconcile(samples, first, last, raw.half_open),
        inputs=shares,
        interrupted=facts.interrupted,
        invalid_because=tuple(dict.fromkeys(faults)),
        timeline=timeline(samples, rows, begin, every=10 if raw.kind == "ramp" else 1)
        if raw.kind != "curve"
        else None,
    )


def peak(rows: Sequence[Reading], begin: float, duration_seconds: float) -> int:
    """Most connections held while load was sent, out of the service's high-water marks.

    A mark reaches back for `PEAK_WINDOW_SECONDS`, perhaps to before the phase. One that reaches back so far
    counts only if it is higher than the mark at the beginning was: then it was set since.
    """
    most = 0
    for row in rows:
        if begin <= row.seconds <= begin + duration_seconds:
            set_since = row.seconds - PEAK_WINDOW_SECONDS >= begin or row.peak > rows[0].peak
            most = max(most, row.peak if set_since else row.active)
    return most


def timeline(samples: Sequence[Sample], rows: Sequence[Reading], begin: float, *, every: int) -> Timeline:
    """The curves at each `every`th reading."""
    due = sorted(sample.intended for sample in samples)
    base, kept = rows[0], rows[::every]
    return Timeline(
        seconds=tuple(round(row.seconds - begin, 3) for row in kept),
        offered=tuple(bisect_right(due, row.seconds) for row in kept),
        accepted=tuple(row.accepted - base.accepted for row in kept),
        completed=tuple(row.completed - base.completed for row in kept),
        kernel_queue=tuple(row.kernel_queue for row in kept),
        offload_queue=tuple(row.offload_queue for row in kept),
    )


STRETCHES: Final = 4
"""Blocks in one phase of the ramp; what a queue needs to build up comes before the first."""

BUILD_UP_SECONDS: Final = 1.0


def stretches(plan: Plan, raw: Raw, facts: GeneratorFacts, number: int) -> list[Block]:
    """A phase of the ramp as blocks, to be paired with those of the other variant at the same rate."""
    begin, seconds = facts.started_monotonic + BUILD_UP_SECONDS, raw.phase.duration_seconds
    length = (seconds - BUILD_UP_SECONDS) / STRETCHES
    edges = [
        min(raw.readings, key=lambda row: abs(row.seconds - (begin + k * length)))
        for k in range(STRETCHES + 1)
    ]
    return [
        block(
            plan.variant(raw.variant),
            before,
            after,
            part="ramp",
            cycle=number * STRETCHES + k,
            cores=plan.cores,
            facts=facts,
            offered_per_second=raw.phase.rate,
        )
        for k, (before, after) in enumerate(itertools.pairwise(edges))
        if after.seconds > before.seconds
    ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What clients saw of one worker killed while the service was saturated."""

    variant: str
    answered: int
    failed: int  # anything but the expected answer
    longest_seconds: float
    usual_p99_seconds: float | None  # of answers that ended before the kill


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a run ended: complete, invalid, interrupted, failed, or still running."""

    state: Literal["running", "complete", "invalid", "interrupted", "failed"]
    invalid_because: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole run. Void blocks and invalid phases are kept: no verdict uses them, the ledger does."""

    status: Status
    environment: Environment
    plan: Plan
    blocks: tuple[Block, ...]
    phases: tuple[PhaseResult, ...]
    kills: tuple[Kill, ...]
