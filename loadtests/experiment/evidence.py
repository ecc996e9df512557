"""Reads the numbers that verdicts and drawings need out of a summary. Pure.

Knows capacity, its limit and their ratio between variants; refuses phases that say nothing about the
server. Judges nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from loadtests.experiment.ledger import Ledger

HELD: Final = "held"
DID_NOT_HOLD: Final = "did not hold"
INCONCLUSIVE: Final = "inconclusive"

SATURATED: Final = 0.97
"""A service that answers less than this share of what is offered has reached its capacity."""

SHORT: Final = 0.9
RECOVERED: Final = 1.15
"""A phase was disturbed if less than `SHORT` of it was answered and a higher rate of the same round saw
`RECOVERED` times as much work done: a saturated service works about the same at every higher rate. Work is
answers x S, with the S of the phase: a machine that clocks lower for a while is no disturbance."""

PRESSED: Final = 1.2
"""An overload is offered at least this share of the limit; nearer to it a queue may not build up."""

Summary = Mapping[str, Any]


class UnusableError(Exception):
    """The data cannot decide; the message says why in one sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """What the rounds measured: every rule must hold for both ends, or it is inconclusive."""

    low: float
    high: float

    def within(self, low: float, high: float) -> str:
        """Held if all of it lies in [low, high], did not hold if none of it does."""
        if low <= self.low and self.high <= high:
            return HELD
        return DID_NOT_HOLD if self.high < low or self.low > high else INCONCLUSIVE

    def __str__(self) -> str:
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        return low if low == high else f"{low} to {high}"


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityRow:
    """Capacity (answers in time per second) of a variant, as a share of workers / S, and S itself."""

    title: str
    capacity: float
    share: Range
    s_seconds: float


