"""From blocks to rows: each design against offloop, cycle by cycle. Pure.

A pair is a block of offloop and one of the design in the *same* cycle, seconds apart: the speed of the
machine cancels out in their ratio. Ratios of blocks that are minutes apart say as much about the machine as
about the designs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from loadtests.experiment.statistics import Estimate, geometric
from loadtests.peers.block import Block
from loadtests.peers.plan import ALPHA, OURS, Load, Plan

LEAST_ANSWERS: Final = 0.5
"""Stands for no answer at all, so that there is a ratio: half of the least possible count."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One design under one load: medians over its valid blocks, and both ratios offloop / this.

    A ratio above 1 is in favour of offloop. `at_least`: the design answered nothing in a block, so the true
    ratio is larger. `kept_working`: it was restarted before its work for disconnected clients was done, so
    the true ratio per CPU second is larger.
    """

    work_ms: float
    times: float
    rate_per_second: float
    design: str
    blocks: int
    void: int
    pairs: int
    goodput_per_second: float | None
    answers_per_cpu_second: float | None
    answers_p99_seconds: float | None
    trivial_p99_seconds: float | None
    goodput_ratio: Estimate | None
    per_cpu_ratio: Estimate | None
    at_least: bool
    kept_working: int  # blocks


def rows_of(plan: Plan, blocks: Sequence[Block]) -> list[Row]:
    """A row for each design under each load that was measured, in the plan's order."""
    measured = {(block.work_ms, block.times) for block in blocks}
    loads = [
        load for work in plan.works for load in plan.loads(work) if (load.work_ms, load.times) in measured
    ]
    return [_row(plan, load, design, blocks) for load in loads for design in plan.designs]


def _row(plan: Plan, load: Load, design: str, blocks: Sequence[Block]) -> Row:
    here = [block for block in blocks if (block.work_ms, block.times) == (load.work_ms, load.times)]
    theirs = valid(here, design)
    paired = pairs(here, design)
    compared = paired if design != OURS else []
    measured = [block for block in here if block.design == design]

    def ratio(figure: Callable[[Block], float]) -> Estimate | None:
        values = [figure(ours) / figure(other) for ours, other in compared]
        return geometric(values, ALPHA) if values else None

    return Row(
        work_ms=load.work_ms,
        times=load.times,
        rate_per_second=load.rate_per_second,
        design=design,
        blocks=len(measured),
        void=sum(block.conditions.void_because is not None for block in measured),
        pairs=len(paired),
        goodput_per_second=_median(block.goodput_per_second for block in theirs.values()),
        answers_per_cpu_second=_median(block.answers_per_cpu_second for block in theirs.values()),
        answers_p99_seconds=_median(block.answers_p99_seconds for block in theirs.values()),
        trivial_p99_seconds=_median(block.trivial_p99_seconds for block in theirs.values()),
        goodput_ratio=ratio(lambda b: max(b.goodput_per_second, LEAST_ANSWERS / plan.measured_seconds)),
        per_cpu_ratio=ratio(lambda b: max(b.answers, LEAST_ANSWERS) / max(b.cpu_seconds, 0.01)),
        at_least=any(not other.goodput_per_second for _, other in compared),
        kept_working=sum(block.started_anew for block in theirs.values()),
    )


def valid(blocks: Iterable[Block], design: str) -> dict[int, Block]:
    """The blocks of a design that may be judged, by cycle."""
    return {b.cycle: b for b in blocks if b.design == design and b.conditions.void_because is None}


def pairs(blocks: Sequence[Block], design: str) -> list[tuple[Block, Block]]:
    """Our block and the design's of each cycle in which both may be judged."""
    ours, theirs = valid(blocks, OURS), valid(blocks, design)
    return [(ours[cycle], theirs[cycle]) for cycle in sorted(ours.keys() & theirs.keys())]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
