"""One block: a design under one load for a few seconds, its result, and whether it may be judged. Pure.

A block is void for its *inputs*, such as a neighbour that took CPU or a generator that was late, and never
for its results: leaving out surprising results measures the expectation.
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
    """The inputs of a block besides the load; shares are of all cores of the machine."""

    stolen_share: float
    foreign_share: float
    generator_share: float  # of the one core that it can use, while sending
    failed_here: int  # requests without a port or descriptor on this machine: no server saw them
    late_seconds: float  # p99 of the requests' lateness

    @property
    def void_because(self) -> str | None:
        """Why the block says nothing about the design, in a few words; None if it is valid."""
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
    """The result of one block.

    `answers`: 200s in time, from the first request of the block to its last. `cpu_seconds`: CPU of the whole
    process tree of the design, from the start of the block until the design is quiet again, so that work for
    clients that have disconnected counts as well; until its end if it is restarted. `goodput_per_second`:
    answers in time that finished during the measurement. Both p99 count from the intended time; a block has
    so few requests for the trivial route that its p99 is nearly the maximum.
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
        """Answers for each second of CPU."""
        return self.answers / self.cpu_seconds if self.cpu_seconds > 0 else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What is counted in the samples of a block."""

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
    """Count the 200s in time; goodput and p99 are of those that finished during the measurement."""
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
    """The smallest value that 99 % of the values do not exceed; None if there are none."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else None
