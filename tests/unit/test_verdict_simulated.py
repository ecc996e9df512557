"""The verdict on made-up experiments whose truth is known: `make verdicts` in short."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loadtests.experiment import evidence
from loadtests.experiment.blocks import Block
from loadtests.experiment.evidence import Evidence
from loadtests.experiment.plan import Plan
from loadtests.experiment.results import Summary
from loadtests.experiment.statistics import Estimate, geometric_ratio
from tests.proofs.verdicts import OFF, cases, misses, plan_of, row, simulate
from tests.support.simulated import (
    SCENARIOS,
    Draw,
    Machine,
    Noise,
    Service,
    measured,
    real_noise,
)
from tests.support.synthetic import QUIET, summary_of

RUNS = 12
PLACES = [case for case in cases() if case.preset == "quick" and abs(case.off) == OFF]


@functools.cache
def noise(sd: float) -> Noise:
    return real_noise().scaled(sd)


def simulated(scenario: str, sd: float, *, with_speed: bool = True) -> list[dict[str, Any]]:
    """Rows of the four places 5 % beside an end, a dozen runs each; without the speed of the core as well."""
    made = noise(sd) if with_speed else replace(noise(sd), piece_seconds=None)
    return [
        row(case, region, scenario, sd, tally)
        for number, case in enumerate(PLACES)
        for region, tally in simulate(case, scenario, made, RUNS, 1 + number * RUNS).items()
    ]


def of_throughput(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [line[name] for line in rows if line["claim"].startswith("X ")]


def all_claims(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row for all claims about U together, for a dozen runs of one are too few for its 95 %."""
    judged = [line for line in rows if line["claim"].startswith("U ")]
    shares = {
        name: float(np.mean([line[name] for line in judged])) for name in ("decided", "wrong", "covered")
    }
    return {**judged[0], "claim": "all claims about U", **shares, "noise_found": judged[0]["noise"]}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_claims_are_decided_rightly_however_s_drifts(scenario: str) -> None:
    rows = simulated(scenario, 0.03)
    assert misses([all_claims(rows)]) == []
    assert max(of_throughput(rows, "wrong")) == 0
    assert np.mean(of_throughput(rows, "covered")) >= 0.95


# What the design rules out, put in its place: each must turn the figures red, or they prove nothing.


def unpaired(
    self: Evidence, variant: str, baseline: str, figure: Callable[[Block], float], *_: object
) -> Estimate:
    """Not neighbours with each other, but all with all."""
    above, below = self.blocks(variant).values(), self.blocks(baseline).values()
    return geometric_ratio([figure(block) for block in below], [figure(block) for block in above], self.alpha)


def two_standard_errors(values: Sequence[float], _: float) -> Estimate:
    """A mean and the interval of large samples, at the level of one claim at one look."""
    logarithms = np.log(values)
    middle, reach = np.mean(logarithms), 2 * np.std(logarithms, ddof=1) / np.sqrt(len(values))
    value, low, high = (float(np.exp(edge)) for edge in (middle, middle - reach, middle + reach))
    return Estimate(value, low, high, len(values))


def always_the_same(_: Plan, names: tuple[str, ...], __: int) -> tuple[str, ...]:
    """No shuffling and no mirror."""
    return names


def test_an_interval_for_large_samples_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "geometric", two_standard_errors)
    assert "hold the truth" in misses([all_claims(simulated("random walk", 0.03))])[0]


def test_unpaired_blocks_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_one_worker() -> float:
        rows = simulated("random walk", 0.04)
        return float(np.mean([line["decided"] for line in rows if line["claim"] == "U of one worker"]))

    assert of_one_worker() > 0.9
    monkeypatch.setattr(Evidence, "ratio", unpaired)
    assert of_one_worker() < 0.9


def test_throughput_is_seldom_decided_where_no_speed_was_measured_and_not_wrong_either() -> None:
    rows, blind = (simulated("sawtooth", 0.03, with_speed=known) for known in (True, False))
    assert np.mean(of_throughput(rows, "decided")) > 0.6
    assert np.mean(of_throughput(blind, "decided")) < 0.2
    assert np.mean(of_throughput(blind, "covered")) >= 0.95


