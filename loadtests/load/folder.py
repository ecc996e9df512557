"""What a run folder holds, read back.

    plan.json          what will be sent and what it must reach; written before the first request
    samples.json       every request, and what the generator says of itself
    surroundings.json  what else used machine and server meanwhile
    summary.json       the figures that follow from these
    latency.hlog, latency.hgrm, seconds.ndjson   for other tools
    report.html        the page

With several rates each has such a folder, named after the rate, within one that holds steps.json (the rates
in their order) and a page of them all.

Knows the files, and sums up again from plan and samples: a command that was killed leaves no more. Read-only.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.load.facts import GeneratorFacts
from loadtests.load.generator import read_samples
from loadtests.load.judgement import all_of
from loadtests.load.phase import Phase
from loadtests.load.ports import Forecast
from loadtests.load.results import RunSummary, Step, StepsSummary
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.load.surroundings import Surroundings
from loadtests.load.thresholds import Threshold

PLAN: Final = "plan.json"
SAMPLES: Final = "samples.json"
SURROUNDINGS: Final = "surroundings.json"
SUMMARY: Final = "summary.json"
STEPS: Final = "steps.json"
PAGE: Final = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One phase as it was kept. `forecast`: of its ports, made before the phase."""

    phase: Phase
    forecast: Forecast
    samples: list[Sample]
    facts: GeneratorFacts
    summary: RunSummary


def read_run(path: Path) -> Record:
    """Read the folder of one phase; a `ValueError` says why it cannot be read."""
    try:
        plan = _read(path / PLAN)
        phase = Phase.from_json(plan["phase"])
        samples, facts = read_samples(path / SAMPLES)
        summary = summarise(
            samples,
            facts,
            phase,
            slo_seconds=plan["slo_seconds"],
            thresholds=map(Threshold.parse, plan["thresholds"]),
            surroundings=_surroundings(path),
        )
        forecast = Forecast(**plan["ports"])
    except (OSError, LookupError, ValueError, TypeError) as error:
        reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) else error
        raise ValueError(f"{path} does not hold a readable run: {reason}") from error
    return Record(phase=phase, forecast=forecast, samples=samples, facts=facts, summary=summary)


def read_steps(path: Path) -> StepsSummary:
    """Sum up the steps that were run, except one that could not reach the server.

    A `ValueError` says why they cannot be read.
    """
    try:
        planned = [(str(step["name"]), float(step["rate"])) for step in _read(path / STEPS)["steps"]]
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold readable steps: {error}") from error
    steps = [
        Step(name=name, rate=rate, summary=read_run(path / name).summary)
        for name, rate in planned
        if (path / name / SAMPLES).exists()
    ]
    reached = [step for step in steps if step.summary.interrupted or not step.summary.unreachable]
    return summed_up(reached, len(planned))


def summed_up(steps: list[Step], planned: int) -> StepsSummary:
    """Sum up the steps that were run, of `planned` ones; `ValueError` if there is none."""
    if not steps:
        raise ValueError("not one step was run")
    return StepsSummary(
        state=all_of([step.summary.state for step in steps]),
        interrupted=len(steps) < planned or any(step.summary.interrupted for step in steps),
        planned=planned,
        steps=tuple(steps),
    )


def holds_steps(path: Path) -> bool:
    """Whether a folder holds a run of several rates."""
    return (path / STEPS).exists()


def holds_run(path: Path) -> bool:
    """Whether `run` wrote a folder, with one rate or with several."""
    try:
        return holds_steps(path) or "phase" in _read(path / PLAN)
    except (OSError, ValueError, TypeError):
        return False


def _surroundings(path: Path) -> Surroundings | None:
    if not (path / SURROUNDINGS).exists():  # the command was killed
        return None
    return Surroundings(**_read(path / SURROUNDINGS))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
