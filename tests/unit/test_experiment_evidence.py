"""What may be used of a run, and how it is paired."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.experiment.blocks import Block
from loadtests.experiment.evidence import (
    PRESSED,
    SATURATED,
    Evidence,
    Gain,
    UnusableError,
    ledger,
    ledger_gaps,
)
from loadtests.experiment.results import Summary
from tests.support.synthetic import (
    block_of,
    books,
    costlier,
    faster,
    plan_of,
    quick,
    summary_of,
    with_blocks,
    with_phases,
)

PLAN = plan_of("a-a")
INLINE, AGAIN = PLAN.variant("inline"), PLAN.variant("inline-again")


def run_of(*blocks: Block) -> Summary:
    return replace(summary_of(PLAN), blocks=blocks)


def void(block: Block) -> Block:
    return replace(block, void_because=("a neighbour",))


def test_void_blocks_are_not_used() -> None:
    bad = void(block_of(INLINE, 2, utilisation=0.1))
    evidence = Evidence(run_of(block_of(INLINE, 1, utilisation=0.8), bad))
    assert list(evidence.blocks("inline")) == [1]
    assert evidence.typical("inline", lambda block: block.utilisation).value == pytest.approx(0.8)


def test_a_void_block_gives_way_to_the_one_that_replaced_it() -> None:
    first, again = void(block_of(INLINE, 1, utilisation=0.1)), block_of(INLINE, 1, utilisation=0.8)
    for order in ((first, again), (again, first)):
        assert Evidence(run_of(*order)).blocks("inline") == {1: again}


@pytest.mark.parametrize(("share", "used"), [(0.99, False), (1.01, True)])
def test_a_stretch_of_the_ramp_is_used_once_the_workers_never_run_out_of_work(
    share: float, used: bool
) -> None:
    rate = share * SATURATED / 0.004
    evidence = Evidence(run_of(block_of(INLINE, 1, part="ramp", offered_per_second=rate)))
    assert bool(evidence.blocks("inline")) == used


def test_blocks_beside_the_cycles_are_no_evidence_for_claims() -> None:
    evidence = Evidence(run_of(block_of(INLINE, 1, part="beside")))
    assert not evidence.blocks("inline")
    assert evidence.blocks("inline", ("beside",))


def test_only_blocks_of_one_cycle_are_a_pair() -> None:
    summary = run_of(
        block_of(INLINE, 1, utilisation=0.5),
        block_of(AGAIN, 1, utilisation=0.6),
        block_of(AGAIN, 2, utilisation=0.9),
        block_of(INLINE, 3, utilisation=0.3),
    )
    ratio = Evidence(summary).ratio("inline-again", "inline", lambda block: block.utilisation)
    assert ratio.value == pytest.approx(1.2)
    assert ratio.count == 1


def test_pairs_cancel_what_the_machine_did_to_both() -> None:
    slow_and_fast = [
        block_of(variant, cycle, utilisation=0.8 / slower, demand_seconds=0.004 * slower)
        for cycle, slower in ((1, 1.0), (2, 1.7), (3, 0.8))
        for variant in (INLINE, AGAIN)
    ]
    gain = Evidence(run_of(*slow_and_fast)).gain("inline-again", "inline")
    assert gain.throughput.value == gain.utilisation.value == gain.demand.value == 1.0


@given(
    blocks=st.lists(
        st.tuples(st.floats(0.1, 2), st.floats(1e-4, 0.1), st.floats(0.1, 2), st.floats(1e-4, 0.1)),
        min_size=1,
        max_size=1,
    )
)
def test_the_gain_of_a_pair_splits_exactly(blocks: list[tuple[float, float, float, float]]) -> None:
    ((above, above_s, below, below_s),) = blocks
    pair = (
        block_of(AGAIN, 1, utilisation=above, demand_seconds=above_s, seconds=1e3),
        block_of(INLINE, 1, utilisation=below, demand_seconds=below_s, seconds=1e3),
    )
    gain = Evidence(run_of(*pair)).gain("inline-again", "inline")
    split = gain.utilisation.value / gain.demand.value
    assert gain.throughput.value == pytest.approx(split, rel=1e-9)


def test_units_that_cost_more_on_one_side_are_noticed_interval_and_all() -> None:
    def gain(factor: float, cycles: int = 12) -> Gain:
        summary = with_blocks(summary_of(PLAN, cycles=cycles), "inline-again", costlier(factor))
        return Evidence(summary, 3).gain("inline-again", "inline")

    assert not gain(1.05).demand_differs
    assert gain(1.25).demand_differs
    assert gain(0.8).demand_differs
    assert not gain(1.25, cycles=3).demand_differs, "three pairs have no interval"


def test_a_variant_without_blocks_is_unusable_and_named() -> None:
    evidence = Evidence(run_of(block_of(INLINE, 1), void(block_of(AGAIN, 1)), block_of(AGAIN, 2)))
    with pytest.raises(UnusableError, match=r"^no block of inline-more can be judged$"):
        evidence.typical("inline-more", lambda block: block.utilisation)
    with pytest.raises(UnusableError, match=r"^no cycle has a block of both inline-again and inline$"):
        evidence.gain("inline-again", "inline")


def test_an_overload_counts_from_well_above_the_limit() -> None:
    summary = with_phases(quick(), "inline", pressure=PRESSED - 0.01)
    summary = with_phases(summary, "inline", 1, pressure=PRESSED)
    assert [phase.pressure for phase in Evidence(summary).overloads("inline")] == [PRESSED]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pressure": 1.1}, "the load on inline never reached 1.2x its limit, only 1.10x"),
        ({"pressure": None}, "the load on inline never reached 1.2x its limit, only 0.00x"),
        ({"invalid_because": ("it was late",)}, "inline has no valid overload phase: it was late"),
        ({"interrupted": True}, "inline has no valid overload phase: none was measured"),
    ],
)
def test_overloads_that_decide_nothing_are_unusable_and_say_why(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableError) as caught:
        Evidence(with_phases(quick(), "inline", **changes)).overloads("inline")
    assert str(caught.value) == why


def test_phases_of_a_latency_curve_are_no_overload() -> None:
    summary = summary_of(plan_of("controlled"))
    kinds = {phase.kind for phase in Evidence(summary).overloads("inline")}
    assert kinds == {"overload"}


def test_the_ledger_adds_up_void_blocks_and_invalid_phases_as_well() -> None:
    summary = with_blocks(quick(), "inline", void)
    summary = with_phases(summary, "inline", invalid_because=("late",))
    parts = len(summary.blocks) + len(summary.phases)
    assert ledger(summary).planned == 100 * parts
    assert ledger_gaps(summary) == []


def test_books_that_do_not_close_are_named() -> None:
    summary = with_phases(quick(), "inline", 0, ledger=books(unexplained=3, active=2))
    assert ledger_gaps(summary) == [f"{summary.phases[0].id}: connections 3 unexplained, 2 still active"]
    (block, *rest) = quick().blocks
    summary = replace(quick(), blocks=(replace(void(block), ledger=books(server_gap=1)), *rest))
    (gap,) = ledger_gaps(summary)
    assert gap == f"{block.variant}, cycle 1: connections 1 missing from the service's own books"
    summary = with_phases(quick(), "inline", 0, ledger=books(planned=101))
    assert ledger_gaps(summary) == [f"{summary.phases[0].id}: connections miscounted by the client itself"]


def test_a_faster_variant_is_seen_in_throughput_and_utilisation_alike() -> None:
    gain = Evidence(with_blocks(summary_of(PLAN), "inline-again", faster(2)), 3).gain(
        "inline-again", "inline"
    )
    assert gain.throughput.value == pytest.approx(2, rel=0.02)
    assert (gain.demand.low, gain.demand.high) == pytest.approx((1, 1))
    assert gain.demand.count == PLAN.factors.cycles
