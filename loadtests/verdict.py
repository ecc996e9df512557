"""Judges the claims of the 2017 post, and ours about them, from a summary. Pure.

Knows the claims and the rule for each. A rule looks at numbers only and says one of three things:
held, did not hold, inconclusive (the data is missing, invalid, or its rounds contradict each other).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

HELD: Final = "held"
DID_NOT_HOLD: Final = "did not hold"
INCONCLUSIVE: Final = "inconclusive"

TRACKS_BATCHES: Final = 8
"""Accepted "tracks" completed when it leads by at most this many accept batches: a connection passes
through about five turns of the loop from accept to its end, and each turn takes one batch."""

OUTRUNS: Final = 100
"""Accepted "outruns" completed from a lead of a hundred connections: "hundreds" in the post's plots."""

FULL_QUEUE: Final = 0.9
EMPTY_QUEUE: Final = 0.25

Summary = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, judged: `numbers` is what the rule saw, `why` one sentence."""

    claim: str
    source: str  # "post" or "offloop"
    verdict: str
    numbers: str
    why: str


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


class Evidence:
    """Reads what the rules need out of a summary; refuses phases that say nothing about the server."""

    def __init__(self, summary: Summary) -> None:
        self.plan = summary["plan"]
        self._phases = summary["phases"]

    def capacities(self, variant: str) -> dict[int, float]:
        """Capacity by round: the most answers 200 within the SLO per second in any phase of it."""
        best: dict[int, float] = {}
        for phase in self._usable(variant):
            if not self._is_overload(phase):
                best[phase["round"]] = max(best.get(phase["round"], 0.0), phase["goodput_per_second"])
        if not best:
            raise UnusableError(f"no phase of {variant} was measured")
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
        """Capacity over workers / S, with S as the workers measured it in the same phases."""
        limits: dict[int, list[float]] = {}
        for phase in self._usable(variant):
            if not self._is_overload(phase) and phase["limit_per_second"]:
                limits.setdefault(phase["round"], []).append(phase["limit_per_second"])
        capacities = self.capacities(variant)
        shares = [capacities[n] / (sum(found) / len(found)) for n, found in limits.items() if n in capacities]
        if not shares:
            raise UnusableError(f"the workers of {variant} reported no CPU time")
        return Range(min(shares), max(shares))

    def overload(self, variant: str) -> Mapping[str, Any]:
        """The overload phase of a variant."""
        for phase in self._usable(variant):
            if self._is_overload(phase):
                return phase
        raise UnusableError(f"{variant} has no overload phase")

    def batch(self, variant: str) -> int:
        """The accept batch of a variant."""
        return next(
            int(visit["variant"]["accept_batch"])
            for visit in self.plan["visits"]
            if visit["variant"]["name"] == variant
        )

    def _usable(self, variant: str) -> list[Mapping[str, Any]]:
        found = [phase for phase in self._phases if phase["variant"] == variant and not phase["interrupted"]]
        for phase in found:
            if phase["state"] == "invalid":
                raise UnusableError(f"phase {phase['id']} is invalid: {phase['invalid_because'][0]}")
        return found

    @staticmethod
    def _is_overload(phase: Mapping[str, Any]) -> bool:
        return "timeline" in phase


Finding = tuple[str, str, str]
"""Verdict, numbers, why."""


def _inline_cap(evidence: Evidence) -> Finding:
    share = evidence.share_of_limit("inline")
    capacity = max(evidence.capacities("inline").values())
    verdict = share.within(0.75, 1.05)
    why = {
        HELD: "One loop that spends S on each request cannot pass 1/S, and accepting, parsing and answering "
        "share its core.",
        DID_NOT_HOLD: "Capacity is not where one core and S put it: something else bounds the loop, "
        "or work ran elsewhere.",
    }
    return verdict, f"{capacity:.0f}/s, {share} of 1/S", why.get(verdict, "The rounds contradict each other.")


def _inline_tracks(evidence: Evidence) -> Finding:
    phase, bound = evidence.overload("inline"), TRACKS_BATCHES * evidence.batch("inline")
    lead, queue, limit = phase["lead_max"], phase["kernel_queue_max"], phase["kernel_queue_limit"]
    numbers = f"lead at most {lead} (bound {bound}), kernel queue up to {queue} of {limit}"
    if lead > bound:
        return DID_NOT_HOLD, numbers, "Connections were accepted well before they were completed."
    if queue < FULL_QUEUE * limit:
        return (
            INCONCLUSIVE,
            numbers,
            "The kernel queue did not fill, so nothing pressed the loop to run ahead.",
        )
    return (
        HELD,
        numbers,
        "The queue stands in the kernel: the loop takes one connection per turn and no more.",
    )


def _offloaded_outruns(evidence: Evidence) -> Finding:
    phase = evidence.overload("process-1")
    lead, queue, limit = phase["lead_max"], phase["kernel_queue_max"], phase["kernel_queue_limit"]
    numbers = (
        f"lead up to {lead}, offload queue up to {phase['offload_queue_max']}, "
        f"kernel queue up to {queue} of {limit}"
    )
    if lead < OUTRUNS:
        return DID_NOT_HOLD, numbers, "Accepting did not get ahead of the work."
    if queue > EMPTY_QUEUE * limit:
        return (
            INCONCLUSIVE,
            numbers,
            "Part of the queue still stood in the kernel: the loop was a bottleneck too.",
        )
    return HELD, numbers, "The loop is free to accept, so the same queue now stands inside the service."


def _published_gain(evidence: Evidence) -> Finding:
    ratio = evidence.ratio("process-1-fifth", "inline")
    verdict = ratio.within(4.0, 6.0)
    why = {
        HELD: "Offloaded requests did a fifth of the work here, as in the post's code history: "
        "the figure reproduces, and the work explains it.",
        DID_NOT_HOLD: "Even with a fifth of the work per request, this machine gives another factor.",
    }
    return verdict, f"{ratio}x the inline capacity", why.get(verdict, "The rounds contradict each other.")


def _offloading_is_the_cause(evidence: Evidence) -> Finding:
    ratio = evidence.ratio("process-1", "inline")
    numbers = f"{ratio}x the inline capacity with the same work"
    if ratio.high <= 1.5:
        why = "One worker is bounded by 1/S as the loop was: it gains only what accepting and answering cost."
        return DID_NOT_HOLD, numbers, why
    if ratio.low >= 2.0:
        return HELD, numbers, "One worker alone more than doubled what the loop could do."
    return INCONCLUSIVE, numbers, "Between 1.5x and 2x no single cause stands out."


def _cores_scale(evidence: Evidence) -> Finding:
    cores = evidence.plan["cores"]
    ratio = evidence.ratio("process-cores", "inline")
    numbers = f"{ratio}x the inline capacity on {cores} cores"
    verdict = ratio.within(0.8 * cores, float("inf"))
    why = {
        HELD: "Offloading lets work use all cores; loop, generator and workers share them here.",
        DID_NOT_HOLD: "More workers did not bring their share: the cores were busy with something else.",
    }
    return verdict, numbers, why.get(verdict, "The rounds contradict each other.")


def _batch_decides(evidence: Evidence) -> Finding:
    small, large = evidence.overload("inline"), evidence.overload("inline-batch")
    lead, batch = large["lead_max"], evidence.batch("inline-batch")
    numbers = (
        f"lead up to {lead} with batch {batch}, {small['lead_max']} with batch {evidence.batch('inline')}"
    )
    if lead < OUTRUNS:
        return DID_NOT_HOLD, numbers, "A larger batch did not let accepted run ahead."
    return (
        HELD,
        numbers,
        "Nothing was offloaded, and yet accepted leads: a loop that empties the queue moves it.",
    )


RULES: Final[tuple[tuple[str, str, Callable[[Evidence], Finding]], ...]] = (
    ("Inline, one worker caps at about 1/S (250 requests/s at 4 ms)", "post", _inline_cap),
    ("Inline, accepted tracks completed", "post", _inline_tracks),
    ("Offloaded, accepted outruns completed", "post", _offloaded_outruns),
    ("Offloaded, capacity is about five times as high (5.2x)", "post", _published_gain),
    ("It is the offloading to one worker that raises capacity", "post", _offloading_is_the_cause),
    ("With one worker per core, capacity follows the cores", "offloop", _cores_scale),
    ("Accepted tracks completed because of the accept batch, not of inline work", "offloop", _batch_decides),
)


def judge(summary: Summary) -> list[Verdict]:
    """Every claim with its verdict, in the order of `RULES`."""
    evidence = Evidence(summary)
    verdicts = []
    for claim, source, rule in RULES:
        try:
            finding = rule(evidence)
        except UnusableError as problem:
            why = str(problem)
            finding = (INCONCLUSIVE, "No usable data", f"{why[0].upper()}{why[1:]}.")
        verdicts.append(Verdict(claim, source, *finding))
    return verdicts


def answer(summary: Summary) -> str:
    """The 5.2x question, answered from the measurement in two or three sentences."""
    evidence = Evidence(summary)
    try:
        published = evidence.ratio("process-1-fifth", "inline")
        controlled = evidence.ratio("process-1", "inline")
        cores = evidence.ratio("process-cores", "inline")
    except UnusableError as problem:
        return f"Where the 5.2x comes from cannot be said from this run: {problem}."
    number = evidence.plan["cores"]
    return (
        f"As published, with a fifth of the work per offloaded request, one worker gives {published}x. "
        f"With the same work on both sides it gives {controlled}x, and {number} workers give {cores}x on "
        f"{number} cores. "
        + (
            "The published gain is the smaller work; what offloading itself brings is a free loop, "
            "and the other cores once there are workers for them."
            if controlled.high <= 1.5 < published.low
            else "On this machine the work alone does not explain the published gain."
        )
    )


def ledger_gaps(summary: Summary) -> list[str]:
    """One sentence for each phase whose books do not close; empty when all do."""
    return [
        f"{phase['id']}: {phase['ledger']['unexplained']} connections unexplained, "
        f"{phase['ledger']['server_gap']} missing from the server's own books"
        for phase in (*summary["phases"], *summary["discarded"])
        if phase["ledger"]["unexplained"] or phase["ledger"]["server_gap"]
    ]
