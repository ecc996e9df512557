"""The ceiling of the generator: searched for, kept, and read back."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.capacity.self_test import HOLD_SECONDS, measure
from loadtests.load.ceiling import Ceiling, keep, remembered
from loadtests.load.phase import Phase
from loadtests.load.results import RunSummary
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from tests.support.synthetic import FACTS

SILENT = Console(file=io.StringIO())


def summary(rate: float, ceiling: float) -> RunSummary:
    """Of a generator that needs 100 us for a request, and is late above its ceiling."""
    due = [FACTS.started_monotonic + n / rate for n in range(100)]
    late = 0.06 if rate > ceiling else 0.0
    samples = [Sample(t, t + late, t + late, t + late, t + late, "ok", 200, None, 1, 0.0) for t in due]
    found = summarise(samples, FACTS, Phase(url="http://127.0.0.1:1/", rate=rate, duration_seconds=1))
    return replace(found, generator=replace(found.generator, cpu_share=100 * 1e-4))


@pytest.mark.parametrize("ceiling", [300.0, 1490.0, 4210.0])
def test_the_ceiling_is_bracketed_and_its_reason_told(ceiling: float) -> None:
    seconds = []

    def trial(rate: float, length: float) -> RunSummary:
        seconds.append(length)
        return summary(rate, ceiling)

    found = measure(trial, SILENT)
    assert found is not None
    assert found.per_second <= ceiling < found.above_per_second
    assert found.above_per_second / found.per_second < 1.1
    assert "ms late" in found.why
    assert found.cpu_seconds == pytest.approx(1e-4)
    assert seconds[-1] == HOLD_SECONDS


def test_a_generator_that_is_never_on_time_has_no_ceiling() -> None:
    assert measure(lambda rate, _: summary(rate, 0.0), SILENT) is None


def test_what_is_kept_is_read_back_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "self-test.json"
    assert remembered(file) is None
    ceiling = Ceiling(per_second=4000.0, above_per_second=4076.0, cpu_seconds=1e-4, why="late")
    keep(ceiling, file)
    assert remembered(file) == ceiling
    file.write_text("{}")
    assert remembered(file) is None
