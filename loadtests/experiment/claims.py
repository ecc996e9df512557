"""The claims of the 2017 post, and ours about them, with the rule for each. Pure.

Knows the claims and the rule for each. A rule looks at numbers only and says one of three things: held, did
not hold, inconclusive. A claim about an amount is judged by an interval: held if all of it lies in the
claim's region, did not hold if none of it does. A claim about a queue is judged by every overload phase
alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Final, Literal

from loadtests.experiment.evidence import PRESSED, Evidence, Gain, UnusableError
from loadtests.experiment.presets import ALL_AT_ONCE, PLANTED
from loadtests.experiment.results import PhaseResult
from loadtests.experiment.statistics import Estimate, Region, more_needed

HELD: Final = "held"
DID_NOT_HOLD: Final = "did not hold"
INCONCLUSIVE: Final = "inconclusive"

INLINE_CAP: Final = Region(0.7, 1.02)
"""U of one loop that does all the work itself. It cannot be above 1, for a core has one second a second (2 %
for the moments of two readings); what accepting and answering cost is missing, some 0.3 to 1 ms beside 4."""

PUBLISHED: Final = Region(4.0, 6.0)
"""About five times: a fifth of the work, a quarter of an octave either way."""

RAISES: Final = Region(1.5, math.inf)
"""Offloading "raises capacity" from half as much again. One worker can gain 1 / U of inline, which is what
accepting and answering took from the loop: some 1.2; a gain of 1.5 would need another cause."""

NOTHING_LEFT: Final = Region(0.9, math.inf)
"""U over the cores that generator and IO process leave over: above it, nothing worth having is unused. A
worker's own part of the hand-over, a few per cent at 4 ms, is not work and therefore missing."""

SUFFICE: Final = Region(0.8, math.inf)
"""The same for threads: a fifth is the price of sharing one interpreter with the loop."""

NO_HELP: Final = Region(0.0, 1.2)
"""A gain that one core alone explains: what accepting and answering took from the loop, and no second
core."""

NOTHING: Final = Region(0.97, 1.03)
"""Inline beside itself."""

FOUND: Final = Region(0.95 * PLANTED, 1.05 * PLANTED)
"""What was planted, within 5 %."""

TRACKS_BATCHES: Final = 8
"""Accepted "tracks" completed when at most this many accept batches are in flight: a connection passes
through about five turns of the loop from accept to its end, and each turn takes one batch."""

OUTRUNS: Final = 100
"""Accepted "outruns" completed from a hundred connections in flight: "hundreds" in the post's plots."""

STANDS: Final = 100
"""The queue "stands in the kernel" from as many connections, or if it is nearly full."""

FULL: Final = 0.9
SOME: Final = 0.05
"""The queue stands in the service if the kernel holds at most this share of all who wait, or fewer than one
turn of the loop may find: with a backlog of 4, the 4 that come within one turn fill it."""

KEPT: Final = 0.8
"""Of the limit, answered in time under overload: what a service keeps that protects itself."""


WORTH_MEASURING: Final = 200
"""Cycles, a quarter of an hour of them; the truth lies too near to the end of a region if it takes more."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found. `numbers` is what it saw, `why` one sentence; an interval where one judged."""

    verdict: str
    numbers: str
    why: str
    estimate: Estimate | None = None
    region: Region | None = None


def _interval(estimate: Estimate, region: Region, numbers: str, held: str, did_not_hold: str) -> Finding:
    """Judge an amount by where its interval lies."""
    if not estimate.finite:
        verdict, why = INCONCLUSIVE, f"{estimate.count} cycles are too few for an interval."
    elif region.contains(estimate):
        verdict, why = HELD, held
    elif region.excludes(estimate):
        verdict, why = DID_NOT_HOLD, did_not_hold
    else:
        bound = region.straddled(estimate)
        more = more_needed(estimate, bound)
        wanted = "more cycles would hardly decide"
        if more is not None and more <= WORTH_MEASURING:
            wanted = f"about {more} more cycles would decide"
        verdict, why = INCONCLUSIVE, f"{estimate} straddles {bound:g}; {wanted}."
    return Finding(verdict=verdict, numbers=numbers, why=why, estimate=estimate, region=region)


