"""What came after a trigger: goodput and attempts of one case, second by second. Pure.

Knows when a case is back, when it stays down, and what makes it void: its inputs, or a design that fails in
another way than by being too slow. How many are answered never does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

from loadtests.experiment.blocks import Block, Inputs, generator_share, inputs
from loadtests.experiment.ledger import Ledger
from loadtests.experiment.metastable import POOL
from loadtests.experiment.plan import Case, Plan, Trigger
from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from loadtests.load.results import ClientLedger
from loadtests.load.sample import OK, STATUS, TIMEOUT, Sample, requests
from loadtests.load.summary import summarise
from loadtests.neighbours import MOST_STOLEN_ALONE, Usage

DOWN: Final = 0.5
"""Of the goodput before the trigger: with less, a design is down."""

LEAST_LOAD: Final = 0.45
MOST_LOAD: Final = 0.8
"""The base load, as a share of what the workers can do. With less no queue could stand, with more there is no
room to work one off; it moves with S, which the machine changes."""

ENOUGH_BY_OVERLOAD: Final = 0.95
"""Of the attempts that fail after the trigger: if fewer fail by overload, the design is broken."""

REFUSED: Final = 503
DIED: Final = "the design did not live to the end of the case"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One case, measured once.

    `limit_per_second`: workers / S just before. `answered`: requests that got the expected answer, whichever
    attempt it was, in each second from the first request on; the last one ends with the last request due.
    `attempts`: sent in each of these seconds. `loads`: base load x S / workers before, in and after the
    trigger, with S at the speed that the workers' cores had meanwhile. `client`: the clients' books;
    `ledger`: these and the service's reconciled, of ours alone, for the others count nothing.
    """

    case: str
    limit_per_second: float
    base_per_second: float
    peak_per_second: float
    before_seconds: int
    seconds: int
    answered: tuple[int, ...]
    attempts: tuple[int, ...]
    loads: tuple[float, float, float]
    lateness_p99_seconds: float | None
    outcomes: dict[str, int]  # of requests
    attempt_outcomes: dict[str, int]
    client: ClientLedger
    ledger: Ledger | None
    inputs: Inputs
    void_because: tuple[str, ...] = ()

    @property
    def before_per_second(self) -> float:
        """Goodput before the trigger; the first second is left out if there is another, for it warms up."""
        return mean(self.answered[: self.before_seconds][-max(self.before_seconds - 1, 1) :])

    @property
    def during_per_second(self) -> float:
        """Goodput in the trigger."""
        return mean(self.answered[self.before_seconds : self._gone])

    @property
    def after_per_second(self) -> float:
        """Goodput after the trigger has gone."""
        return mean(self.answered[self._gone :])

    @property
    def attempts_after_per_second(self) -> float:
        """Attempts after the trigger has gone."""
        return mean(self.attempts[self._gone :])

    @property
    def stays_down(self) -> bool:
        """Whether it is down in every second after the trigger."""
        return not any(self._up)

    @property
    def back_seconds(self) -> int | None:
        """After how many seconds without the trigger it is up and stays so; None if it is down at the end."""
        up = self._up
        down = [second for second, is_up in enumerate(up, 1) if not is_up]
        back = down[-1] if down else 0
        return back if back < len(up) else None

    def work_off_seconds(self, attempts: float = 1.0, left: float = 1.0) -> float:
        """Seconds that what the trigger leaves keeps the workers busy, at the speed that they had.

        Args:
            attempts: for each request; each of them is worked on, whether or not its client still waits.
            left: share of their cores that is left to the workers.
        """
        during, after = (load / left for load in self.loads[1:])
        peak = during * self.peak_per_second / self.base_per_second
        queue = self.seconds * max(attempts * peak - 1, 0.0) * after / during
        spare = 1 - attempts * after
        return queue / spare if spare > 0 else math.inf

    @property
    def after_seconds(self) -> int:
        """For how long it was watched after the trigger."""
        return len(self.answered) - self._gone

    @property
    def _gone(self) -> int:
        return self.before_seconds + self.seconds

    @property
    def _up(self) -> list[bool]:
        return [count >= DOWN * self.before_per_second for count in self.answered[self._gone :]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one case.

    `just_before`: a block that saturated the workers, for S and for the speed of their cores then.
    `piece_seconds`: the speed of the cores before, in and after the trigger (speed.py); None: not measured.
    `spoilt`: what went wrong in measuring it. `alive`: whether the design still ran at the end.
    """

    just_before: Block
    phase: Phase
    samples: Sequence[Sample]
    facts: GeneratorFacts
    before: Usage
    after: Usage
    piece_seconds: Sequence[float | None]
    ledger: Ledger | None = None
    spoilt: Sequence[str] = ()
    alive: bool = True


def recovery(plan: Plan, trigger: Trigger, case: Case, measured: Measured) -> Recovery:
    """One case from its samples, and whether it may be judged."""
    facts, just_before = measured.facts, measured.just_before
    client = summarise(measured.samples, facts, measured.phase)
    used = inputs(measured.before, measured.after, plan.cores, generator_share(facts))
    base, peak = measured.phase.segments[0][0], measured.phase.segments[1][0]
    share = base * just_before.demand_seconds / just_before.workers
    loads = [share * slowness(just_before.piece_seconds, seconds) for seconds in measured.piece_seconds]
    before, during, after = loads
    begin, count = facts.started_monotonic, trigger.all_seconds
    ended = [s.finished for s in requests(measured.samples) if s.outcome == OK and s.finished is not None]
    sent = [sample.started for sample in measured.samples if sample.started is not None]
    gone = begin + trigger.before_seconds + trigger.seconds
    afterwards = [s for s in measured.samples if s.started is not None and s.started >= gone]
    return Recovery(
        case=case.name,
        limit_per_second=just_before.workers / just_before.demand_seconds,
        base_per_second=base,
        peak_per_second=peak,
        before_seconds=trigger.before_seconds,
        seconds=trigger.seconds,
        answered=by_second(ended, begin, count),
        attempts=by_second(sent, begin, count),
        loads=(before, during, after),
        lateness_p99_seconds=client.lateness_seconds.p99,
        outcomes=client.outcomes,
        attempt_outcomes=client.attempt_outcomes,
        client=client.ledger,
        ledger=measured.ledger,
        inputs=used,
        void_because=tuple(
            dict.fromkeys(
                [
                    *client.invalid_because,
                    *used.faults(MOST_STOLEN_ALONE),
                    *measured.spoilt,
                    *load_faults(*loads),
                    *([] if measured.alive else [DIED]),
                    *design_faults(afterwards, refuses=case.design != POOL),
                ]
            )
        ),
    )


def slowness(before: float | None, meanwhile: float | None) -> float:
    """How many times as long a fixed piece of work takes as it did before; 1 where that was not measured."""
    return meanwhile / before if before and meanwhile else 1.0


def load_faults(*loads: float) -> list[str]:
    """Why a case is void for its base load, at most one sentence."""
    return [
        f"the machine's speed changed: the base load was {load:.2f} of the limit, not within "
        f"{LEAST_LOAD:g} to {MOST_LOAD:g}"
        for load in loads
        if not LEAST_LOAD <= load <= MOST_LOAD
    ][:1]


def design_faults(afterwards: Iterable[Sample], *, refuses: bool) -> list[str]:
    """Why a case is void for how its attempts failed after the trigger, at most one sentence.

    A queue that is too long makes clients give up; a design that bounds it refuses with 503. A broken pool
    answers 500 and a dead process nothing at all: these are down as well, but retries do not keep them so.
    """
    failed = [sample for sample in afterwards if sample.outcome != OK]
    others = [sample.label for sample in failed if not _by_overload(sample, refuses=refuses)]
    if len(failed) - len(others) >= ENOUGH_BY_OVERLOAD * len(failed):
        return []
    most = max(sorted(set(others)), key=others.count)
    return [
        f"{len(others)} of {len(failed)} attempts that failed after the trigger did so otherwise than by "
        f"overload, most of them as {most}"
    ]


def _by_overload(sample: Sample, *, refuses: bool) -> bool:
    refused = refuses and sample.outcome == STATUS and sample.status == REFUSED
    return sample.outcome == TIMEOUT or refused


def by_second(moments: Iterable[float], begin: float, count: int) -> tuple[int, ...]:
    """How many of these moments lie in each of so many seconds; what is outside does not count."""
    found = [0] * count
    for moment in moments:
        second = int(moment - begin) if moment >= begin else -1
        if 0 <= second < count:
            found[second] += 1
    return tuple(found)


def mean(counts: Sequence[int]) -> float:
    """Per second; 0 if there is none."""
    return sum(counts) / len(counts) if counts else 0.0
