"""What the comparison with the usual designs plans: which loads, and in which order."""

from __future__ import annotations

import dataclasses
import json

import pytest

from loadtests.peers.plan import MOST_PER_SECOND, OURS, REFERENCE, RIVAL, TITLES, Load, Plan, Work, with_ours

PLAN = Plan(
    cores=2,
    designs=tuple(TITLES),
    works=(Work(work_ms=4, work_units=5000, s_seconds=0.004),),
    times=(3, 10),
    cycles=6,
    warm_seconds=0.5,
    measured_seconds=2.0,
    seed=1,
)
LOAD = Load(work_ms=4, times=3, rate_per_second=1500)


def test_every_design_has_one_block_in_a_cycle_and_every_other_cycle_mirrors_the_one_before() -> None:
    orders = PLAN.orders(LOAD)
    assert len(orders) == PLAN.cycles
    assert all(sorted(order) == sorted(PLAN.designs) for order in orders)
    for first, second in zip(orders[::2], orders[1::2], strict=True):
        assert second == first[::-1]
    assert len(set(orders)) > 2  # and not the same two for ever


def test_ours_stands_in_the_middle_between_its_rival_and_the_reference() -> None:
    for order in PLAN.orders(LOAD):
        ours = order.index(OURS)
        assert abs(ours - (len(order) - 1) / 2) <= 1
        assert {order[ours - 1], order[ours + 1]} == {RIVAL, REFERENCE}


@pytest.mark.parametrize("beside", [RIVAL, REFERENCE])
def test_one_of_the_two_stands_beside_ours_as_well(beside: str) -> None:
    designs = (OURS, "pool", "inline", beside)
    for order in dataclasses.replace(PLAN, designs=designs).orders(LOAD):
        assert abs(order.index(OURS) - order.index(beside)) == 1


def test_the_order_is_the_seeds_and_the_loads_alone() -> None:
    assert PLAN.orders(LOAD) == PLAN.orders(LOAD)
    assert PLAN.orders(LOAD) != dataclasses.replace(PLAN, seed=2).orders(LOAD)
    assert PLAN.orders(LOAD) != PLAN.orders(dataclasses.replace(LOAD, times=10))


@pytest.mark.parametrize("cycles", [1, 3])
def test_an_odd_number_of_cycles_ends_without_its_mirror(cycles: int) -> None:
    assert len(dataclasses.replace(PLAN, cycles=cycles).orders(LOAD)) == cycles


@pytest.mark.parametrize(
    ("cores", "s_seconds", "rates"),
    [
        (2, 0.040, {3: 150, 10: 500}),
        (2, 0.004, {3: 1500, 7: MOST_PER_SECOND}),  # ten times as much could not be sent on time
        (2, 0.0005, {0.875: MOST_PER_SECOND}),
        (2, 0.001, {1.75: MOST_PER_SECOND}),
        (16, 0.004, {0.875: MOST_PER_SECOND}),
        (16, 0.040, {3: 1200, 8.75: MOST_PER_SECOND}),
    ],
)
def test_loads_are_those_that_can_be_offered_on_time(
    cores: int, s_seconds: float, rates: dict[float, float]
) -> None:
    work = Work(work_ms=s_seconds * 1e3, work_units=1, s_seconds=s_seconds)
    loads = dataclasses.replace(PLAN, cores=cores, works=(work,)).loads(work)
    assert {load.times: load.rate_per_second for load in loads} == rates


def test_the_blocks_are_counted_before_they_run() -> None:
    works = (Work(work_ms=40, work_units=50_000, s_seconds=0.04), *PLAN.works)
    assert dataclasses.replace(PLAN, works=works).block_count == (2 + 2) * 6 * len(TITLES)


def test_a_plan_is_read_back_as_it_was_written() -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_ours_is_always_among_the_designs() -> None:
    assert with_ours(("pool", "pool")) == (OURS, "pool")
    assert with_ours((OURS,)) == (OURS,)
