"""Judges the claims of the 2017 post, and ours about them, from a summary. Pure.

Knows the claims and the rule for each. A rule looks at numbers only and says one of three things:
held, did not hold, inconclusive (the data is missing, invalid, or its rounds contradict each other).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from loadtests.experiment.evidence import DID_NOT_HOLD, HELD, INCONCLUSIVE, Evidence, Summary, UnusableError

TRACKS_BATCHES: Final = 8
"""Accepted "tracks" completed when it leads by at most this many accept batches: a connection passes
through about five turns of the loop from accept to its end, and each turn takes one batch."""

OUTRUNS: Final = 100
"""Accepted "outruns" completed from a lead of a hundred connections: "hundreds" in the post's plots."""

FULL_QUEUE: Final = 0.9
EMPTY_QUEUE: Final = 0.25
SOME_OF_THE_QUEUE: Final = 0.05
"""The kernel's queue holds part of the waiting if it is more than `EMPTY_QUEUE` full and holds more than this
share of all who wait: with a backlog of 4, the 4 that come within one turn of the loop fill it."""


KEPT: Final = 0.8
"""Of the limit, answered in time under overload: what a service keeps that protects itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, judged: `numbers` is what the rule saw, `why` one sentence."""

    claim: str
    source: str  # "post" or "offloop"
    verdict: str
    numbers: str
    why: str


Finding = tuple[str, str, str]
"""Verdict, numbers, why."""

CONTRADICTION: Final = "The rounds contradict each other."


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
    return verdict, f"{capacity:.0f}/s, {share} of 1/S", why.get(verdict, CONTRADICTION)


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
    if queue > EMPTY_QUEUE * limit and queue > SOME_OF_THE_QUEUE * (lead + queue):
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
    return verdict, f"{ratio}x the inline capacity", why.get(verdict, CONTRADICTION)


def _offloading_is_the_cause(evidence: Evidence) -> Finding:
    ratio = evidence.ratio("process-1", "inline")
    numbers = f"{ratio}x the inline capacity with the same work"
    if ratio.low >= 0.8 and ratio.high <= 1.5:
        why = "One worker is bounded by 1/S as the loop was: it gains only what accepting and answering cost."
        return DID_NOT_HOLD, numbers, why
    if ratio.low >= 2.0:
        return HELD, numbers, "One worker alone more than doubled what the loop could do."
    if ratio.high < 0.8:
        return (
            DID_NOT_HOLD,
            numbers,
            "One worker did not even do what the loop did: look for what held it up.",
        )
    return INCONCLUSIVE, numbers, "Between 1.5x and 2x no single cause stands out, or the rounds disagree."


def _cores_scale(evidence: Evidence) -> Finding:
    cores = evidence.plan["cores"]
    if cores == 1:
        raise UnusableError("with one core there is nothing to scale to")
    ratio = evidence.ratio("process-cores", "inline")
    numbers = f"{ratio}x the inline capacity on {cores} cores"
    verdict = ratio.within(0.8 * cores, float("inf"))
    why = {
        HELD: "Offloading lets work use all cores; loop, generator and workers share them here.",
        DID_NOT_HOLD: "More workers did not bring their share: the cores were busy with something else.",
    }
    return verdict, numbers, why.get(verdict, CONTRADICTION)


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


def _bound_keeps_goodput(evidence: Evidence) -> Finding:
    bound, without = evidence.overload("process-1-protected"), evidence.overload("process-1")
    kept, left = (phase["goodput_per_second"] / phase["limit_per_second"] for phase in (bound, without))
    numbers = (
        f"{kept:.2f} of 1/S in time, lead up to {bound['lead_max']}; "
        f"without the bound {left:.2f}, lead up to {without['lead_max']}"
    )
    if kept < KEPT or kept <= left:
        return DID_NOT_HOLD, numbers, "Saying no cost more than it saved, or came too late."
    return HELD, numbers, "Who cannot be answered in time is told so at once; the worker serves the others."


def _batch_alone_decides(evidence: Evidence) -> Finding:
    leads = {name: evidence.overload(name)["lead_max"] for name in BATCH_VARIANTS}
    small = [leads[name] for name in BATCH_VARIANTS if name.endswith("-1")]
    large = [leads[name] for name in BATCH_VARIANTS if name.endswith("-1000")]
    numbers = ", ".join(f"{name.removeprefix('inline-')}: {lead}" for name, lead in leads.items())
    if max(small) <= TRACKS_BATCHES and min(large) >= OUTRUNS:
        return (
            HELD,
            f"lead by loop and batch: {numbers}",
            "Both loops track with batch 1 and lead with batch 1000.",
        )
    if max(large) < OUTRUNS:
        why = "A large batch did not let accepted run ahead on either loop."
    else:
        why = "One loop does not do what the other does with the same batch."
    return DID_NOT_HOLD, f"lead by loop and batch: {numbers}", why