class Evidence:
    """Reads what the rules need out of a summary; refuses phases that say nothing about the server."""

    def __init__(self, summary: Summary) -> None:
        self.plan = summary["plan"]
        self._phases = summary["phases"]

    def capacities(self, variant: str) -> dict[int, float]:
        """Capacity by round: the most answers 200 within the SLO per second in any phase of it.

        Only if the load is known to have reached it: in some phase of the variant the service must
        have answered clearly less than was offered. Otherwise the figure is the load's and not the
        service's.
        """
        best: dict[int, float] = {}
        everything = self._usable(variant, ("measure", "ramp"))
        for phase in everything:
            best[phase["round"]] = max(best.get(phase["round"], 0.0), phase["goodput_per_second"])
        if not best:
            raise UnusableError(f"no phase of {variant} was measured")
        with contextlib.suppress(UnusableError):  # an overload may prove saturation; it is not needed
            everything = everything + self._usable(variant, ("overload",))
        if not any(phase["achieved_per_second"] < SATURATED * phase["rate"] for phase in everything):
            raise UnusableError(f"the load never reached the capacity of {variant}")
        self._refuse_disturbed(everything)
        return best

    def ratio(self, variant: str, baseline: str) -> Range:
        """Capacity of one variant over another's, round by round: neighbours in time, same machine."""
        above, below = self.capacities(variant), self.capacities(baseline)
        rounds = above.keys() & below.keys()
        if not rounds or not all(below[number] for number in rounds):
            raise UnusableError(f"{variant} and {baseline} share no round with answers")
        ratios = [above[number] / below[number] for number in rounds]
        return Range(min(ratios), max(ratios))

    def share_of_limit(self, variant: str) -> Range:
        """Capacity over workers / S, with S as the workers measured it in the same round."""
        capacities, limits = self.capacities(variant), self.limits(variant)
        shares = [capacities[number] / limit for number, limit in limits.items() if number in capacities]
        if not shares:
            raise UnusableError(f"the workers of {variant} reported no CPU time")
        return Range(min(shares), max(shares))

    def limits(self, variant: str) -> dict[int, float]:
        """workers / S by round, the mean of its phases."""
        found: dict[int, list[float]] = {}
        for phase in self._usable(variant, ("measure", "ramp")):
            if phase["limit_per_second"]:
                found.setdefault(phase["round"], []).append(phase["limit_per_second"])
        return {number: sum(limits) / len(limits) for number, limits in found.items()}

    def overload(self, variant: str) -> Mapping[str, Any]:
        """The phase that pressed a variant hardest, well above its limit."""
        pressed = [phase for phase in self._usable(variant, ("overload", "ramp")) if phase["load"] >= PRESSED]
        if not pressed:
            raise UnusableError(f"{variant} has no overload phase")
        return max(pressed, key=lambda phase: float(phase["load"]))

    def capacity_table(self) -> list[CapacityRow]:
        """Capacity beside its limit for every variant that was measured, in the order of the plan."""
        titles = {visit["variant"]["name"]: visit["variant"]["title"] for visit in self.plan["visits"]}
        rows = []
        for name, title in titles.items():
            try:
                capacity, share = max(self.capacities(name).values()), self.share_of_limit(name)
            except UnusableError:
                continue
            costs = [
                phase["s_seconds"] for phase in self._usable(name, ("measure", "ramp")) if phase["s_seconds"]
            ]
            rows.append(CapacityRow(title, capacity, share, sum(costs) / len(costs)))
        return rows

    def batch(self, variant: str) -> int:
        """The accept batch of a variant."""
        return next(
            int(visit["variant"]["accept_batch"])
            for visit in self.plan["visits"]
            if visit["variant"]["name"] == variant
        )

    def _usable(self, variant: str, kinds: tuple[str, ...]) -> list[Mapping[str, Any]]:
        """The phases of these kinds; one invalid phase among them decides that they cannot be used."""
        found = [
            phase
            for phase in self._phases
            if phase["variant"] == variant and phase["kind"] in kinds and not phase["interrupted"]
        ]
        for phase in found:
            if phase["state"] == "invalid":
                raise UnusableError(f"phase {phase['id']} is invalid: {phase['invalid_because'][0]}")
        return found

    @staticmethod
    def _refuse_disturbed(phases: list[Mapping[str, Any]]) -> None:
        """A phase that fell short although a higher rate of its round was met was disturbed from outside.

        The best phase alone would hide that, and a ratio of two such figures means nothing.
        """
        short = [phase for phase in phases if phase["achieved_per_second"] < SHORT * phase["rate"]]
        for low in short:
            recovered = RECOVERED * _work_done(low)
            higher = [p for p in phases if p["round"] == low["round"] and p["rate"] > low["rate"]]
            if any(_work_done(phase) > recovered for phase in higher):
                raise UnusableError(f"phase {low['id']} fell short although a higher rate was met")


def _work_done(phase: Mapping[str, Any]) -> float:
    """Cores' worth of answered work."""
    return float(phase["achieved_per_second"] * (phase["s_seconds"] or 1.0))


def ledger_totals(summary: Summary) -> dict[str, int]:
    """The books of all phases, discarded ones too, added up by class."""
    books = [phase["ledger"] for phase in (*summary["phases"], *summary["discarded"])]
    return {field.name: sum(book[field.name] for book in books) for field in dataclasses.fields(Ledger)}


def ledger_gaps(summary: Summary) -> list[str]:
    """One sentence for each phase whose books do not close; empty when all do."""
    names = {
        "unexplained": "unexplained",
        "server_gap": "missing from the server's own books",
        "active": "still active",
    }
    gaps = []
    for phase in (*summary["phases"], *summary["discarded"]):
        found = [f"{phase['ledger'][name]} {what}" for name, what in names.items() if phase["ledger"][name]]
        if not Ledger(**phase["ledger"]).closes:
            gaps.append(f"{phase['id']}: connections {', '.join(found) or 'miscounted by the client itself'}")
    return gaps
