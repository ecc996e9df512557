"""Each rule says held, did not hold and inconclusive when the data does: reversed data flips them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loadtests.verdict import DID_NOT_HOLD, HELD, INCONCLUSIVE, RULES, Range, answer, judge, ledger_gaps

from .synthetic import of, summary

Change = Callable[[dict[str, Any]], None]


def capacity(variant: str, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        for phase in of(content, variant, overload=False):
            phase["goodput_per_second"] = value

    return change


def in_round(variant: str, number: int, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        for phase in of(content, variant, overload=False):
            if phase["round"] == number:
                phase["goodput_per_second"] = value

    return change


def overloaded(variant: str, **fields: int) -> Change:
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
    (DID_NOT_HOLD, [(capacity("process-1", 1200), HELD), (in_round("process-1", 1, 1200), INCONCLUSIVE)]),
    (
        HELD,
        [
            (capacity("process-cores", 250), DID_NOT_HOLD),
            (in_round("process-cores", 1, 250), INCONCLUSIVE),
        ],
    ),
    (HELD, [(overloaded("inline-batch", lead_max=6), DID_NOT_HOLD)]),
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
    capacity("process-1", 300)(content)
    capacity("process-1-fifth", 150)(content)
    capacity("process-cores", 110)(content)
    overloaded("inline", lead_max=600, kernel_queue_max=0)(content)
    overloaded("process-1", lead_max=3, kernel_queue_max=129)(content)
    overloaded("inline-batch", lead_max=3)(content)
    for before, after in zip(judge(summary()), judge(content), strict=True):
        assert {before.verdict, after.verdict} == {HELD, DID_NOT_HOLD}


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
    assert "late" in answer(content)


def test_every_rule_is_in_the_table() -> None:
    assert len(TABLE) == len(RULES)


def test_the_five_times_are_explained_by_the_numbers() -> None:
    assert "smaller work" in answer(summary())
    content = summary()
    capacity("process-1", 1100)(content)
    assert "does not explain" in answer(content)


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
    content["phases"][0]["ledger"]["unexplained"] = 3
    (sentence,) = ledger_gaps(content)
    assert content["phases"][0]["id"] in sentence
    assert "3 connections" in sentence
