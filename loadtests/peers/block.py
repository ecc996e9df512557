"""One block: a design under one load for a few seconds, what came of it, and whether it may be judged. Pure.

A block is void for what went *in*, a neighbour that took CPU or a generator that was late, and never for what
came out: who leaves out surprising results measures his expectation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

from loadtests.load.judgement import BUSY_SHARE, LATENESS_CEILING_SECONDS
from loadtests.load.sample import OK, Sample

MOST_STOLEN: Final = 0.05  # of the machine, by its hypervisor
MOST_FOREIGN: Final = 0.10  # of the machine, by processes that are not ours


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What went into a block besides the load; the shares are of all cores of the machine."""

    stolen_share: float
    foreign_share: float
    generator_share: float  # of the one core that it can use, while it sent
    failed_here: int  # requests for which this machine had no port or descriptor: no server saw them
    late_seconds: float  # p99 of the requests' lateness

    @property
    def void_because(self) -> str | None:
        """Why the block says nothing about the design, in a few words; None if it may be judged."""
        if self.stolen_share > MOST_STOLEN:
            return f"{self.stolen_share:.0%} stolen CPU"
        if self.foreign_share > MOST_FOREIGN:
            return f"{self.foreign_share:.0%} foreign CPU"
        if self.late_seconds > LATENESS_CEILING_SECONDS:
            return f"sent {self.late_seconds * 1e3:.0f} ms late"
        if self.generator_share > BUSY_SHARE:
            return f"generator {self.generator_share:.0%} busy"
        if self.failed_here:
            return f"{self.failed_here} failed here"
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one block came to.

    `answers`: 200s in time, from the block's first request to its last, and what `cpu_seconds` bought: CPU
    of the design's whole process tree from the block's begin until it was quiet again, so that work for
    clients who have left counts as well; up to its end if it had to be started anew. `goodput_per_second`:
    those that finished while it was measured. Both p99 are from the intended time; of the trivial route
    there are so few requests in a block that it is nearly the slowest.
    """

    work_ms: float
    times: float
    cycle: int
    design: str
    answers: int
    goodput_per_second: float
    cpu_seconds: float
    answers_p99_seconds: float | None
    trivial_p99_seconds: float | None
    quiet_after_seconds: float
    started_anew: bool
    conditions: Conditions

    @property
    def answers_per_cpu_second(self) -> float:
        """What a second of CPU bought."""
        return self.answers / self.cpu_seconds if self.cpu_seconds > 0 else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What the samples of a block say."""

    answers: int
    goodput_per_second: float
    answers_p99_seconds: float | None


def count(
    samples: Iterable[Sample],
    began_seconds: float,
    warm_seconds: float,
    measured_seconds: float,
    give_up_seconds: float,
) -> Counted:
    """Count the answers 200 in time; goodput and p99 are of those that finished while it was measured."""
    answers, within = 0, []
    opened = began_seconds + warm_seconds
    for sample in samples:
        if sample.outcome != OK or sample.finished is None:
            continue
        latency = sample.finished - sample.intended
        if latency <= give_up_seconds:
            answers += 1
            if opened <= sample.finished <= opened + measured_seconds:
                within.append(latency)
    return Counted(answers, len(within) / measured_seconds, p99(within))


def p99(values: Sequence[float]) -> float | None:
    """The smallest value that 99 % do not exceed; None of nothing."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else None
