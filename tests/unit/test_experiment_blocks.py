"""A block: X = U / S, what belongs to the work, and what makes it void."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.experiment.blocks import (
    ENDED_EARLY,
    MOST_GENERATOR,
    Block,
    Inputs,
    Stretch,
    block,
    inputs,
)
from loadtests.experiment.counters import Reading
from loadtests.experiment.plan import Variant
from loadtests.load.facts import GeneratorFacts
from loadtests.neighbours import MOST_OTHERS, MOST_STOLEN, MOST_THROTTLED
from tests.support.synthetic import FACTS, books, plan_of, reading

INLINE = plan_of("quick").variant("inline")
ONE = plan_of("quick").variant("executor-1")
TWO = plan_of("quick").variant("executor-cores")
NO_TASK = "not one unit of work was done"

# Two cores, two seconds: 400 units in 1.6 s of CPU; the service used 2.2 s in all, the generator 0.2.
BEFORE = reading(
    seconds=10.0, tasks=100, task_cpu_seconds=0.4, io_cpu_seconds=1.0, busy_seconds=5.0, ours_seconds=3.0
)
AFTER = reading(
    seconds=12.0, tasks=500, task_cpu_seconds=2.0, io_cpu_seconds=3.2, busy_seconds=7.5, ours_seconds=5.4
)


def made(
    variant: Variant = INLINE,
    before: Reading = BEFORE,
    after: Reading = AFTER,
    facts: GeneratorFacts = FACTS,
    **more: Any,
) -> Block:
    stretch = Stretch(before=before, after=after, facts=facts, **more)
    return block(variant, stretch, part="cycle", cycle=1, cores=2)


def test_throughput_utilisation_and_demand_are_what_the_workers_clock_says() -> None:
    found = made()
    assert found.throughput_per_second == pytest.approx(200)
    assert found.utilisation == pytest.approx(0.8)
    assert found.demand_seconds == pytest.approx(0.004)
    assert found.void_because == ()


@given(
    tasks=st.integers(1, 10**7),
    work=st.floats(1e-6, 1e4),
    seconds=st.floats(0.01, 1e3),
)
def test_throughput_is_utilisation_over_demand(tasks: int, work: float, seconds: float) -> None:
    found = made(
        before=reading(), after=reading(seconds=seconds, tasks=tasks, task_cpu_seconds=work, busy_seconds=1)
    )
    assert found.throughput_per_second == pytest.approx(found.utilisation / found.demand_seconds, rel=1e-12)


def test_work_that_ran_in_the_io_process_is_not_counted_as_io() -> None:
    assert made(INLINE).io_cpu_seconds == pytest.approx(2.2 - 1.6)
    thread = replace(INLINE, offload="thread")
    assert made(thread).io_cpu_seconds == pytest.approx(2.2 - 1.6)


@pytest.mark.parametrize("offload", ["executor", "process"])
def test_work_in_other_processes_is_not_taken_from_the_io_process(offload: str) -> None:
    assert made(replace(ONE, offload=offload)).io_cpu_seconds == pytest.approx(2.2)


def test_two_clocks_that_disagree_by_a_tick_give_no_negative_io() -> None:
    assert made(INLINE, after=replace(AFTER, io_cpu_seconds=2.5)).io_cpu_seconds == 0


def test_the_share_of_what_is_left_leaves_out_generator_and_io_process() -> None:
    found = made(ONE, after=replace(AFTER, io_cpu_seconds=1.8))
    assert found.generator_cpu_seconds == pytest.approx(0.2)
    assert found.share_of_left(2) == pytest.approx(1.6 / (4.0 - 0.2 - 0.8))


def test_pressure_is_what_was_offered_over_workers_by_s() -> None:
    assert made(ONE).pressure == float("inf"), "a closed loop always asks for more"
    assert made(ONE, offered_per_second=300.0).pressure == pytest.approx(300 * 0.004)
    assert made(TWO, offered_per_second=300.0).pressure == pytest.approx(300 * 0.004 / 2)


def test_shares_are_of_all_cores_between_the_readings() -> None:
    found = inputs(
        reading(seconds=10, busy_seconds=1, ours_seconds=0.5, stolen_seconds=2, throttled_seconds=3),
        reading(seconds=12, busy_seconds=4, ours_seconds=2.5, stolen_seconds=2.4, throttled_seconds=3.2),
        4,
        0.3,
    )
    assert found.others == pytest.approx((3 - 2) / 8)
    assert found.stolen == pytest.approx(0.4 / 8)
    assert found.throttled == pytest.approx(0.2 / 2)
    assert found.generator == 0.3


def test_ticks_that_make_us_busier_than_the_machine_are_no_neighbour() -> None:
    before, after = reading(seconds=0), reading(seconds=1, busy_seconds=1.0, ours_seconds=1.02)
    assert inputs(before, after, 2, 0.1).others == 0


BOUNDS = {
    "stolen": (MOST_STOLEN, "the hypervisor took"),
    "others": (MOST_OTHERS, "other processes of this machine"),
    "throttled": (MOST_THROTTLED, "a CPU quota"),
    "generator": (MOST_GENERATOR, "the load generator"),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_each_input_spoils_a_block_above_its_bound_and_not_at_it(name: str) -> None:
    bound, words = BOUNDS[name]
    none = Inputs(stolen=0, others=0, throttled=0, generator=0)
    assert none.faults() == ()
    assert replace(none, **{name: 0.99 * bound}).faults() == ()
    assert replace(none, **{name: bound}).faults() == ()
    (fault,) = replace(none, **{name: 1.01 * bound}).faults()
    assert words in fault
    assert "%" in fault


@pytest.mark.parametrize(("idle", "void"), [(0.0, True), (0.99, True), (1.0, False), (30.0, False)])
def test_a_neighbour_on_a_core_that_nobody_else_wants_disturbs_nobody(idle: float, void: bool) -> None:
    shares = Inputs(stolen=0, others=2 * MOST_OTHERS, throttled=0, generator=0, idle_cores=idle)
    assert bool(shares.faults()) == void


def test_idle_cores_are_counted_between_the_readings() -> None:
    found = inputs(reading(seconds=10, idle_seconds=5), reading(seconds=12, idle_seconds=8), 4, 0.0)
    assert found.idle_cores == pytest.approx(1.5)


def test_every_fault_is_told() -> None:
    assert len(Inputs(stolen=1, others=1, throttled=1, generator=1).faults()) == 4


@pytest.mark.parametrize(
    ("field", "spoilt", "fine"),
    [
        ("stolen_seconds", 0.05, 0.03),  # of 4 s: 1.25 and 0.75 %
        ("busy_seconds", 7.65, 7.55),  # 0.25 s and 0.15 s of others: 6.25 and 3.75 %
        ("throttled_seconds", 0.05, 0.015),
    ],
)
def test_a_neighbour_between_the_readings_makes_a_block_void(field: str, spoilt: Any, fine: Any) -> None:
    assert len(made(after=replace(AFTER, **{field: spoilt})).void_because) == 1
    assert made(after=replace(AFTER, **{field: fine})).void_because == ()


@pytest.mark.parametrize(("cpu", "void"), [(4.9, True), (4.7, False)])
def test_a_generator_that_is_busy_while_it_sends_makes_a_block_void(cpu: float, void: bool) -> None:
    assert bool(made(facts=replace(FACTS, sending_cpu_seconds=cpu)).void_because) == void


def test_a_generator_that_never_came_to_send_has_used_nothing() -> None:
    found = made(facts=replace(FACTS, sending_seconds=0.0, sending_cpu_seconds=0.0))
    assert found.inputs.generator == found.generator_cpu_seconds == 0


def test_a_load_that_ended_before_the_second_reading_makes_a_block_void() -> None:
    (why,) = made(spoilt=[ENDED_EARLY]).void_because
    assert "after the load had ended" in why


@pytest.mark.parametrize("after", [replace(AFTER, tasks=100), replace(AFTER, task_cpu_seconds=0.4)])
def test_a_block_without_work_is_void(after: Reading) -> None:
    assert made(after=after).void_because == (NO_TASK,)


@given(
    tasks=st.integers(0, 10**6),
    work=st.floats(0, 1e3),
    io=st.floats(0, 1e3),
    outcomes=st.dictionaries(st.sampled_from(["ok", "timeout", "status_503"]), st.integers(0, 10**6)),
    unexplained=st.integers(-5, 5),
    others=st.floats(0, 4),
    stolen=st.floats(0, 4),
)
def test_what_came_out_never_decides_whether_a_block_is_void(
    tasks: int,
    work: float,
    io: float,
    outcomes: dict[str, int],
    unexplained: int,
    others: float,
    stolen: float,
) -> None:
    def void(**results: Any) -> tuple[str, ...]:
        after = reading(seconds=2, busy_seconds=1 + others, ours_seconds=1, stolen_seconds=stolen, **results)
        found = made(
            before=reading(), after=after, outcomes=outcomes, ledger=books(unexplained=unexplained)
        ).void_because
        return tuple(fault for fault in found if fault != NO_TASK)

    plain = made(
        before=reading(),
        after=reading(
            seconds=2, busy_seconds=1 + others, ours_seconds=1, stolen_seconds=stolen,
            tasks=100, task_cpu_seconds=0.4,
        ),
    )  # fmt: skip
    assert void(tasks=tasks, task_cpu_seconds=work, io_cpu_seconds=io) == plain.void_because


@pytest.mark.parametrize(("idle_cores", "void"), [(0.0, True), (0.99, True), (1.0, False), (50.0, False)])
def test_a_neighbour_on_a_core_that_nobody_wants_disturbs_nobody(idle_cores: float, void: bool) -> None:
    shares = Inputs(stolen=0.0, others=0.2, throttled=0.0, generator=0.1, idle_cores=idle_cores)
    assert bool(shares.faults()) is void
