"""The rules for claims about an amount. Pure.

Each judges by an interval: held if all of it lies in the claim's region, did not hold if none of it does.
"""

from __future__ import annotations

import math
from typing import Final

from loadtests.experiment.evidence import Evidence, Gain, UnusableError
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE, Finding
from loadtests.experiment.presets import PLANTED
from loadtests.experiment.statistics import Estimate, Region, more_needed

INLINE_CAP: Final = Region(0.7, 1.02)
"""U of one loop that does all the work itself. It cannot exceed 1, as a core has one second per second (2 %
for the error of two readings); accepting and answering take their part, some 0.3 to 1 ms beside 4."""

PUBLISHED: Final = Region(4.0, 6.0)
"""About five times: a fifth of the work, a quarter of an octave either way."""

RAISES: Final = Region(1.5, math.inf)
"""Offloading "raises capacity" if it gains half as much again or more. One worker can gain 1 / U of inline,
as accepting and answering leave the loop: some 1.2; a gain of 1.5 needs another cause."""

NOTHING_LEFT: Final = Region(0.9, math.inf)
"""U over the cores that generator and IO process leave: above this, next to nothing is unused. A worker's own
part of the hand-over, a few per cent at 4 ms, is not work and therefore missing."""

SUFFICE: Final = Region(0.8, math.inf)
"""The same for threads: sharing one interpreter with the loop may cost a fifth."""

NO_HELP: Final = Region(0.0, 1.2)
"""A gain that needs no second core: the share of the loop that accepting and answering took."""

NOTHING: Final = Region(0.97, 1.03)
"""Inline beside itself."""

FOUND: Final = Region(0.95 * PLANTED, 1.05 * PLANTED)
"""What was planted, within 5 %."""

WORTH_MEASURING: Final = 200
"""Cycles, in a quarter of an hour; if more are needed, the truth is too close to the end of a region."""


def inline_cap(evidence: Evidence) -> Finding:
    """One loop that does all the work is bounded by one core: U."""
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


def published_gain(evidence: Evidence) -> Finding:
    """The gain of the post, with a fifth of the work per offloaded request."""
    gain = evidence.gain("executor-1-fifth", "inline")
    return _interval(
        gain.steady,
        PUBLISHED,
        _split(gain),
        "Offloaded requests did a fifth of the work here, as in the post's code history: the figure "
        "reproduces, and the work explains it.",
        "Even with a fifth of the work per request, this machine gives another factor.",
    )


def offloading_is_the_cause(evidence: Evidence) -> Finding:
    """The gain of one worker with the same work as inline."""
    gain = evidence.gain("executor-1", "inline")
    judged, note = _judged(gain)
    return _interval(
        judged,
        RAISES,
        f"with the same work {_split(gain)}",
        "One worker alone did half as much again as the loop." + note,
        "One worker is bounded by 1/S as the loop was: it gains only what accepting and answering cost."
        + note,
    )


def cores_scale(evidence: Evidence) -> Finding:
    """U of one worker per core, as a share of the cores that are left to the work."""
    workers = evidence.plan.variant("executor-cores").workers
    if workers == 1:
        raise UnusableError("with one core there is nothing to scale to")
    share = evidence.share_of_left("executor-cores")
    gain = evidence.gain("executor-cores", "inline")
    return _interval(
        share,
        NOTHING_LEFT,
        f"{share} of the cores left over; beside inline {_split(gain)}",
        "Workers use all that generator and IO process leave of the cores.",
        "Part of the cores was left unused: workers waited for work.",
    )


def threads_suffice(evidence: Evidence) -> Finding:
    """The same for threads, with work that releases the GIL."""
    share = evidence.share_of_left("thread-cores-releases")
    gain = evidence.gain("thread-cores-releases", "inline-releases")
    return _interval(
        share,
        SUFFICE,
        f"{share} of the cores left over; beside inline {_split(gain)}",
        "hashlib releases the GIL while it computes, so threads run on all cores.",
        "Threads did not fill the other cores although the work releases the GIL.",
    )


def threads_do_not_help(evidence: Evidence) -> Finding:
    """The gain of threads over inline, with work that holds the GIL."""
    gain = evidence.gain("thread-cores-holds", "inline-holds")
    judged, note = _judged(gain)
    return _interval(
        judged,
        NO_HELP,
        f"beside inline {_split(gain)}",
        "Pure Python holds the GIL: threads take turns on one core, and so does the loop." + note,
        "Threads brought capacity although the work holds the GIL." + note,
    )


def nothing_is_found(evidence: Evidence) -> Finding:
    """Inline beside itself."""
    gain = evidence.gain("inline-again", "inline")
    return _interval(
        gain.utilisation, NOTHING, _split(gain), "The instrument finds no difference.", "It finds one."
    )


def planted_is_found(evidence: Evidence) -> Finding:
    """Inline beside itself with more work, which is planted."""
    gain = evidence.gain("inline-more", "inline")
    return _interval(
        gain.demand, FOUND, _split(gain), "What was planted is found.", "The instrument reads another amount."
    )


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


def _split(gain: Gain) -> str:
    """A gain in throughput, split into its factors."""
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