def test_an_order_that_is_always_the_same_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "order", always_the_same)
    rows = simulated("sawtooth", 0.03, with_speed=False)
    assert max(of_throughput(rows, "wrong")) > 0.5
    assert max(of_throughput(rows, "covered")) < 0.5


SILENT = Draw(figure=0.0, slowness=0.0, demand=0.0, io=0.2, generator=0.1, seconds=1.2, inputs=QUIET)
SERVICE = Service(demand_seconds=0.004, figure=0.8)


def block_on(
    log_slowness: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    piece_seconds: float | None = None,
) -> Block:
    machine = Machine(log_slowness(np.arange(400) * 0.01))
    variant = plan_of("quick", 1, 0.004).variant("inline")
    random = np.random.default_rng(1)
    return measured(
        variant, SERVICE, SILENT, machine, random, cycle=1, cores=2.0, begin=1.0, piece_seconds=piece_seconds
    )


def test_a_block_of_a_steady_machine_tells_what_is_true() -> None:
    found = block_on(lambda moments: np.full_like(moments, np.log(1.5)))
    assert found.demand_seconds == pytest.approx(0.006)
    assert found.tasks in (160, 159, 161)
    assert found.utilisation == pytest.approx(0.8, abs=0.006)  # one task, more or less
    assert found.throughput_per_second == pytest.approx(0.8 / 0.006, abs=1)
    assert found.void_because == ()


def test_a_machine_that_slows_down_within_a_block_moves_s_and_not_u() -> None:
    found = block_on(lambda moments: np.where(moments < 1.6, 0.0, np.log(2.0)))
    assert found.tasks == pytest.approx(0.6 * 0.8 / 0.004 + 0.6 * 0.8 / 0.008, abs=1)
    assert found.utilisation == pytest.approx(0.8, abs=0.008)
    assert found.demand_seconds == pytest.approx(0.8 * 1.2 / 180, rel=0.01)


def test_the_piece_of_work_meets_the_same_slowness_as_the_requests() -> None:
    def speed(factor: float) -> Block:
        return block_on(lambda moments: np.where(moments < 1.6, 0.0, np.log(factor)), piece_seconds=0.001)

    steady, slowed = speed(1.0), speed(2.0)
    assert steady.piece_seconds == pytest.approx(0.001)
    assert slowed.piece_seconds == pytest.approx(0.001 / 0.75, rel=0.01)  # half the time at half the speed
    assert slowed.throughput_per_second < 0.8 * steady.throughput_per_second
    assert slowed.steady_throughput == pytest.approx(steady.steady_throughput, rel=0.02)
    assert slowed.steady_demand == pytest.approx(steady.steady_demand, rel=0.02)


def test_what_the_kernel_counts_comes_in_its_ticks() -> None:
    found = block_on(lambda moments: np.zeros_like(moments))
    own = found.io_cpu_seconds + found.work_cpu_seconds
    assert own * 100 == pytest.approx(round(own * 100), abs=1e-6)
    assert own == pytest.approx(1.2 * 0.8 * 1.2, abs=0.02)
    assert found.work_cpu_seconds * 250 == pytest.approx(found.tasks)


def with_drift(summary: Summary, drift: float, noise: float) -> Summary:
    """The run with S that grows evenly and scatters: a factor for each cycle."""
    random = np.random.default_rng(3)

    def changed(block: Block) -> Block:
        tasks = block.tasks * np.exp(-drift * block.cycle - random.normal(0.0, noise))
        return replace(block, tasks=round(100_000 * tasks), work_cpu_seconds=block.work_cpu_seconds * 1e5)

    return replace(summary, blocks=tuple(changed(block) for block in summary.blocks))


def test_the_noise_of_a_run_is_its_scatter_without_its_drift() -> None:
    made = plan_of("quick", 1, 0.004)
    run = summary_of(replace(made, factors=replace(made.factors, cycles=40)))
    flat = replace(run, blocks=tuple(replace(b, work_cpu_seconds=b.tasks * 0.004) for b in run.blocks))
    found = Noise.of(with_drift(flat, drift=0.02, noise=0.02))
    demands = [draw.demand for draw in found.pool("inline")]
    neighbours = np.hypot(0.02, 0.02 / np.sqrt(2))  # half of what two in a row drift apart is still in
    assert np.std(demands) == pytest.approx(neighbours, rel=0.3), "S has doubled meanwhile"
