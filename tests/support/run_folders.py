"""Folders as a load test leaves them, with samples made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from loadtests.load.ports import Forecast
from loadtests.load.sample import Sample, to_columns
from tests.support.samples import EVERY_KIND, FACTS, PHASE, failed, steady, unsent

FORECAST = Forecast(
    ports=28232, sources=1, busy=0, quarantine_seconds=0.0, planned=1000, first_without=None, at_seconds=None,
    sustained_per_second=None, most_at_once=None,
)  # fmt: skip


def keep(
    folder: Path,
    samples: Sequence[Sample],
    facts: GeneratorFacts = FACTS,
    phase: Phase = PHASE,
    thresholds: Sequence[str] = (),
    slo_seconds: float | None = None,
) -> Path:
    """Write what a run leaves even if it is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "phase": phase.to_json(),
        "slo_seconds": slo_seconds,
        "thresholds": list(thresholds),
        "ports": asdict(FORECAST),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "samples.json").write_text(json.dumps({**to_columns(samples), "generator": facts.to_json()}))
    return folder


def keep_steps(
    folder: Path, planned: Sequence[str], steps: Mapping[str, Sequence[Sample]], **of: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    index = {"steps": [{"name": name, "rate": float(name.partition("-")[0])} for name in planned]}
    (folder / "steps.json").write_text(json.dumps(index))
    for name, samples in steps.items():
        keep(folder / name, samples, **of)
    return folder


CLOSED = Phase(url=PHASE.url, clients=8, duration_seconds=10)
STOPPED = replace(FACTS, interrupted=True, wall_seconds=5.0)
RUNS: dict[str, dict[str, Any]] = {
    "steady": {"samples": steady()},
    "with an SLO": {
        "samples": steady(), "slo_seconds": 0.05, "thresholds": ["p99<100ms", "errors<1%", "goodput>=90"],
    },
    "missed": {"samples": steady(took=0.5), "thresholds": ["p99<100ms", "max<10s"]},
    "late": {"samples": steady(late=0.2), "thresholds": ["p99<100ms"]},
    "too few": {"samples": steady(20), "thresholds": ["p99.9<100ms"]},
    "interrupted": {
        "samples": [*steady(500), *(unsent(1005 + n / 100, "stopped") for n in range(500))], "facts": STOPPED,
    },
    "interrupted at once": {"samples": [unsent(1000.0, "stopped")], "facts": STOPPED},
    "every kind": {"samples": EVERY_KIND, "slo_seconds": 0.1},
    "nothing but failures": {
        "samples": [failed(1000 + n / 100, 1, "timeout", stood=True) for n in range(1000)],
        "thresholds": ["p50<1s"],
    },
    "one request": {"samples": steady(1)},
    "unreachable": {
        "samples": [failed(1000, 0.001, "connect_error", "ECONNREFUSED", stood=False)],
        "facts": replace(FACTS, unreachable=True),
    },
    "closed": {"samples": steady(), "phase": CLOSED},
}  # fmt: skip
