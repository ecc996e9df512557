"""Each rule says held, did not hold or inconclusive when the data does, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtests.experiment import metastable
from loadtests.experiment.claims import RULES
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.queues import STANDS
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import Verdict, answer, judge, rules_for, undecided
from loadtests.peers import designs
from tests.support.synthetic import (
    costlier,
    faster,
    plan_of,
    quick,
    summary_of,
    with_blocks,
    with_phases,
    with_recovery,
)

Change = Callable[[Summary], Summary]


def works(variant: str, factor: float) -> Change:
    """The variant does so many times as much work."""
    return lambda summary: with_blocks(summary, variant, faster(factor))


def costs(variant: str, factor: float) -> Change:
    """A unit costs it so many times the CPU time."""
    return lambda summary: with_blocks(summary, variant, costlier(factor))


def overloaded(variant: str, only: int | None = None, **changes: object) -> Change:
    """Its overload phases went another way, or the n-th of them alone."""
    return lambda summary: with_phases(summary, variant, only, **changes)


def disturbed(*variants: str) -> Change:
    """All blocks and phases of these variants are void."""

    def change(summary: Summary) -> Summary:
        for name in variants:
            summary = with_blocks(summary, name, lambda block: replace(block, void_because=("a neighbour",)))
            summary = with_phases(summary, name, invalid_because=("it was late",))
        return summary

    return change


def few_cycles(summary: Summary) -> Summary:
    """Too few for an interval."""
    return replace(summary, blocks=tuple(block for block in summary.blocks if block.cycle <= 4))


def both(*changes: Change) -> Change:
    def change(summary: Summary) -> Summary:
        for one in changes:
            summary = one(summary)
        return summary

    return change


def recovered(case: str, **changes: object) -> Change:
    """A case came back after another time, or not at all, or its seconds went another way."""
    return lambda summary: with_recovery(summary, case, **changes)


def no_recovery(summary: Summary) -> Summary:
    return replace(summary, recoveries=())


# Answers in each second of a case: 4 s before the trigger, 3 s of it, 30 s after it.
UP: tuple[int, ...] = (120, 120, 120, 120, 30, 30, 30)
FLICKER = (*UP, *(0,) * 10, 120, *(0,) * 19)
HALF = (*UP, *(0,) * 29, 60)
LESS = (*UP, *(59,) * 30)

STRADDLES = " straddles "
DISAGREE = "The overload phases do not agree"
TOO_FEW = "4 cycles are too few for an interval"

# The preset, the claim by the function that judges it, what the usual figures say, and what turns it.
TABLE: list[tuple[str, str, str, list[tuple[Change, str, str]]]] = [
    (
        "quick",
        "inline_cap",
        HELD,
        [
            (works("inline", 1.3), DID_NOT_HOLD, "something else bounds the loop"),
            (works("inline", 0.5), DID_NOT_HOLD, "something else bounds the loop"),
            (works("inline", 0.852), INCONCLUSIVE, STRADDLES),  # U 0.70
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("inline"), INCONCLUSIVE, "No block of inline can be judged"),
        ],
    ),
    (
        "quick",
        "inline_tracks",
        HELD,
        [
            (overloaded("inline", peak=9), DID_NOT_HOLD, "accepted well before"),
            (overloaded("inline", peak=8), HELD, "one connection per turn"),
            (overloaded("inline", kernel_queue_max=STANDS - 1), INCONCLUSIVE, "No queue stood"),
            (overloaded("inline", kernel_queue_max=4, kernel_queue_limit=4), HELD, "stands in the kernel"),
            (overloaded("inline", 1, peak=9), INCONCLUSIVE, DISAGREE),
            (overloaded("inline", pressure=1.1), INCONCLUSIVE, "never reached 1.2x its limit"),
            (disturbed("inline"), INCONCLUSIVE, "no valid overload phase: it was late"),
        ],
    ),
    (
        "quick",
        "offloaded_outruns",
        HELD,
        [
            (overloaded("executor-1", peak=99), DID_NOT_HOLD, "did not get ahead"),
            (overloaded("executor-1", peak=100), HELD, "free to accept"),
            (overloaded("executor-1", kernel_queue_max=200), INCONCLUSIVE, "still stood in the kernel"),
            (overloaded("executor-1", 2, peak=5), INCONCLUSIVE, DISAGREE),
            (disturbed("executor-1"), INCONCLUSIVE, "no valid overload phase"),
        ],
    ),
    (
        "quick",
        "published_gain",
        HELD,
        [
            (works("executor-1-fifth", 0.6), DID_NOT_HOLD, "another factor"),
            (works("executor-1-fifth", 1.2), DID_NOT_HOLD, "another factor"),
            (works("executor-1-fifth", 1.12), INCONCLUSIVE, STRADDLES),  # 6.0x
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("executor-1-fifth"), INCONCLUSIVE, "No cycle has a block of both"),
        ],
    ),
    (
        "quick",
        "offloading_is_the_cause",
        DID_NOT_HOLD,
        [
            (works("executor-1", 1.5), HELD, "half as much again"),
            (works("executor-1", 1.268), INCONCLUSIVE, STRADDLES),  # 1.5x
            # U says 1.18 either way; units that cost twice as much at inline make it more by throughput.
            (costs("inline", 2), HELD, "so throughput judges"),
            (costs("executor-1", 0.5), HELD, "so throughput judges"),
            (costs("inline", 1.05), DID_NOT_HOLD, "gains only what accepting and answering cost."),
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("inline"), INCONCLUSIVE, "No cycle has a block of both"),
        ],
    ),
    (
        "quick",
        "cores_scale",
        HELD,
        [
            (works("executor-cores", 0.7), DID_NOT_HOLD, "left unused"),
            (works("executor-cores", 0.9375), INCONCLUSIVE, STRADDLES),  # 0.90
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("executor-cores"), INCONCLUSIVE, "No block of executor-cores"),
        ],
    ),
    (
        "quick",
        "batch_decides",
        HELD,
        [
            (overloaded("inline-batch", peak=99), DID_NOT_HOLD, "did not let accepted run ahead"),
            (overloaded("inline-batch", 0, peak=6), INCONCLUSIVE, DISAGREE),
            (disturbed("inline-batch"), INCONCLUSIVE, "no valid overload phase"),
        ],
    ),
    (
        "quick",
        "bound_keeps_goodput",
        HELD,
        [
            (overloaded("lanes-1", goodput_per_second=0.75 * 250), DID_NOT_HOLD, "came too late"),
            (overloaded("executor-1", goodput_per_second=0.97 * 250), DID_NOT_HOLD, "came too late"),
            (overloaded("lanes-1", 1, goodput_per_second=10.0), INCONCLUSIVE, DISAGREE),
            (overloaded("lanes-1", goodput_per_second=0.0), DID_NOT_HOLD, "came too late"),
            (disturbed("lanes-1"), INCONCLUSIVE, "no valid overload phase"),
        ],
    ),
    (
        "batches",
        "batch_alone_decides",
        HELD,
        [
            (overloaded("inline-asyncio-1", peak=200), DID_NOT_HOLD, "One loop does not do"),
            (overloaded("inline-asyncio-1000", 1, peak=7), DID_NOT_HOLD, "One loop does not do"),
            (
                both(overloaded("inline-uvloop-1000", peak=7), overloaded("inline-asyncio-1000", peak=7)),
                DID_NOT_HOLD,
                "on either loop",
            ),
            (overloaded("inline-asyncio-16", peak=300), HELD, "Both loops track"),
            (disturbed("inline-uvloop-16"), INCONCLUSIVE, "nline-uvloop-16 has no valid overload"),
        ],
    ),
    (
        "threads",
        "threads_suffice",
        HELD,
        [
            (works("thread-cores-releases", 0.5), DID_NOT_HOLD, "did not fill the other cores"),
            (works("thread-cores-releases", 0.8333), INCONCLUSIVE, STRADDLES),  # 0.80
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("thread-cores-releases"), INCONCLUSIVE, "No block of thread-cores-releases"),
        ],
    ),
    (
        "threads",
        "threads_do_not_help",
        HELD,
        [
            (works("thread-cores-holds", 1.8), DID_NOT_HOLD, "brought capacity"),
            (works("thread-cores-holds", 1.2), INCONCLUSIVE, STRADDLES),
            (costs("inline-holds", 2), DID_NOT_HOLD, "so throughput judges"),
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("inline-holds"), INCONCLUSIVE, "No cycle has a block of both"),
        ],
    ),
    (
        "a-a",
        "nothing_is_found",
        HELD,
        [
            (works("inline-again", 1.1), DID_NOT_HOLD, "It finds one"),
            (works("inline-again", 0.9), DID_NOT_HOLD, "It finds one"),
            (works("inline-again", 1.03), INCONCLUSIVE, STRADDLES),
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("inline-again"), INCONCLUSIVE, "No cycle has a block of both"),
        ],
    ),
    (
        "a-a",
        "planted_is_found",
        HELD,
        [
            (costs("inline-more", 0.8), DID_NOT_HOLD, "another amount"),
            (costs("inline-more", 1.2), DID_NOT_HOLD, "another amount"),
            (few_cycles, INCONCLUSIVE, TOO_FEW),
            (disturbed("inline-more"), INCONCLUSIVE, "No cycle has a block of both"),
        ],
    ),
    (
        "metastable",
        "stays_down",
        HELD,
        [
            (recovered("pool-immediate", back=29), DID_NOT_HOLD, "answered again"),
            (recovered("pool-immediate", answered=FLICKER), DID_NOT_HOLD, "answered again"),
            (recovered("pool-immediate", answered=HALF), DID_NOT_HOLD, "answered again"),
            (recovered("pool-immediate", answered=LESS), HELD, "given up"),
            (recovered("pool-immediate", void_because=("late",)), INCONCLUSIVE, "immediate is void: late"),
            (recovered("pool-immediate", answered=(90,) * 37), INCONCLUSIVE, "answered 90 of 120"),
            (no_recovery, INCONCLUSIVE, "ool-immediate was not measured"),
        ],
    ),
    (
        "metastable",
        "retries_keep_it_down",
        HELD,
        [
            (recovered("pool-immediate", back=29), DID_NOT_HOLD, "Retries did not keep"),
            (recovered("pool-none", back=None), DID_NOT_HOLD, "without retries, too"),
            # The queue of three seconds at 3.6x takes 38 s at 0.78; at 0.6 it would take 15.
            (recovered("pool-none", back=None, loads=(0.6, 0.72, 0.78)), INCONCLUSIVE, "too slow to tell"),
            (recovered("pool-immediate", loads=(0.6, 0.72, 0.78)), INCONCLUSIVE, "too slow to tell"),
            (recovered("pool-none", back=28, loads=(0.6, 0.72, 0.78)), HELD, "clients try again"),
            (recovered("pool-none", void_because=("late",)), INCONCLUSIVE, "none is void: late"),
        ],
    ),
    *(
        (
            "metastable",
            rule,
            usual,
            [
                (recovered(case, back=29), HELD, "have to spare"),
                (recovered(case, back=None), DID_NOT_HOLD, "still down at the end"),
                (
                    both(recovered(case, back=5), recovered("pool-immediate", back=29)),
                    INCONCLUSIVE,
                    "nothing to prevent",
                ),
                (recovered(case, void_because=("late",)), INCONCLUSIVE, "is void: late"),
            ],
        )
        for rule, case, usual in (
            ("budget_suffices", "pool-budget", HELD),
            ("backoff_suffices", "pool-backoff", DID_NOT_HOLD),
        )
    ),
    *(
        (
            "metastable",
            rule,
            HELD,
            [
                (recovered(case, back=1), HELD, "no queue"),
                (recovered(case, back=2), DID_NOT_HOLD, "later than that"),
                (recovered(case, back=None), DID_NOT_HOLD, "later than that"),
                (recovered(case, answered=FLICKER), DID_NOT_HOLD, "later than that"),
                (recovered(case, void_because=("late",)), INCONCLUSIVE, "is void: late"),
            ],
        )
        for rule, case in (("bounded_is_back", "bounded-immediate"), ("ours_is_back", "offloop-immediate"))
    ),
]
CASES = [
    pytest.param(preset, rule, change, verdict, why, id=f"{rule}-{number}")
    for preset, rule, _, turns in TABLE
    for number, (change, verdict, why) in enumerate(turns)
]


def test_a_budget_is_not_judged_where_the_queue_alone_outlasts_the_watch() -> None:
    """At 0.68 a queue without retries is gone after 22 s, and with a tenth more attempts after 33."""
    summary = summary_of(plan_of("metastable"))
    slow = recovered("pool-budget", back=None, loads=(0.6, 0.68, 0.68))(summary)
    verdict = judged(slow, "budget_suffices")
    assert verdict.verdict == INCONCLUSIVE
    assert "too slow to tell" in verdict.finding.why
    slower = recovered("pool-backoff", back=None, loads=(0.6, 0.68, 0.68))(summary)
    assert judged(slower, "backoff_suffices").verdict == DID_NOT_HOLD
    slowest = recovered("pool-backoff", back=None, loads=(0.6, 0.7, 0.8))(summary)
    assert judged(slowest, "backoff_suffices").verdict == INCONCLUSIVE


def test_a_bound_is_not_judged_where_it_is_more_than_a_client_waits_for() -> None:
    """Two workers, a base load of 60/s: at 0.9 of the limit S is 30 ms, and 64 are 0.96 s; at 0.96 1.02 s."""

    def verdict(load: float, back: int) -> Verdict:
        change = recovered("bounded-immediate", back=back, base_per_second=60.0, loads=(0.6, load, 0.6))
        return judged(change(summary_of(plan_of("metastable"))), "bounded_is_back")

    assert verdict(0.9, 5).verdict == DID_NOT_HOLD
    assert verdict(0.96, 5).verdict == INCONCLUSIVE
    assert "64 in flight are 1.02 s" in verdict(0.96, 5).finding.why
    assert verdict(0.96, 0).verdict == HELD


def test_the_bound_that_is_judged_is_that_of_the_design() -> None:
    assert metastable.IN_FLIGHT == designs.MOST_IN_FLIGHT


def test_what_generator_and_service_take_of_the_cores_works_no_queue_off() -> None:
    """At 0.66 the queue is gone after 20 s; if a fifth of the cores is not the workers', after 53."""
    summary = recovered("pool-backoff", back=None, loads=(0.6, 0.66, 0.66))(summary_of(plan_of("metastable")))
    assert judged(summary, "backoff_suffices").verdict == DID_NOT_HOLD
    (measured, *_) = quick().blocks
    saturated = replace(
        measured, variant="offloop", part="beside", workers=2, seconds=1.0, work_cpu_seconds=1.6
    )
    summary = replace(summary, blocks=(*summary.blocks, saturated))
    assert judged(summary, "backoff_suffices").verdict == INCONCLUSIVE


