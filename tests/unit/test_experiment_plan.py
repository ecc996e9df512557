"""What an experiment consists of, and that every preset makes one."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.experiment.claims import RULES
from loadtests.experiment.evidence import ALPHA
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import DATA, FIRST_LOOK, Cost, Factors, Plan, PlanError
from loadtests.experiment.presets import ALL_AT_ONCE, DIGEST, PLANTED, PRESETS, plan
from loadtests.experiment.progress import expected_seconds
from loadtests.experiment.statistics import geometric
from loadtests.experiment.verdict import evidence_of, rules_for
from loadtests.load.phase import RETRY_POLICIES
from loadtests.peers.plan import TITLES
from service.config.settings import Settings
from service.config.sources import read_settings
from tests.support.synthetic import COSTS, plan_of, quick, summary_of

CORES = (1.0, 1.5, 2.0, 4.0)
NAMES = ("a", "b", "c", "d", "e")


def seeded(seed: int) -> Plan:
    return plan_of("quick", seed=seed)


def test_every_even_cycle_is_the_mirror_of_the_one_before() -> None:
    for cycle in range(1, 40, 2):
        order = seeded(3).order(NAMES, cycle)
        assert seeded(3).order(NAMES, cycle + 1) == order[::-1]
        assert sorted(order) == sorted(NAMES)


def test_odd_cycles_are_shuffled_each_in_its_own_way() -> None:
    orders = {seeded(1).order(NAMES, cycle) for cycle in range(1, 40, 2)}
    assert len(orders) > 10


def test_over_a_cycle_and_its_mirror_every_variant_has_the_same_mean_place() -> None:
    both = [seeded(1).order(NAMES, cycle) for cycle in (5, 6)]
    assert {sum(order.index(name) for order in both) for name in NAMES} == {len(NAMES) - 1}


def test_the_seed_alone_decides_the_order() -> None:
    def orders(seed: int) -> list[tuple[str, ...]]:
        return [seeded(seed).order(NAMES, cycle) for cycle in range(1, 9)]

    assert orders(7) == orders(7)
    assert orders(7) != orders(8)


@pytest.mark.parametrize(
    ("cycles", "more", "looks"),
    [(12, 8, (12, 16, 20)), (12, 0, (12,)), (12, 1, (12, 13)), (1, 0, (1,)), (24, 12, (24, 30, 36))],
)
def test_claims_are_looked_at_first_half_way_and_at_the_end(
    cycles: int, more: int, looks: tuple[int, ...]
) -> None:
    assert plan_of("a-a", cycles=cycles, more_cycles=more).looks == looks


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_plan_that_hangs_together(preset: str, cores: float) -> None:
    made = plan_of(preset, cores)
    known = {variant.name for variant in made.variants}
    ramped = made.ramp.variants if made.ramp is not None else ()
    used = {*made.measured, *made.beside, *made.overloaded, *made.curve, *made.killed, *ramped}
    used |= {made.trigger.variant} if made.trigger is not None else set()
    assert used == known
    assert len(known) == len(made.variants) == len({variant.title for variant in made.variants})
    for variant in made.variants:
        assert 1 <= variant.workers <= max(cores, 1)
        assert variant.work_units > 0
    assert [made.measured != (), made.ramp is not None, made.trigger is not None].count(True) == 1


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_calibration_and_seed_give_the_same_plan(preset: str, cores: float) -> None:
    assert plan_of(preset, cores) == plan_of(preset, cores)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_survives_the_way_to_disk(tmp_path: Path, preset: str) -> None:
    made = plan_of(preset, 1.5, loop="asyncio", seed=9)
    folder = RunFolder(tmp_path)
    folder.write("plan.json", Plan, made)
    assert folder.read("plan.json", Plan) == made


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_service_takes_the_flags_of_every_variant(preset: str, loop: str) -> None:
    for variant in plan_of(preset, loop=loop).variants:
        settings = read_settings(variant.flags())
        assert settings.offload == variant.offload
        assert settings.workers == variant.workers
        assert settings.work_units == variant.work_units
        assert settings.accept_batch == variant.accept_batch
        assert settings.backlog == variant.backlog
        assert settings.loop == variant.loop
        assert settings.work == variant.work
        assert (settings.port, settings.admin_port) == (0, 0)
        assert settings.worker_nice == 0, "a neighbour would strike workers and spare the loop"
        assert math.isinf(settings.queue_wait) == math.isinf(settings.deadline) == (not variant.protected)


def test_every_rule_is_asked_by_some_preset() -> None:
    asked = Counter(rule.claim for preset in PRESETS for rule in rules_for(summary_of(plan_of(preset))))
    assert asked.keys() == {rule.claim for rule in RULES}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_asks_something(preset: str) -> None:
    assert rules_for(summary_of(plan_of(preset)))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_risk_of_a_wrong_verdict_is_shared_out_over_claims_and_looks(preset: str) -> None:
    summary = summary_of(plan_of(preset))
    claims = sum(rule.by_interval for rule in rules_for(summary))
    alpha = evidence_of(summary).alpha
    assert alpha * max(claims, 1) * len(summary.plan.looks) == pytest.approx(ALPHA)


# A ramp needs no look: it has 88 stretches. Batches and cases are not judged by intervals.
NO_LOOK = ("batches", "accept-all-we-can", "metastable")


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in NO_LOOK])
def test_the_first_look_comes_when_exact_intervals_can_be_finite(preset: str) -> None:
    made = plan_of(preset)
    assert made.ramp is None
    assert geometric(range(1, made.looks[0] + 1), evidence_of(summary_of(made)).alpha).finite


def test_quick_has_no_look_before_twelve_cycles_for_eight_pairs_have_no_interval() -> None:
    assert Factors().cycles == FIRST_LOOK == 12
    assert not geometric(range(1, 9), evidence_of(quick()).alpha).finite


def test_quick_takes_less_than_three_minutes() -> None:
    made = plan_of("quick")
    assert expected_seconds(made) < 180
    assert made.factors.budget_seconds < 180


def test_metastable_takes_less_than_six_minutes_with_a_void_case_and_its_start_and_end() -> None:
    made = plan_of("metastable")
    assert expected_seconds(made) + made.case_seconds() + 15 < 360
    assert made.factors.budget_seconds + 15 <= 360


def test_a_trigger_goes_from_below_the_limit_above_it_and_back() -> None:
    trigger = plan_of("metastable").trigger
    assert trigger is not None
    assert trigger.segments(200.0) == ((120.0, 4), (600.0, 3), (120.0, 30))
    assert trigger.all_seconds == 37


def test_the_cases_are_the_usual_design_with_each_way_to_retry_that_it_can_meet_and_two_more() -> None:
    trigger = plan_of("metastable").trigger
    assert trigger is not None
    assert [(case.design, case.retry) for case in trigger.cases] == [
        *(("pool", policy) for policy in RETRY_POLICIES if policy != "retry-after"),  # it never sends one
        ("bounded", "immediate"),
        ("offloop", "immediate"),
    ]
    assert {case.design for case in trigger.cases} <= TITLES.keys()


def test_offloop_meets_the_trigger_as_it_is_by_default() -> None:
    made = plan_of("metastable")
    (ours,) = made.variants
    assert made.trigger is not None
    assert ours.name == made.trigger.variant == "offloop"
    assert ours.protected
    for field in ("offload", "accept_batch", "backlog", "loop"):
        assert getattr(ours, field) == Settings.model_fields[field].default


def test_offloaded_requests_did_a_fifth_of_the_work_in_the_post() -> None:
    made = plan_of("quick")
    units = {variant.name: variant.work_units for variant in made.variants}
    assert units["executor-1-fifth"] == units["executor-1"] / 5
    assert units["executor-1"] == units["executor-cores"] == units["inline"] == units["lanes-1"]


def test_the_published_phases_are_the_22_of_the_post() -> None:
    made = plan_of("accept-all-we-can")
    assert made.ramp is not None
    assert made.ramp.rates_per_second == (20, 60, 100, 120, 160, 180, *range(200, 351, 10))
    assert len(made.ramp.rates_per_second) == 22
    assert made.ramp.phase_seconds == 20.0
    assert {variant.backlog for variant in made.variants} == {4}


def test_batches_differ_in_batch_and_loop_alone() -> None:
    variants = plan_of("batches").variants
    assert {(v.accept_batch, v.loop) for v in variants} == {
        (batch, loop) for batch in (1, 16, ALL_AT_ONCE) for loop in ("uvloop", "asyncio")
    }
    same = {replace(v, name="", title="", accept_batch=1, loop="uvloop") for v in variants}
    assert len(same) == 1


def test_threads_run_both_kinds_of_work() -> None:
    made = plan_of("threads", 4)
    assert {variant.work for variant in made.variants} == {DATA, DIGEST} == set(PRESETS["threads"].works)
    assert {v.workers for v in made.variants if v.offload != "inline"} == {4}


def test_a_a_plants_a_quarter_more_work() -> None:
    inline, again, more = plan_of("a-a").variants
    assert replace(again, name=inline.name, title=inline.title) == inline
    assert more.work_units == inline.work_units * PLANTED


@pytest.mark.parametrize(("ms", "said"), [(0.5, "0.5 ms"), (4.02, "4 ms"), (12.3, "12 ms"), (100, "100 ms")])
def test_titles_never_hold_an_exponent(ms: float, said: str) -> None:
    cost = Cost(work_units=1000, s_seconds=ms / 1e3)
    titles = [variant.title for variant in plan("quick", 2, {DATA: cost}, Factors()).variants]
    assert titles[0] == f"inline, {said}"
    assert not [title for title in titles if re.search(r"e[+-]\d", title)]


@pytest.mark.parametrize(
    ("factors", "why"),
    [
        (Factors(cycles=0), "at least one cycle"),
        (Factors(overload_repeats=0), "one overload"),
        (Factors(overload_seconds=0.001), "1.5x for 0.001 s"),
        (Factors(overload=0.001), "0.001x for 2.5 s"),
    ],
)
def test_factors_that_measure_nothing_are_refused_in_a_sentence(factors: Factors, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        plan("quick", 2, COSTS, factors)


@pytest.mark.parametrize(
    ("factors", "why"),
    [
        ({"overload_seconds": 2.5}, "whole seconds, not 2.5"),
        ({"base": 1.0}, "not from 1x to 3x"),
        ({"overload": 0.9}, "not from 0.6x to 0.9x"),
    ],
)
def test_a_trigger_that_is_none_is_refused_in_a_sentence(factors: dict[str, float], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        plan_of("metastable", **factors)
