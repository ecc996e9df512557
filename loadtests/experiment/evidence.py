"""Reads from a summary the numbers that verdicts and drawings need. Pure.

Knows which blocks and phases may be used, how blocks are paired, and the level at which all claims of a plan
together are judged. Judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from loadtests.experiment.blocks import Block
from loadtests.experiment.ledger import Ledger
from loadtests.experiment.plan import Plan
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import PhaseResult, Summary
from loadtests.experiment.statistics import Estimate, Region, geometric

ALPHA: Final = 0.05
"""How often a whole run may be wrong, in any claim at any look (Bonferroni over both)."""

PRESSED: Final = 1.2
"""Least share of workers / S that an overload offers; with less, a queue may not build up."""

SATURATED: Final = 1.1
"""The same for a stretch of the ramp: from this share on the workers never run out of work."""

SAME_DEMAND: Final = Region(0.9, 1 / 0.9)
"""Equal units should cost the same CPU everywhere; within this region they do, and U stands for
throughput."""

UP: Final = 0.8
"""Least share of the base load that a case answers before its trigger; with less it was never up."""

Figure = Callable[[Block], float]


class UnusableError(Exception):
    """The data do not suffice; the message says why in one sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gain:
    """What one variant does more than another, split exactly: `steady` = `utilisation` / `demand`.

    `throughput`: ratio of units of work per second. `steady`: the same at equal speed of the worker's core,
    or the same figure where no speed was measured. `utilisation`: of CPU seconds of work per second.
    `demand`: of CPU time per unit, at equal speed. `slowness`: how many times as long a fixed piece of work
    took on the worker's core; 1 where it was not measured.
    """

    throughput: Estimate
    steady: Estimate
    utilisation: Estimate
    demand: Estimate
    slowness: Estimate

    @property
    def speed_differs(self) -> bool:
        """Whether one side had slower cores than the other, by chance or by its own load."""
        return self.slowness.finite and SAME_DEMAND.excludes(self.slowness)

    @property
    def demand_differs(self) -> bool:
        """Whether a unit certainly costs a different amount of CPU on one side than on the other."""
        return self.demand.finite and SAME_DEMAND.excludes(self.demand)


class Evidence:
    """Reads from a summary what the rules need; rejects what says nothing about the service.

    Args:
        claims: the number of claims that are judged by an interval; they share the level.
    """

    def __init__(self, summary: Summary, claims: int = 1) -> None:
        self.plan: Plan = summary.plan
        self.alpha = ALPHA / (max(claims, 1) * len(self.plan.looks))
        self._blocks = summary.blocks
        self._phases = summary.phases
        self._recoveries = summary.recoveries

    def blocks(self, variant: str, parts: tuple[str, ...] = ("cycle", "ramp")) -> dict[int, Block]:
        """The blocks of a variant that may be judged, by cycle."""
        return {
            block.cycle: block
            for block in self._blocks
            if block.variant == variant
            and block.part in parts
            and not block.void_because
            and block.pressure >= SATURATED
        }

    def typical(self, variant: str, figure: Figure, parts: tuple[str, ...] = ("cycle", "ramp")) -> Estimate:
        """A figure of one variant over its blocks.

        Raises:
            UnusableError: there are none.
        """
        found = [figure(block) for block in self.blocks(variant, parts).values()]
        if not found:
            raise UnusableError(f"no block of {variant} can be judged")
        return geometric(found, self.alpha)

    def ratio(
        self, variant: str, baseline: str, figure: Figure, parts: tuple[str, ...] = ("cycle", "ramp")
    ) -> Estimate:
        """A figure of one variant over another's, pair by pair: neighbours in time, one ratio a cycle.

        Raises:
            UnusableError: no cycle has both.
        """
        above, below = self.blocks(variant, parts), self.blocks(baseline, parts)
        pairs = [figure(above[cycle]) / figure(below[cycle]) for cycle in above if cycle in below]
        if not pairs:
            raise UnusableError(f"no cycle has a block of both {variant} and {baseline}")
        return geometric(pairs, self.alpha)

    def gain(self, variant: str, baseline: str, parts: tuple[str, ...] = ("cycle", "ramp")) -> Gain:
        """What `variant` does more than `baseline`.

        Raises:
            UnusableError: no cycle has both.
        """
        return Gain(
            self.ratio(variant, baseline, lambda block: block.throughput_per_second, parts),
            self.ratio(variant, baseline, lambda block: block.steady_throughput, parts),
            self.ratio(variant, baseline, lambda block: block.utilisation, parts),
            self.ratio(variant, baseline, lambda block: block.steady_demand, parts),
            self.ratio(variant, baseline, lambda block: block.piece_seconds or 1.0, parts),
        )

    def share_of_left(self, variant: str) -> Estimate:
        """U over the cores that generator and IO process leave, all from the same block.

        Raises:
            UnusableError: there is no block.
        """
        return self.typical(variant, lambda block: block.share_of_left(self.plan.cores))

    def overloads(self, variant: str) -> list[PhaseResult]:
        """The valid phases that loaded a variant well above its limit.

        Raises:
            UnusableError: there is none; the message says why.
        """
        found = [p for p in self._phases if p.variant == variant and p.kind in ("overload", "ramp")]
        valid = [p for p in found if not p.invalid_because and not p.interrupted]
        pressed = [p for p in valid if p.pressure is not None and p.pressure >= PRESSED]
        if pressed:
            return pressed
        if valid:
            most = max(p.pressure or 0.0 for p in valid)
            raise UnusableError(
                f"the load on {variant} never reached {PRESSED:g}x its limit, only {most:.2f}x"
            )
        invalid = next((p.invalid_because[0] for p in found if p.invalid_because), "none was measured")
        raise UnusableError(f"{variant} has no valid overload phase: {invalid}")

    def recovery(self, case: str) -> Recovery:
        """The last measurement of a case that may be judged.

        Raises:
            UnusableError: there is none, or the design did not stand the base load; the message says why.
        """
        found = [one for one in self._recoveries if one.case == case]
        valid = [one for one in found if not one.void_because]
        if not found:
            raise UnusableError(f"{case} was not measured")
        if not valid:
            raise UnusableError(f"{case} is void: {found[-1].void_because[0]}")
        last = valid[-1]
        if last.before_per_second < UP * last.base_per_second:
            up, base = last.before_per_second, last.base_per_second
            raise UnusableError(f"{case} answered {up:.0f} of {base:.0f} requests/s before the trigger")
        return last


def ledger(summary: Summary) -> Ledger:
    """The sum of the ledgers of all blocks, phases and cases of ours, void and invalid ones too."""
    return Ledger.total(book for _, book in _books(summary))


def ledger_gaps(summary: Summary) -> list[str]:
    """One sentence for each block or phase whose ledger does not close; empty if all do."""
    names = {
        "unexplained": "unexplained",
        "server_gap": "missing from the service's own books",
        "active": "still active",
    }
    gaps = []
    for title, book in _books(summary):
        if not book.closes:
            found = [f"{getattr(book, name)} {what}" for name, what in names.items() if getattr(book, name)]
            gaps.append(f"{title}: connections {', '.join(found) or 'miscounted by the client itself'}")
    return gaps


def _books(summary: Summary) -> list[tuple[str, Ledger]]:
    blocks = [
        (f"{block.variant}, cycle {block.cycle}", block.ledger)
        for block in summary.blocks
        if block.ledger is not None
    ]
    cases = [(one.case, one.ledger) for one in summary.recoveries if one.ledger is not None]
    return [*blocks, *((phase.id, phase.ledger) for phase in summary.phases), *cases]