def judged(summary: Summary, rule: str) -> Verdict:
    (wanted,) = [one for one in RULES if one.judge.__name__ == rule]
    (verdict,) = judge(summary, [wanted])
    return verdict


def test_every_rule_is_in_the_table() -> None:
    assert [rule for _, rule, _, _ in TABLE] == sorted(
        (rule.judge.__name__ for rule in RULES), key=[rule for _, rule, _, _ in TABLE].index
    )


@pytest.mark.parametrize(("preset", "rule", "expected"), [row[:3] for row in TABLE])
def test_the_usual_figures_are_judged_as_expected(preset: str, rule: str, expected: str) -> None:
    assert judged(summary_of(plan_of(preset)), rule).verdict == expected


@pytest.mark.parametrize(("preset", "rule", "change", "expected", "why"), CASES)
def test_other_figures_turn_the_verdict_and_say_why(
    preset: str, rule: str, change: Change, expected: str, why: str
) -> None:
    found = judged(change(summary_of(plan_of(preset))), rule)
    assert found.verdict == expected, found.finding
    assert why in found.finding.why
    assert found.finding.why.endswith(".")
    assert found.finding.numbers


def test_every_rule_can_say_all_three_things() -> None:
    for _, rule, usual, turns in TABLE:
        said = {usual, *(verdict for _, verdict, _ in turns)}
        assert said == {HELD, DID_NOT_HOLD, INCONCLUSIVE}, rule