def split(gain: Gain) -> str:
    """A gain in throughput, taken apart."""
    parts = f"{gain.steady} = U {gain.utilisation} / S {gain.demand}"
    if gain.steady == gain.throughput:  # no speed was measured
        return f"throughput {parts}"
    text = f"throughput {gain.throughput}; at equal speed {parts}"
    if gain.speed_differs:
        text += (
            f" (the worker's core was {gain.slowness} times as slow: its neighbours, or both cores are one)"
        )
    return text


def _judged(gain: Gain) -> tuple[Estimate, str]:
    """The ratio that judges a gain with equal units of work, and what to say of it."""
    if gain.demand_differs:
        return gain.steady, " A unit costs another amount of CPU on either side, so throughput judges."
    return gain.utilisation, ""


def _inline_cap(evidence: Evidence) -> Finding:
    utilisation = evidence.typical("inline", lambda block: block.utilisation)
    rate = evidence.typical("inline", lambda block: block.throughput_per_second)
    return _interval(
        utilisation,
        INLINE_CAP,
        f"U {utilisation} of one core, at {rate.value:.0f}/s",
        "One loop that spends S on each request cannot pass 1/S, and accepting, parsing and answering share "
        "its core.",
        "Capacity is not where one core and S put it: something else bounds the loop, or work ran elsewhere.",
    )


def _published_gain(evidence: Evidence) -> Finding:
    gain = evidence.gain("executor-1-fifth", "inline")
    return _interval(
        gain.steady,
        PUBLISHED,
        split(gain),
        "Offloaded requests did a fifth of the work here, as in the post's code history: the figure "
        "reproduces, and the work explains it.",
        "Even with a fifth of the work per request, this machine gives another factor.",
    )


def _offloading_is_the_cause(evidence: Evidence) -> Finding:
    gain = evidence.gain("executor-1", "inline")
    judged, note = _judged(gain)
    return _interval(
        judged,
        RAISES,
        f"with the same work {split(gain)}",
        "One worker alone did half as much again as the loop." + note,
        "One worker is bounded by 1/S as the loop was: it gains only what accepting and answering cost."
        + note,
    )


def _cores_scale(evidence: Evidence) -> Finding:
    workers = evidence.plan.variant("executor-cores").workers
    if workers == 1:
        raise UnusableError("with one core there is nothing to scale to")
    share = evidence.share_of_left("executor-cores")
    gain = evidence.gain("executor-cores", "inline")
    return _interval(
        share,
        NOTHING_LEFT,
        f"{share} of the cores left over; beside inline {split(gain)}",
        "Workers use all that generator and IO process leave of the cores.",
        "Part of the cores was left unused: workers waited for work.",
    )


def _threads_suffice(evidence: Evidence) -> Finding:
    share = evidence.share_of_left("thread-cores-releases")
    gain = evidence.gain("thread-cores-releases", "inline-releases")
    return _interval(
        share,
        SUFFICE,
        f"{share} of the cores left over; beside inline {split(gain)}",
        "hashlib releases the GIL while it computes, so threads run on all cores.",
        "Threads did not fill the other cores although the work releases the GIL.",
    )


def _threads_do_not_help(evidence: Evidence) -> Finding:
    gain = evidence.gain("thread-cores-holds", "inline-holds")
    judged, note = _judged(gain)
    return _interval(
        judged,
        NO_HELP,
        f"beside inline {split(gain)}",
        "Pure Python holds the GIL: threads take turns on one core, and so does the loop." + note,
        "Threads brought capacity although the work holds the GIL." + note,
    )


def _nothing_is_found(evidence: Evidence) -> Finding:
    gain = evidence.gain("inline-again", "inline")
    return _interval(
        gain.utilisation, NOTHING, split(gain), "The instrument finds no difference.", "It finds one."
    )


def _planted_is_found(evidence: Evidence) -> Finding:
    gain = evidence.gain("inline-more", "inline")
    return _interval(
        gain.demand, FOUND, split(gain), "What was planted is found.", "The instrument reads another amount."
    )


