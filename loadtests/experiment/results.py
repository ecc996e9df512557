"""The measurements of an experiment, as types: open-loop phases, and the summary of a whole run. Pure.

Knows what each figure of a phase means. Every verdict and every drawing follows from the summary alone, so a
committed summary suffices to draw a report again.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, Literal

from loadtests.experiment.blocks import ENDED_EARLY, Block, Inputs, Stretch, block, generator_share, inputs
from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import HalfOpen, Ledger, reconcile
from loadtests.experiment.plan import Plan
from loadtests.experiment.recovery import Recovery
from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import Quantiles
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.machine import Environment
from loadtests.neighbours import MOST_STOLEN, MOST_STOLEN_ALONE

SLOWEST_WATCH: Final = 5.0
"""Least readings per second: with fewer, a queue can come and go unseen."""

PEAK_WINDOW_SECONDS: Final = 10.0
"""The time that the service's high-water mark covers."""


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
    S of this phase. `peak`: peak in flight, the most connections accepted and not completed, by the service's
    own high-water mark. `goodput_per_second`: answers as expected within the SLO of their intended start,
    inside the phase.
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
    """Order and readings of one open-loop phase."""

    id: str
    kind: Literal["overload", "ramp", "curve"]
    variant: str
    phase: Phase
    readings: tuple[Reading, ...]
    half_open: HalfOpen


def phase_result(plan: Plan, raw: Raw, samples: Sequence[Sample], facts: GeneratorFacts) -> PhaseResult:
    """One phase: the clients' summary, the service's figures, and the ledger of both."""
    variant, phase, rows = plan.variant(raw.variant), raw.phase, raw.readings
    client = summarise(samples, facts, phase, slo_seconds=plan.factors.slo_seconds)
    begin = facts.started_monotonic
    during = [row for row in rows if begin <= row.seconds <= begin + phase.duration_seconds] or [rows[0]]
    first, last = rows[0], rows[-1]
    tasks = last.tasks - first.tasks
    demand = (last.task_cpu_seconds - first.task_cpu_seconds) / tasks if tasks else None
    offered = client.offered_per_second or 0.0  # an open loop always offers
    # A phase that was interrupted at once has at most one reading while it sent.
    outer = (during[0], during[-1]) if len(during) > 1 else (first, last)
    shares = inputs(*outer, plan.cores, generator_share(facts))
    most_stolen = MOST_STOLEN_ALONE if raw.kind == "overload" else MOST_STOLEN
    faults = [*client.invalid_because, *shares.faults(most_stolen)]
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
        lateness_p99_seconds=client.lateness_seconds.p99,
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
    """Peak in flight while load was sent, from the service's high-water marks.

    A mark covers `PEAK_WINDOW_SECONDS`, perhaps from before the phase. Such a mark counts only if it is
    higher than the one at the beginning: then it was set since.
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
"""Blocks in one phase of the ramp, after the time in which a queue builds up."""

BUILD_UP_SECONDS: Final = 1.0


def stretches(plan: Plan, raw: Raw, facts: GeneratorFacts, number: int) -> list[Block]:
    """A phase of the ramp as blocks, each paired with one of the other variant at the same rate."""
    begin, seconds = facts.started_monotonic + BUILD_UP_SECONDS, raw.phase.duration_seconds
    length = (seconds - BUILD_UP_SECONDS) / STRETCHES
    edges = [
        min(raw.readings, key=lambda row: abs(row.seconds - (begin + k * length)))
        for k in range(STRETCHES + 1)
    ]
    sent_until = facts.started_monotonic + facts.sending_seconds
    return [
        block(
            plan.variant(raw.variant),
            Stretch(
                before=before,
                after=after,
                facts=facts,
                offered_per_second=raw.phase.rate,
                spoilt=[ENDED_EARLY] if facts.interrupted and after.seconds > sent_until else [],
            ),
            part="ramp",
            cycle=number * STRETCHES + k,
            cores=plan.cores,
        )
        for k, (before, after) in enumerate(itertools.pairwise(edges))
        if after.seconds > before.seconds
    ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What clients saw when one worker was killed while the service was saturated."""

    variant: str
    answered: int
    failed: int  # anything but the expected answer
    longest_seconds: float
    usual_p99_seconds: float | None  # of answers before the kill


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a run ended: complete, invalid, interrupted, failed, or still running."""

    state: Literal["running", "complete", "invalid", "interrupted", "failed"]
    invalid_because: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole run. Void blocks and invalid phases are kept, for the ledger; no verdict uses them."""

    status: Status
    environment: Environment
    plan: Plan
    blocks: tuple[Block, ...]
    phases: tuple[PhaseResult, ...]
    kills: tuple[Kill, ...]
    recoveries: tuple[Recovery, ...] = ()