def test_how_many_more_cycles_would_decide_is_told_unless_they_would_hardly() -> None:
    near = judged(works("inline-again", 1.026)(summary_of(plan_of("a-a", cycles=12))), "nothing_is_found")
    assert near.verdict == INCONCLUSIVE
    assert "straddles 1.03; about " in near.finding.why
    at_the_end = judged(
        works("inline-again", 1.03)(summary_of(plan_of("a-a", cycles=12))), "nothing_is_found"
    )
    assert at_the_end.verdict == INCONCLUSIVE
    assert "straddles 1.03; more cycles would hardly decide." in at_the_end.finding.why


def test_the_bound_of_tracking_grows_with_the_accept_batch() -> None:
    summary = summary_of(plan_of("quick", accept_batch=16))
    assert judged(with_phases(summary, "inline", peak=128), "inline_tracks").verdict == HELD
    assert judged(with_phases(summary, "inline", peak=129), "inline_tracks").verdict == DID_NOT_HOLD


def test_with_one_core_there_is_nothing_to_scale_to() -> None:
    found = judged(summary_of(plan_of("quick", 1.0)), "cores_scale")
    assert found.verdict == INCONCLUSIVE
    assert found.finding.why == "With one core there is nothing to scale to."


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("quick", 8),
        ("controlled", 8),
        ("accept-all-we-can", 4),
        ("batches", 1),
        ("threads", 2),
        ("a-a", 3),
        ("metastable", 6),
    ],
)
def test_a_preset_is_judged_by_the_claims_it_can_decide_in_their_order(preset: str, count: int) -> None:
    summary = summary_of(plan_of(preset))
    said = [verdict.claim for verdict in judge(summary)]
    assert len(said) == count
    assert said == [rule.claim for rule in RULES if rule in rules_for(summary)]


