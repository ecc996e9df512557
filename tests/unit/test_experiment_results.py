"""From the raw readings and samples of a phase to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from loadtests.experiment.counters import Reading
from loadtests.experiment.ledger import HalfOpen
from loadtests.experiment.results import (
    PEAK_WINDOW_SECONDS,
    STRETCHES,
    PhaseResult,
    Raw,
    peak,
    phase_result,
    stretches,
)
from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from tests.support.synthetic import FACTS, plan_of, reading, sample

PLAN = plan_of("quick")
PHASE = Phase(url="http://127.0.0.1:1/data", rate=4.0, duration_seconds=4.0)
BEGIN = FACTS.started_monotonic
SAMPLES = [sample(BEGIN + n / 4, took=1.2 if n % 4 else 0.1) for n in range(16)]


def at(second: float, **values: Any) -> Reading:
    """A reading so many seconds after the begin of the phase."""
    return reading(seconds=BEGIN + second, **values)


def every_tenth(until: float, **values: Any) -> list[Reading]:
    return [at(n / 10, **values) for n in range(round(10 * until) + 1)]


ROWS = [
    at(-1, accepted=5, completed=5, kernel_queue_limit=128, peak=3),
    *every_tenth(3.9, accepted=15, completed=9, active=6, kernel_queue=7, offload_queue=5, peak=9),
    at(4.0, accepted=21, completed=21, tasks=16, task_cpu_seconds=0.08, peak=9),
    at(8.0, accepted=21, completed=21, tasks=16, task_cpu_seconds=0.08, kernel_queue=99, offload_queue=99),
    at(9.0, accepted=21, completed=21, tasks=16, task_cpu_seconds=0.08),
]


def result(rows: Sequence[Reading] = ROWS, facts: GeneratorFacts = FACTS, **more: Any) -> PhaseResult:
    fields: dict[str, Any] = {
        "id": "1",
        "kind": "overload",
        "variant": "executor-1",
        "phase": PHASE,
        "readings": tuple(rows),
        "half_open": HalfOpen(),
    }
    return phase_result(PLAN, Raw(**{**fields, **more}), SAMPLES, facts)


def test_demand_and_pressure_come_from_the_workers_own_clock_in_this_phase() -> None:
    found = result()
    assert found.demand_seconds == pytest.approx(0.005)
    assert found.pressure == pytest.approx(4 * 0.005 / 1)
    assert result(variant="executor-cores").pressure == pytest.approx(4 * 0.005 / 2)


def test_queues_are_read_while_load_is_sent_and_the_books_after_it() -> None:
    found = result()
    assert (found.peak, found.kernel_queue_max, found.offload_queue_max) == (9, 7, 5)
    assert found.kernel_queue_limit == 128
    assert found.ledger.accepted == found.ledger.connected == 16
    assert found.ledger.closes
    assert found.invalid_because == ()


def test_goodput_counts_answers_within_the_slo_alone() -> None:
    assert result().goodput_per_second == 1.0
    assert result().achieved_per_second > 3


def test_a_phase_without_one_task_has_no_demand_and_no_pressure() -> None:
    found = result([replace(row, tasks=0, task_cpu_seconds=0.0) for row in ROWS])
    assert found.demand_seconds is found.pressure is None


@pytest.mark.parametrize(
    ("kind", "share", "is_invalid"),
    [
        ("overload", 0.04, False),
        ("overload", 0.06, True),
        ("ramp", 0.02, True),
        ("curve", 0.02, True),
        ("curve", 0.005, False),
    ],
)
def test_stolen_time_makes_a_phase_invalid_for_what_it_is_judged_by(
    kind: str, share: float, is_invalid: bool
) -> None:
    stolen = [replace(row, stolen_seconds=PLAN.cores * share * (row.seconds - BEGIN)) for row in ROWS]
    assert ["hypervisor" in why for why in result(stolen, kind=kind).invalid_because] == [True] * is_invalid


def test_a_phase_that_could_not_be_watched_is_invalid() -> None:
    sparse = [row for row in ROWS if not 0.1 <= row.seconds - BEGIN <= 3.8]
    (why,) = result(sparse).invalid_because
    assert "watched" in why


@pytest.mark.parametrize("rows", [[ROWS[0], ROWS[-1]], [ROWS[0], ROWS[1]]])
def test_a_phase_that_was_interrupted_at_once_has_figures_as_well(rows: list[Reading]) -> None:
    stopped = replace(
        FACTS, interrupted=True, wall_seconds=0.05, sending_seconds=0.0, sending_cpu_seconds=0.0
    )
    found = result(rows, stopped)
    assert found.interrupted
    assert found.inputs.generator == 0


def test_the_timeline_counts_from_the_beginning_of_the_phase() -> None:
    line = result().timeline
    assert line is not None
    assert (line.seconds[0], line.seconds[1], line.seconds[-1]) == (-1, 0, 9)
    assert (line.offered[0], line.offered[-1]) == (0, 16)
    assert (line.accepted[0], line.accepted[1], line.accepted[-1]) == (0, 10, 16)
    assert (line.completed[1], line.completed[-1]) == (4, 16)
    assert result(kind="curve").timeline is None
    ramp = result(kind="ramp").timeline
    assert ramp is not None
    assert len(ramp.seconds) == len(range(0, len(ROWS), 10))


@pytest.mark.parametrize(
    ("rows", "most"),
    [
        # A mark that is higher than at the beginning was set since.
        ([at(-1, peak=5), at(1, peak=8, active=2), at(3, peak=9, active=1)], 9),
        # One that is not may be from before: then what is active counts.
        ([at(-1, peak=50), at(1, peak=50, active=2), at(3, peak=50, active=6)], 6),
        ([at(-1, peak=50), at(1, peak=50, active=2), at(3, peak=51, active=6)], 51),
        # Ten seconds in, the window of the mark begins inside the phase.
        ([at(-1, peak=50), at(9.9, peak=50, active=3), at(10.0, peak=40, active=2)], 40),
        # After the phase nothing counts, nor before it.
        ([at(-1, peak=5), at(1, peak=5, active=4), at(20.1, peak=700, active=700)], 4),
        ([at(-1, peak=5), at(-0.5, peak=90, active=90), at(1, peak=4, active=3)], 3),
        ([at(-1, peak=5)], 0),
    ],
)
def test_the_peak_is_of_the_phase_and_not_of_what_came_before(rows: list[Reading], most: int) -> None:
    assert PEAK_WINDOW_SECONDS == 10
    assert peak(rows, BEGIN, 20.0) == most


RAMP = plan_of("accept-all-we-can")
RATE = Phase(url="http://127.0.0.1:1/data", rate=300.0, duration_seconds=21.0)
STEADY = [
    at(n / 10, tasks=20 * n, task_cpu_seconds=0.08 * n, busy_seconds=0.1 * n, ours_seconds=0.1 * n)
    for n in range(-5, 230)
]


def cut(rows: Sequence[Reading] = STEADY, facts: GeneratorFacts = FACTS, number: int = 3) -> list[Any]:
    raw = Raw(id="1", kind="ramp", variant="inline", phase=RATE, readings=tuple(rows), half_open=HalfOpen())
    return list(stretches(RAMP, raw, facts, number))


def test_a_phase_of_the_ramp_is_cut_into_blocks_after_the_queue_has_built_up() -> None:
    blocks = cut()
    assert [block.cycle for block in blocks] == [3 * STRETCHES + k for k in range(STRETCHES)]
    assert [block.seconds for block in blocks] == pytest.approx([5.0] * STRETCHES)
    for block in blocks:
        assert block.part == "ramp"
        assert block.throughput_per_second == pytest.approx(200)
        assert block.utilisation == pytest.approx(0.8)
        assert block.pressure == pytest.approx(300 * 0.004)
        assert block.void_because == ()
        assert block.ledger is None, "the phase has it"


def test_a_stretch_that_a_neighbour_disturbed_is_void_alone() -> None:
    spoilt = [replace(row, stolen_seconds=0.5 if row.seconds > BEGIN + 8 else 0.0) for row in STEADY]
    assert [bool(block.void_because) for block in cut(spoilt)] == [False, True, False, False]


def test_the_end_of_an_interrupted_phase_is_no_block() -> None:
    stopped = replace(FACTS, interrupted=True, sending_seconds=12.0, wall_seconds=12.0)
    until = [row for row in STEADY if row.seconds <= BEGIN + 13]
    blocks = cut(until, stopped)
    assert [bool(block.void_because) for block in blocks] == [False, False, True]
    assert "the load had ended" in blocks[2].void_because[0]
