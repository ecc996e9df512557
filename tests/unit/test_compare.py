"""Two runs compared: what is noise, what is not, and what must not be compared at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.__main__ import main
from loadtests.experiment import compare
from loadtests.experiment.compare import BETTER, SAME, WORSE, Block, Measure, Rounds
from loadtests.experiment.folder import FolderError
from loadtests.load.phase import Phase
from loadtests.load.sample import to_columns
from tests.unit.test_loadtests_summary import FACTS, answered, failed


def rounds(seed: int, mean: float, *, drift: float = 0.02, count: int = 3, blocks: int = 8) -> Rounds:
    """Rounds of a service that answers about `mean` per second; `drift` is what varies between rounds."""
    random = np.random.default_rng(seed)
    return [
        [
            Block(0.5, int(random.normal(level / 2, 2)), np.array([]))
            for level in [random.normal(mean, drift * mean)] * blocks
        ]
        for _ in range(count)
    ]


def capacity(seed: int, mean: float, **more: Any) -> Measure:
    return Measure("/s", True, compare.rate, rounds(seed, mean, **more))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "DRAWS", 300)
    monkeypatch.setattr(compare, "T_DRAWS", 40_000)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_thing_compared_with_itself_seldom_differs(count: int) -> None:
    def run(seed: int) -> Measure:
        return capacity(seed, 230, count=count)

    verdicts = [compare.difference("x", run(2 * n), run(2 * n + 1), 0.05).verdict for n in range(60)]
    assert sum(verdict != SAME for verdict in verdicts) <= 7, "3 are to be expected of 60 at 5 %"


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("mean", "verdict"), [(1.25, BETTER), (0.8, WORSE)])
def test_a_real_difference_is_seen(mean: float, verdict: str) -> None:
    found = [
        compare.difference("x", capacity(2 * n, 230), capacity(2 * n + 1, 230 * mean), 0.01)
        for n in range(20)
    ]
    assert sum(row.verdict == verdict for row in found) >= 18
    assert sum(row.low < mean - 1 < row.high for row in found) >= 18


@pytest.mark.usefixtures("few_draws")
def test_less_latency_is_better() -> None:
    def latency(ms: float) -> Measure:
        random = np.random.default_rng(round(ms))
        blocks = [[Block(0.5, 50, random.gamma(9, ms / 9e3, 50)) for _ in range(10)]]
        return Measure("ms", False, compare.quantile_ms(0.5), blocks)

    assert compare.difference("p50", latency(20), latency(10), 0.05).verdict == BETTER
    assert compare.difference("p50", latency(10), latency(20), 0.05).verdict == WORSE


def test_the_interval_of_a_mean_of_two_rounds_is_not_too_narrow() -> None:
    # The variance of a mean of n values is s^2 / n; with n = 2 naive drawing would give half of it.
    levels = [[Block(1.0, 100, np.array([]))], [Block(1.0, 120, np.array([]))]]
    drawn = Measure("/s", True, compare.rate, levels).resampled(np.random.default_rng(1))
    s_squared = np.var([100, 120], ddof=1)
    assert np.var(drawn) == pytest.approx(s_squared / 2, rel=0.05)


def test_answers_and_latencies_fall_into_their_blocks() -> None:
    samples = [answered(1000.1), answered(1000.4, took=0.3), failed(1000.9, 5, "timeout", stood=True)]
    first, second = compare.blocks_of(samples, start=1000.0, window=1.0, slo_seconds=None)
    assert (first.answered, second.answered) == (1, 1)
    assert first.latencies.tolist() == pytest.approx([0.004, 0.3])
    assert second.latencies.tolist() == pytest.approx([5.0])
    assert compare.rate([first, second]) == 2


def folder(path: Path, took: float, *, rate: float = 100) -> Path:
    """A run folder as `run --out` writes it: ten seconds, each answer after about `took`."""
    random = np.random.default_rng(round(took * 1e6))
    phase = Phase(url="http://127.0.0.1:8080/data", rate=rate, duration_seconds=10)
    samples = [answered(1000 + n / rate, took * random.uniform(0.8, 1.2)) for n in range(round(10 * rate))]
    path.mkdir()
    (path / "plan.json").write_text(json.dumps({"phase": phase.to_json(), "thresholds": []}))
    (path / "samples.json").write_text(json.dumps({**to_columns(samples), "generator": FACTS.to_json()}))
    return path


@pytest.mark.usefixtures("few_draws")
def test_the_command_says_one_of_three_sentences_for_each_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = folder(tmp_path / "fast", 0.004), folder(tmp_path / "slow", 0.006)
    assert main(["compare", str(slow), str(fast)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("latency p50")).endswith(f": {BETTER}")
    assert next(line for line in lines if line.startswith("answers")).endswith(f": {SAME}")
    assert main(["compare", str(fast), str(slow)]) == 1
    assert WORSE in capsys.readouterr().out
    assert main(["compare", str(fast), str(fast)]) == 0
    assert capsys.readouterr().out.count(SAME) == 3


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [("here", "nowhere", "no folder"), ("here", "empty", "no samples"), ("here", "faster", "same load")],
)
def test_what_cannot_be_compared_is_named_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], a: str, b: str, why: str
) -> None:
    folder(tmp_path / "here", 0.004)
    folder(tmp_path / "faster", 0.004, rate=200)
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / a), str(tmp_path / b)]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_an_invalid_run_is_not_compared(tmp_path: Path) -> None:
    good = compare.load(folder(tmp_path / "good", 0.004))
    bad_folder = folder(tmp_path / "bad", 0.005)
    content = json.loads((bad_folder / "samples.json").read_text())
    content["generator"]["sending_cpu_seconds"] = 9.9
    (bad_folder / "samples.json").write_text(json.dumps(content))
    bad = compare.load(bad_folder)
    with pytest.raises(FolderError, match="one core"):
        compare.compare(good, bad)