@pytest.mark.parametrize("preset", PRESETS)
def test_without_data_everything_is_inconclusive_and_nothing_breaks(preset: str) -> None:
    summary = replace(summary_of(plan_of(preset)), blocks=(), phases=(), kills=(), recoveries=())
    verdicts = judge(summary)
    assert len(verdicts) == len(rules_for(summary)) > 0
    for verdict in verdicts:
        assert verdict.verdict == INCONCLUSIVE
        assert verdict.finding.numbers == "No usable data"


def test_a_run_is_undecided_while_a_claim_that_cycles_decide_is() -> None:
    assert not undecided(quick())
    assert undecided(works("executor-1", 1.268)(quick())) == {"executor-1", "inline"}
    assert not undecided(overloaded("inline", 1, peak=9)(quick())), "no cycle would decide a queue"


def test_the_5_2_are_explained_by_the_numbers() -> None:
    said = str(answer(quick()))
    assert "5.35" in said
    assert "1.18" in said
    assert "The published gain is the smaller work" in said


def test_the_5_2_are_not_explained_by_work_that_brings_nothing() -> None:
    assert "does not explain" in str(answer(works("executor-1-fifth", 0.2)(quick())))
    assert "4 cycles are too few to say more" in str(answer(few_cycles(quick())))


def test_the_5_2_cannot_be_explained_from_a_run_without_the_blocks() -> None:
    said = str(answer(disturbed("executor-1-fifth")(quick())))
    assert "cannot be said from this run: no cycle has a block of both executor-1-fifth and inline" in said


@pytest.mark.parametrize("preset", ["accept-all-we-can", "batches", "threads", "a-a", "metastable"])
def test_the_5_2_are_no_question_of_other_presets(preset: str) -> None:
    assert answer(summary_of(plan_of(preset))) is None
