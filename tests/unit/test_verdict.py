"""Each rule says held, did not hold and inconclusive when the data does: reversed data flips them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loadtests.experiment.evidence import DID_NOT_HOLD, HELD, INCONCLUSIVE, Range, ledger_gaps
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.verdict import RULES, answer, judge

from .synthetic import of, plan_of, serve, summary

Change = Callable[[dict[str, Any]], None]


def capacity(variant: str, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        for overload in (False, True):
            for phase in of(content, variant, overload=overload):
                serve(phase, value)

    return change


def in_round(variant: str, number: int, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        for phase in of(content, variant, overload=False):
            if phase["round"] == number:
                serve(phase, value)

    return change


def overloaded(variant: str, **fields: object) -> Change:
    def change(content: dict[str, Any]) -> None:
        for phase in of(content, variant, overload=True):
            phase.update(fields)

    return change


# In the order of RULES: what the confirming data says, then a change and what it turns the verdict to.
TABLE: tuple[tuple[str, list[tuple[Change, str]]], ...] = (
    (HELD, [(capacity("inline", 100), DID_NOT_HOLD), (in_round("inline", 2, 100), INCONCLUSIVE)]),
    (
        HELD,
        [
            (overloaded("inline", lead_max=9), DID_NOT_HOLD),
            (overloaded("inline", kernel_queue_max=50), INCONCLUSIVE),
        ],
    ),
    (
        HELD,
        [
            (overloaded("process-1", lead_max=5), DID_NOT_HOLD),
            (overloaded("process-1", kernel_queue_max=128), INCONCLUSIVE),
        ],
    ),
    (
        HELD,
        [
            (capacity("process-1-fifth", 300), DID_NOT_HOLD),
            (in_round("process-1-fifth", 1, 300), INCONCLUSIVE),
        ],
    ),
    (
        DID_NOT_HOLD,
        [
            (capacity("inline", 100), HELD),  # a loop so slow that one worker doubles it
            (in_round("inline", 2, 100), INCONCLUSIVE),
            (capacity("process-1", 10_000), INCONCLUSIVE),  # never saturated: nothing is known of it
        ],
    ),
    (
        HELD,
        [
            (capacity("process-cores", 250), DID_NOT_HOLD),
            (in_round("process-cores", 1, 250), INCONCLUSIVE),
        ],
    ),
    (HELD, [(overloaded("inline-batch", lead_max=6), DID_NOT_HOLD)]),
    (HELD, [(overloaded("process-1-protected", goodput_per_second=190.0), DID_NOT_HOLD)]),
)
CASES = [(number, change, turned) for number, (_, changes) in enumerate(TABLE) for change, turned in changes]


def test_the_confirming_data_is_judged_as_expected() -> None:
    assert [verdict.verdict for verdict in judge(summary())] == [expected for expected, _ in TABLE]


@pytest.mark.parametrize(("number", "change", "turned"), CASES)
def test_changed_data_turns_the_verdict(number: int, change: Change, turned: str) -> None:
    content = summary()
    before = judge(content)[number]
    change(content)
    after = judge(content)[number]
    assert before.verdict != after.verdict == turned
    assert after.numbers != before.numbers
    assert after.why != before.why


def test_reversed_data_flips_every_verdict() -> None:
    content = summary()
    capacity("inline", 100)(content)
    capacity("process-1", 240)(content)
    capacity("process-1-fifth", 150)(content)
    capacity("process-cores", 110)(content)
    overloaded("inline", lead_max=600, kernel_queue_max=0)(content)
    overloaded("process-1", lead_max=3, kernel_queue_max=129)(content)
    overloaded("inline-batch", lead_max=3)(content)
    overloaded("process-1-protected", goodput_per_second=60.0)(content)
    for before, after in zip(judge(summary()), judge(content), strict=True):
        assert {before.verdict, after.verdict} == {HELD, DID_NOT_HOLD}


THREADS = ("holds", "releases")


def test_the_other_presets_are_judged_by_their_own_rules_both_ways() -> None:
    content = summary(plan_of("threads"))
    for kind in THREADS:
        capacity(f"inline-{kind}", 230)(content)
        capacity(f"process-cores-{kind}", 440)(content)
    capacity("thread-cores-holds", 220)(content)
    capacity("thread-cores-releases", 430)(content)
    assert [verdict.verdict for verdict in judge(content)] == [HELD, HELD]
    capacity("thread-cores-holds", 430)(content)
    capacity("thread-cores-releases", 230)(content)
    assert [verdict.verdict for verdict in judge(content)] == [DID_NOT_HOLD, DID_NOT_HOLD]

    content = summary(plan_of("batches"))
    for name in {phase["variant"] for phase in content["phases"]}:
        overloaded(name, lead_max=500 if name.endswith("-1000") else 6)(content)
    assert [verdict.verdict for verdict in judge(content)] == [HELD]
    overloaded("inline-asyncio-1", lead_max=200)(content)
    assert [verdict.verdict for verdict in judge(content)] == [DID_NOT_HOLD]


@pytest.mark.parametrize(
    ("preset", "claims"),
    [
        ("quick", 8),
        ("controlled", 5),
        ("as-published", 3),
        ("accept-all-we-can", 4),
        ("batches", 1),
        ("threads", 2),
    ],
)
def test_a_preset_is_judged_by_the_claims_it_can_decide(preset: str, claims: int) -> None:
    assert len(judge(summary(plan_of(preset)))) == claims


def test_a_load_that_never_reached_capacity_decides_nothing() -> None:
    content = summary()
    for variant in ("inline", "process-1", "process-1-fifth", "process-cores"):
        capacity(variant, 10_000)(content)
    for verdict in judge(content):
        assert verdict.verdict == INCONCLUSIVE or "/s" not in verdict.numbers
    assert "never reached" in str(answer(content))


def test_a_phase_that_fell_short_below_a_met_rate_decides_nothing() -> None:
    content = summary()
    (low, *_) = of(content, "inline", overload=False)
    serve(low, 30)
    assert judge(content)[0].verdict == INCONCLUSIVE
    assert low["id"] in judge(content)[0].why


def test_an_invalid_overload_spoils_only_what_needs_it() -> None:
    content = summary()
    overloaded("process-1", state="invalid", invalid_because=["late"])(content)
    verdicts = {verdict.claim: verdict.verdict for verdict in judge(content)}
    assert verdicts["Offloaded, accepted outruns completed"] == INCONCLUSIVE
    assert verdicts["Inline, accepted tracks completed"] == HELD
    assert verdicts["It is the offloading to one worker that raises capacity"] == DID_NOT_HOLD


def test_one_core_has_nothing_to_scale_to() -> None:
    content = summary(plan_of("quick", cores=1))
    assert judge(content)[5].verdict == INCONCLUSIVE


def test_a_missing_variant_is_inconclusive_and_says_which() -> None:
    content = summary()
    content["phases"] = []
    for verdict in judge(content):
        assert verdict.verdict == INCONCLUSIVE
        assert verdict.why


def test_an_invalid_phase_decides_nothing() -> None:
    content = summary()
    for phase in content["phases"]:
        phase["state"], phase["invalid_because"] = "invalid", ["the generator was late"]
    assert {verdict.verdict for verdict in judge(content)} == {INCONCLUSIVE}
    assert "late" in str(answer(content))


def test_every_rule_decides_in_some_preset() -> None:
    judged = {verdict.claim for preset in PRESETS for verdict in judge(summary(plan_of(preset)))}
    assert judged == {rule.claim for rule in RULES}


def test_the_five_times_are_explained_by_the_numbers() -> None:
    assert "smaller work" in str(answer(summary()))
    content = summary()
    capacity("process-1-fifth", 700)(content)
    assert "does not explain" in str(answer(content))
    assert answer(summary(plan_of("threads"))) is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (4, 6, HELD),
        (3, 3.9, DID_NOT_HOLD),
        (6.1, 9, DID_NOT_HOLD),
        (3.9, 4.1, INCONCLUSIVE),
        (3, 9, INCONCLUSIVE),
    ],
)
def test_a_range_must_agree_with_itself(low: float, high: float, verdict: str) -> None:
    assert Range(low, high).within(4, 6) == verdict


def test_books_that_do_not_close_are_named() -> None:
    content = summary()
    assert ledger_gaps(content) == []
    content["phases"][0]["ledger"] |= {"unexplained": 3, "active": 2}
    (sentence,) = ledger_gaps(content)
    assert sentence == f"{content['phases'][0]['id']}: connections 3 unexplained, 2 still active"