def _agreed(verdicts: list[str], numbers: str, whys: dict[str, str]) -> Finding:
    """Every phase must say the same."""
    if len(set(verdicts)) == 1:
        return Finding(verdict=verdicts[0], numbers=numbers, why=whys[verdicts[0]])
    return Finding(verdict=INCONCLUSIVE, numbers=numbers, why="The overload phases do not agree.")


def _span(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _queues(phases: list[PhaseResult]) -> str:
    pressure = max(phase.pressure or PRESSED for phase in phases)
    return (
        f"at {pressure:.1f}x the limit {_span([phase.peak for phase in phases])} in flight at most, kernel "
        f"queue up to {_span([phase.kernel_queue_max for phase in phases])}"
    )


def _stands_in_kernel(phase: PhaseResult) -> bool:
    return phase.kernel_queue_max >= min(STANDS, FULL * phase.kernel_queue_limit)


def _inline_tracks(evidence: Evidence) -> Finding:
    phases = evidence.overloads("inline")
    bound = TRACKS_BATCHES * evidence.plan.variant("inline").accept_batch
    verdicts = [
        DID_NOT_HOLD if phase.peak > bound else HELD if _stands_in_kernel(phase) else INCONCLUSIVE
        for phase in phases
    ]
    whys = {
        HELD: "The queue stands in the kernel: the loop takes one connection per turn and no more.",
        DID_NOT_HOLD: "Connections were accepted well before they were completed.",
        INCONCLUSIVE: "No queue stood in the kernel, so nothing pressed the loop to run ahead.",
    }
    return _agreed(verdicts, f"{_queues(phases)} (bound {bound})", whys)


def _offloaded_outruns(evidence: Evidence) -> Finding:
    phases = evidence.overloads("executor-1")
    verdicts = []
    for phase in phases:
        in_kernel = phase.kernel_queue_max > max(SOME * (phase.peak + phase.kernel_queue_max), 8)
        verdicts.append(DID_NOT_HOLD if phase.peak < OUTRUNS else INCONCLUSIVE if in_kernel else HELD)
    whys = {
        HELD: "The loop is free to accept, so the same queue now stands inside the service.",
        DID_NOT_HOLD: "Accepting did not get ahead of the work.",
        INCONCLUSIVE: "Part of the queue still stood in the kernel: the loop was a bottleneck too.",
    }
    inside = _span([phase.offload_queue_max for phase in phases])
    return _agreed(verdicts, f"{_queues(phases)}, offload queue up to {inside}", whys)


def _batch_decides(evidence: Evidence) -> Finding:
    small, large = evidence.overloads("inline"), evidence.overloads("inline-batch")
    peaks = [phase.peak for phase in large]
    numbers = (
        f"{_span(peaks)} in flight at most with batch {ALL_AT_ONCE}, "
        f"{_span([phase.peak for phase in small])} with batch {evidence.plan.variant('inline').accept_batch}"
    )
    whys = {
        HELD: "Nothing was offloaded, and yet accepted outruns: a loop that empties the queue moves it.",
        DID_NOT_HOLD: "A larger batch did not let accepted run ahead.",
    }
    return _agreed([HELD if peak >= OUTRUNS else DID_NOT_HOLD for peak in peaks], numbers, whys)


def _kept(phase: PhaseResult) -> float:
    """Of workers / S, answered in time."""
    return phase.goodput_per_second * (phase.demand_seconds or 0.0) / phase.workers


def _bound_keeps_goodput(evidence: Evidence) -> Finding:
    bound, without = evidence.overloads("lanes-1"), evidence.overloads("executor-1")
    kept, left = [_kept(phase) for phase in bound], [_kept(phase) for phase in without]
    numbers = (
        f"{min(kept):.2f} to {max(kept):.2f} of 1/S answered in time, "
        f"{min(left):.2f} to {max(left):.2f} by the stock executor without a bound"
    )
    whys = {
        HELD: "Requests that cannot be answered in time are refused at once; the worker serves the others.",
        DID_NOT_HOLD: "Saying no cost more than it saved, or came too late.",
    }
    verdicts = [HELD if share >= KEPT and share > max(left) else DID_NOT_HOLD for share in kept]
    return _agreed(verdicts, numbers, whys)


def _batch_alone_decides(evidence: Evidence) -> Finding:
    peaks = {name: [phase.peak for phase in evidence.overloads(name)] for name in BATCH_VARIANTS}
    small = [peak for name, found in peaks.items() if name.endswith("-1") for peak in found]
    large = [peak for name, found in peaks.items() if name.endswith("-1000") for peak in found]
    numbers = "in flight at most, by loop and batch: " + ", ".join(
        f"{name.removeprefix('inline-')} {_span(found)}" for name, found in peaks.items()
    )
    if max(small) <= TRACKS_BATCHES and min(large) >= OUTRUNS:
        why = "Both loops track with batch 1 and outrun with batch 1000."
        return Finding(verdict=HELD, numbers=numbers, why=why)
    why = "One loop does not do what the other does with the same batch, or a phase what the others do."
    if max(large) < OUTRUNS:
        why = "A large batch did not let accepted run ahead on either loop."
    return Finding(verdict=DID_NOT_HOLD, numbers=numbers, why=why)


BATCH_VARIANTS: Final = tuple(
    f"inline-{loop}-{batch}" for batch in (1, 16, 1000) for loop in ("uvloop", "asyncio")
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A claim, its source, the variants it needs, how it is judged, and whether by an interval.

    `short`: what the interval is of, where a table of 80 columns shows it.
    """

    claim: str
    source: Literal["post", "offloop"]
    needs: tuple[str, ...]
    judge: Callable[[Evidence], Finding]
    by_interval: bool = False
    short: str = ""


RULES: Final = (
    Rule(
        claim="Inline, one worker caps at about 1/S (250 requests/s at 4 ms)",
        short="inline caps at 1/S: U",
        source="post",
        needs=("inline",),
        judge=_inline_cap,
        by_interval=True,
    ),
    Rule(
        claim="Inline, accepted tracks completed",
        source="post",
        needs=("inline",),
        judge=_inline_tracks,
    ),
    Rule(
        claim="Offloaded, accepted outruns completed",
        source="post",
        needs=("executor-1",),
        judge=_offloaded_outruns,
    ),
    Rule(
        claim="Offloaded, capacity is about five times as high (5.2x)",
        short="a fifth of the work: X",
        source="post",
        needs=("executor-1-fifth", "inline"),
        judge=_published_gain,
        by_interval=True,
    ),
    Rule(
        claim="It is the offloading to one worker that raises capacity",
        short="one worker: U over inline",
        source="post",
        needs=("executor-1", "inline"),
        judge=_offloading_is_the_cause,
        by_interval=True,
    ),
    Rule(
        claim="With one worker per core, capacity follows the cores",
        short="one per core: U of the rest",
        source="offloop",
        needs=("executor-cores", "inline"),
        judge=_cores_scale,
        by_interval=True,
    ),
    Rule(
        claim="Accepted tracks completed because of the accept batch, not of inline work",
        source="offloop",
        needs=("inline", "inline-batch"),
        judge=_batch_decides,
    ),
    Rule(
        claim="With a bound on the predicted wait, overload costs those who are refused and nobody else",
        source="offloop",
        needs=("executor-1", "lanes-1"),
        judge=_bound_keeps_goodput,
    ),
    Rule(
        claim="The accept batch alone decides, on either event loop",
        source="offloop",
        needs=BATCH_VARIANTS,
        judge=_batch_alone_decides,
    ),
    Rule(
        claim="Threads suffice for work that releases the GIL",
        short="GIL released: U of the rest",
        source="offloop",
        needs=("thread-cores-releases", "inline-releases"),
        judge=_threads_suffice,
        by_interval=True,
    ),
    Rule(
        claim="Threads bring nothing for work that holds the GIL",
        short="GIL held: U over inline",
        source="offloop",
        needs=("thread-cores-holds", "inline-holds"),
        judge=_threads_do_not_help,
        by_interval=True,
    ),
    Rule(
        claim="Inline beside itself: no difference",
        short="inline again: U",
        source="offloop",
        needs=("inline", "inline-again"),
        judge=_nothing_is_found,
        by_interval=True,
    ),
    Rule(
        claim="A quarter more work reads as a quarter more",
        short="25 % more work: S",
        source="offloop",
        needs=("inline", "inline-more"),
        judge=_planted_is_found,
        by_interval=True,
    ),
)
