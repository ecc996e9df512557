"""Two runs compared: what is noise, what is not, and what must not be compared at all."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.__main__ import main
from loadtests.experiment import compare
from loadtests.experiment.comparable import Figure, Run
from loadtests.experiment.compare import BETTER, SAME, WORSE, Comparison
from loadtests.experiment.folder import FolderError, RunFolder
from loadtests.experiment.plan import DATA, Cost, Plan
from loadtests.experiment.presets import plan
from loadtests.experiment.results import Status, Summary
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample, to_columns
from tests.support.run_folders import keep_steps
from tests.support.samples import FACTS, answered, failed, steady
from tests.support.simulated import Noise, Service, experiment, random_walk, real_noise
from tests.support.synthetic import plan_of, summary_of

UNITS = 30_000
FIGURES = {"inline": 0.82, "executor-1": 0.97, "executor-cores": 0.97, "executor-1-fifth": 0.88}


@functools.cache
def noise() -> Noise:
    return real_noise().scaled(0.04)


def twelve_cycles(seed: int, *, units: int = UNITS) -> Plan:
    costs = {DATA: Cost(work_units=units, s_seconds=0.004)}
    return plan("quick", 2.0, costs, replace(plan_of("quick").factors, more_cycles=0, seed=seed))


def run(seed: int, *, slower: float = 1.0, units: int = UNITS, **changed: float) -> Run:
    """A run of 12 cycles, simulated down to the ticks, in which some variants do more or less than usual."""
    demand = 0.004 * slower * units / UNITS
    services = {
        name: Service(
            demand_seconds=demand / (5 if name.endswith("fifth") else 1),
            figure=figure * changed.get(name.replace("-", "_"), 1.0),
        )
        for name, figure in FIGURES.items()
    }
    made = twelve_cycles(seed, units=units)
    summary = experiment(made, services, noise(), random_walk, np.random.default_rng(seed))
    return Run.of_experiment(Path(f"run-{seed}"), summary)


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {row.name: row.verdict for row in comparison.differences if row.verdict}


def test_a_run_compared_with_itself_shows_no_difference() -> None:
    one = run(1)
    found = compare.compare(one, one)
    assert verdicts(found) == {f"{name}, U": SAME for name in FIGURES}
    assert all(row.change == 0 and row.low < 0 < row.high for row in found.differences)
    assert not found.is_worse


def test_two_runs_of_the_same_truth_seldom_differ() -> None:
    alarms = 0
    for number in range(100):
        found = compare.compare(run(2 * number), run(2 * number + 1))
        alarms += set(verdicts(found).values()) != {SAME}
    assert alarms <= 5, "of all rows together 5 % are to be expected at most"


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, WORSE), (1.1, BETTER)])
def test_ten_per_cent_more_or_less_are_found_in_twelve_cycles_and_nothing_else_is(
    factor: float, verdict: str
) -> None:
    found = [compare.compare(run(2 * n), run(2 * n + 1, executor_1=factor)) for n in range(20)]
    assert sum(verdicts(one)["executor-1, U"] == verdict for one in found) >= 19
    assert sum(verdicts(one)["inline, U"] == SAME for one in found) >= 19
    rows = [next(row for row in one.differences if row.name == "executor-1, U") for one in found]
    assert sum(row.low < factor - 1 < row.high for row in rows) >= 19


def test_a_slower_machine_is_seen_beside_u_and_not_judged() -> None:
    found = compare.compare(run(1), run(2, slower=2.0))
    rows = {row.name: row for row in found.differences}
    assert set(verdicts(found).values()) == {SAME}
    assert rows["inline, X"].high < -0.2
    assert rows["inline, S"].low > 0.2


def cost_more(units: int, figure: float) -> float:
    """U of one worker whose requests cost the same beside the work, whatever the work is."""
    return 1 / (1 + (1 / figure - 1) * UNITS / units)


@pytest.mark.parametrize(
    ("units", "further", "verdict"),
    [(24_000, 1.0, SAME), (24_000, 0.9, WORSE), (36_000, 1.0, SAME), (36_000, 1.1, BETTER)],
)
def test_what_another_amount_of_work_explains_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, units: int, further: float, verdict: str
) -> None:
    monkeypatch.setitem(FIGURES, "inline", 0.6)  # a request takes a good deal beside the work
    factor = cost_more(units, 0.6) / 0.6
    found = compare.compare(run(1), run(2, units=units, inline=factor * further))
    row = next(row for row in found.differences if row.name == "inline, U")
    assert row.verdict == verdict
    assert row.explained == pytest.approx(factor - 1, abs=0.02)
    assert row.high < 0 or row.low > 0, "without the explanation it would be a difference"
    assert any(f"30000 units of work in A and is {units} in B" in caution for caution in found.cautions)


def test_with_half_the_work_nothing_is_compared() -> None:
    with pytest.raises(FolderError, match="30000 units of work in A and is 15000 in B"):
        compare.compare(run(1), run(2, units=15_000))


def as_run(summary: Summary) -> Run:
    return Run.of_experiment(Path("a-run"), summary)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (summary_of(plan_of("a-a")), "preset is quick in A and a-a in B"),
        (summary_of(plan_of("quick", clients=16)), "clients is 8 in A and 16 in B"),
        (summary_of(plan_of("quick", work_ms=40.0)), "work_ms is 4.0 in A and 40.0 in B"),
        (
            replace(summary_of(plan_of("quick")), status=Status(state="invalid", invalid_because="a guest")),
            "a guest",
        ),
    ],
)
def test_what_asked_something_else_or_is_invalid_is_refused(other: Summary, why: str) -> None:
    with pytest.raises(FolderError, match=why):
        compare.compare(as_run(summary_of(plan_of("quick"))), as_run(other))


def test_what_differs_besides_is_told() -> None:
    before, after = summary_of(plan_of("controlled")), summary_of(plan_of("controlled", 4.0, accept_batch=64))
    after = replace(
        after,
        environment=replace(after.environment, packages={"aiohttp": "4"}),
        status=Status(state="interrupted"),
    )
    found = compare.compare(as_run(before), as_run(after))
    said = "\n".join(found.cautions)
    for sentence in (
        "accept_batch of inline was 1 in A and is 64 in B",
        "packages aiohttp was 3 in A and is 4 in B",
        "B was cut short: interrupted",
        "executor-cores, U: of service.work:data, executor, 2 workers in A and of service.work:data, "
        "executor, 4 workers in B",
        "Not compared: latency: an experiment has one phase at each load",
    ):
        assert sentence in said
    assert "executor-cores, U" not in verdicts(found)
    assert "inline, U" in verdicts(found)


def test_too_few_blocks_are_not_compared() -> None:
    few = as_run(summary_of(plan_of("quick", cycles=3)))
    with pytest.raises(FolderError, match="too few blocks for an interval"):
        compare.compare(few, few)


def write(path: Path, phase: Phase, samples: Sequence[Sample]) -> Path:
    """A run folder as `run --out` writes it."""
    path.mkdir()
    (path / "plan.json").write_text(json.dumps({"phase": phase.to_json(), "thresholds": []}))
    (path / "samples.json").write_text(json.dumps({**to_columns(samples), "generator": FACTS.to_json()}))
    return path


def folder(
    path: Path,
    took: float,
    *,
    rate: float = 200,
    seconds: float = 10,
    seed: int = 1,
    keep_alive: bool = False,
) -> Path:
    """So many seconds at one rate, each answer after about `took`."""
    random = np.random.default_rng(seed)
    phase = Phase(
        url="http://127.0.0.1:8080/data", rate=rate, duration_seconds=seconds, keep_alive=keep_alive
    )
    count = round(seconds * rate)
    return write(
        path, phase, [answered(1000 + n / rate, took * random.uniform(0.8, 1.2)) for n in range(count)]
    )


def test_the_command_says_one_of_three_sentences_for_each_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = folder(tmp_path / "fast", 0.004), folder(tmp_path / "slow", 0.006, seed=2)
    assert main(["compare", str(slow), str(fast)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"latency p50: {BETTER}" in lines
    assert f"latency p99: {BETTER}" in lines
    assert f"answers: {SAME}" in lines
    assert main(["compare", str(fast), str(slow)]) == 1
    assert f"latency p50: {WORSE}" in capsys.readouterr().out
    assert main(["compare", str(fast), str(fast)]) == 0
    assert capsys.readouterr().out.count(SAME) == 3


def test_the_command_compares_experiments_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, factor in (("before", 1.0), ("after", 0.8)):
        summary = summary_of(plan_of("quick"))
        slower = tuple(
            replace(block, work_cpu_seconds=block.work_cpu_seconds * factor)
            if block.variant == "inline"
            else block
            for block in summary.blocks
        )
        made = RunFolder.create(tmp_path / name)
        made.write("summary.json", Summary, replace(summary, blocks=slower))
        paths.append(str(made.path))
    assert main(["compare", *paths]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index(f"inline, U: {WORSE}") + 1].split()[:3] == ["0.820", "cores", "to"]
    assert f"executor-1, U: {SAME}" in lines
    assert all(len(line) <= 80 for line in lines[2:])


def test_two_runs_at_one_rate_seldom_differ(tmp_path: Path) -> None:
    alarms = 0
    for number in range(20):
        pair = [
            compare.load(folder(tmp_path / f"{number}{side}", 0.004, seed=2 * number + side))
            for side in (0, 1)
        ]
        alarms += set(verdicts(compare.compare(*pair)).values()) != {SAME}
    assert alarms <= 1


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("here", "nowhere", "there is no folder"),
        ("here", "empty", "nothing to compare"),
        ("here", "faster", "load is 200/s constant for 10 s in A and 400/s"),
        ("here", "kept", "connections is one per request in A and kept in B"),
        ("here", "experiment", "command is run in A and experiment in B"),
    ],
)
def test_what_cannot_be_compared_is_named_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], a: str, b: str, why: str
) -> None:
    folder(tmp_path / "here", 0.004)
    folder(tmp_path / "faster", 0.004, rate=400)
    folder(tmp_path / "kept", 0.004, keep_alive=True)
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "experiment").write("summary.json", Summary, summary_of(plan_of("quick")))
    assert main(["compare", str(tmp_path / a), str(tmp_path / b)]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_of_several_rates_one_is_compared_and_not_the_folder_of_them_all(tmp_path: Path) -> None:
    folder = keep_steps(tmp_path, ["100"], {"100": steady()})
    with pytest.raises(FolderError, match="holds several rates: compare the folder of one"):
        Run.load(folder)
    assert "answers" in Run.load(folder / "100").figures


def test_a_run_of_which_the_generator_was_the_bottleneck_is_not_compared(tmp_path: Path) -> None:
    good, path = compare.load(folder(tmp_path / "good", 0.004)), folder(tmp_path / "bad", 0.005)
    content = json.loads((path / "samples.json").read_text())
    content["generator"] |= {"cpu_seconds": 9.9, "sending_cpu_seconds": 9.9}
    (path / "samples.json").write_text(json.dumps(content))
    with pytest.raises(FolderError, match="one core"):
        compare.compare(good, compare.load(path))


def of_samples(samples: Sequence[Sample], **load: Any) -> Run:
    phase = Phase(url="http://127.0.0.1:8080/data", duration_seconds=10, **(load or {"rate": 200}))
    return Run.of_phase(Path("a-run"), phase, samples, 1000.0, 10.0)


def test_slices_hold_the_samples_that_their_quantile_needs() -> None:
    run = of_samples([answered(1000 + n / 200, n / 1e6) for n in range(2000)])
    assert run.figures["answers"].values == pytest.approx((200,) * 10, rel=0.01)
    assert len(run.figures["latency p50"].values) == 10
    assert run.figures["latency p50"].values[:2] == pytest.approx((99e-6, 299e-6))
    assert len(run.figures["latency p99"].values) == 5  # of 400 samples, no fewer than 368
    assert run.figures["latency p99"].values[0] == pytest.approx(395e-6)


def test_what_a_phase_cannot_tell_is_not_compared_and_why() -> None:
    short = of_samples([answered(1000 + n / 100) for n in range(1000)])
    assert "2 slices have enough samples and 5 are needed" in short.unusable["latency p99"]
    losing = of_samples(
        [
            failed(1000 + n / 200, 0.1, "timeout", stood=True) if n % 50 == 0 else answered(1000 + n / 200)
            for n in range(2000)
        ]
    )
    assert "in 5 of 5 slices" in losing.unusable["latency p99"]
    assert losing.figures["answers"].values == pytest.approx((196,) * 10, rel=0.01)
    closed = of_samples([answered(1000 + n / 200) for n in range(2000)], clients=8)
    assert set(closed.figures) == {"answers"}
    assert "closed loop" in closed.unusable["latency p50"]


def test_what_a_retry_made_good_is_no_request_that_failed() -> None:
    answer = [answered(1000 + n / 200) for n in range(2000)]
    lost = [failed(s.intended, 0.1, "timeout", stood=True)._replace(last=False) for s in answer[::10]]
    run = of_samples([*answer, *lost])
    assert set(run.figures) == {"answers", "latency p50", "latency p99"}


def test_slices_that_resemble_their_neighbours_are_told() -> None:
    def figure(values: Sequence[float]) -> Figure:
        return Figure(unit="s", more_is_better=False, values=tuple(values), in_a_row=True)

    swing = figure([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.4, 1.3, 1.2, 1.1])
    assert swing.alike
    assert not figure([1.0, 1.2] * 5).alike
    assert not figure([1.0, 1.1, 1.2, 1.15, 1.05, 1.0, 1.1, 1.2, 1.15, 1.05]).alike  # a correlation of 0.2
    assert not figure([1.0] * 10).alike
    calm = of_samples([answered(1000 + n / 200) for n in range(2000)])
    queue = replace(calm, figures={"latency p50": swing})
    (caution,) = [c for c in compare.compare(queue, queue).cautions if "resemble" in c]
    assert "latency p50" in caution