def _threads_suffice(evidence: Evidence) -> Finding:
    cores = evidence.plan["cores"]
    ratio = evidence.ratio("thread-cores-releases", "inline-releases")
    numbers = f"{ratio}x the inline capacity on {cores} cores"
    verdict = ratio.within(0.8 * cores, float("inf"))
    why = {
        HELD: "hashlib releases the GIL while it computes, so threads run on all cores.",
        DID_NOT_HOLD: "Threads did not reach the other cores although the work releases the GIL.",
    }
    return verdict, numbers, why.get(verdict, CONTRADICTION)


def _threads_do_not_help(evidence: Evidence) -> Finding:
    ratio = evidence.ratio("thread-cores-holds", "inline-holds")
    verdict = ratio.within(0.0, 1.2)
    why = {
        HELD: "Pure Python holds the GIL: threads take turns on one core, and so does the loop.",
        DID_NOT_HOLD: "Threads brought capacity although the work holds the GIL.",
    }
    return verdict, f"{ratio}x the inline capacity", why.get(verdict, CONTRADICTION)


CORE_TRIO: Final = ("inline", "process-1", "process-cores")
BATCH_VARIANTS: Final = tuple(
    f"inline-{loop}-{batch}" for batch in (1, 16, 1000) for loop in ("uvloop", "asyncio")
)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A claim, who makes it, the variants it needs, and how it is judged."""

    claim: str
    source: str
    needs: tuple[str, ...]
    judge: Callable[[Evidence], Finding]


RULES: Final = (
    Rule("Inline, one worker caps at about 1/S (250 requests/s at 4 ms)", "post", ("inline",), _inline_cap),
    Rule("Inline, accepted tracks completed", "post", ("inline",), _inline_tracks),
    Rule("Offloaded, accepted outruns completed", "post", ("process-1",), _offloaded_outruns),
    Rule(
        "Offloaded, capacity is about five times as high (5.2x)",
        "post",
        ("process-1-fifth", "inline"),
        _published_gain,
    ),
    Rule(
        "It is the offloading to one worker that raises capacity",
        "post",
        ("process-1", "inline"),
        _offloading_is_the_cause,
    ),
    Rule("With one worker per core, capacity follows the cores", "offloop", CORE_TRIO, _cores_scale),
    Rule(
        "Accepted tracks completed because of the accept batch, not of inline work",
        "offloop",
        ("inline", "inline-batch"),
        _batch_decides,
    ),
    Rule(
        "With a bound on the predicted wait, overload costs those who are refused and nobody else",
        "offloop",
        ("process-1", "process-1-protected"),
        _bound_keeps_goodput,
    ),
    Rule(
        "The accept batch alone decides, on either event loop",
        "offloop",
        BATCH_VARIANTS,
        _batch_alone_decides,
    ),
    Rule(
        "Threads suffice for work that releases the GIL",
        "offloop",
        ("thread-cores-releases", "inline-releases"),
        _threads_suffice,
    ),
    Rule(
        "Threads bring nothing for work that holds the GIL",
        "offloop",
        ("thread-cores-holds", "inline-holds"),
        _threads_do_not_help,
    ),
)


def rules_for(summary: Summary) -> list[Rule]:
    """The rules whose variants are all part of the plan."""
    planned = {visit["variant"]["name"] for visit in summary["plan"]["visits"]}
    return [rule for rule in RULES if planned.issuperset(rule.needs)]


def judge(summary: Summary) -> list[Verdict]:
    """Every claim that the plan can decide with its verdict, in the order of `RULES`."""
    evidence = Evidence(summary)
    verdicts = []
    for rule in rules_for(summary):
        try:
            finding = rule.judge(evidence)
        except UnusableError as problem:
            why = str(problem)
            finding = (INCONCLUSIVE, "No usable data", f"{why[0].upper()}{why[1:]}.")
        verdicts.append(Verdict(rule.claim, rule.source, *finding))
    return verdicts


def answer(summary: Summary) -> str | None:
    """The 5.2x question, answered from the measurement; None when the plan did not ask it."""
    evidence = Evidence(summary)
    planned = {visit["variant"]["name"] for visit in evidence.plan["visits"]}
    if not planned.issuperset((*CORE_TRIO, "process-1-fifth")):
        return None
    try:
        published = evidence.ratio("process-1-fifth", "inline")
        controlled = evidence.ratio("process-1", "inline")
        cores = evidence.ratio("process-cores", "inline")
    except UnusableError as problem:
        return f"Where the 5.2x comes from cannot be said from this run: {problem}."
    number = evidence.plan["cores"]
    # The work alone would make it five times the controlled ratio; a quarter either way is noise enough.
    is_work = published.low / controlled.high >= 3.75 and published.high / controlled.low <= 6.25
    return (
        f"As published, with a fifth of the work per offloaded request, one worker gives {published}x. "
        f"With the same work on both sides it gives {controlled}x, and {number} workers give {cores}x on "
        f"{number} cores. "
        + (
            "The published gain is the smaller work; what offloading itself brings is a free loop, "
            "and the other cores once there are workers for them."
            if is_work
            else "On this machine the work alone does not explain the published gain."
        )
    )
