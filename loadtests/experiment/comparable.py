"""What can be compared of a run folder: figures with their values, and what must be equal.

Knows both kinds of run folder, that of `experiment` and that of `run --out`. Only reads them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from loadtests.experiment.blocks import Block
from loadtests.experiment.evidence import Evidence, ledger_gaps
from loadtests.experiment.folder import FolderError, RunFolder, holds_experiment
from loadtests.experiment.plan import Variant
from loadtests.experiment.results import Summary
from loadtests.load.folder import holds_steps
from loadtests.load.generator import read_samples
from loadtests.load.histogram import minimum_samples, quantile
from loadtests.load.phase import Phase
from loadtests.load.sample import STOPPED, Sample, elapsed, requests
from loadtests.load.summary import in_time, summarise, waits

FEWEST_SLICES: Final = 5
"""Per side; with fewer, three intervals at once have no ends."""

MOST_SLICES: Final = 20
"""Ten to thirty batches are enough for an interval; the longer a batch, the less it correlates with the next
(Schmeiser, Batch Size Effects in the Analysis of Simulation Output, Operations Research 30, 1982)."""

SLICE_SECONDS: Final = 1.0
"""The shortest slice. Requests share a queue, so neighbours in time correlate, while the interval assumes
independent slices. The memory of the queue is about S / (1 - sqrt(load)) ** 2 (the relaxation time of M/M/1):
0.05 s at half the limit with 4 ms, 0.4 s at 0.8 of it, 1.5 s at 0.9. So a second is long enough at a moderate
load; above, the correlation of the slices is measured and reported."""

SAME_PLAN: Final = ("work_ms", "clients", "settle_seconds", "block_seconds")
"""Factors that determine what a block asks of the service."""

TOLD_OF_VARIANT: Final = ("accept_batch", "backlog", "loop")
"""What may differ in a variant of B: it may be what is compared."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a run, measured again and again.

    `values`: positive, one for each block or slice. `of`: what it was measured on; figures are compared only
    if it is equal. `beside`: shown with the figure before it, and not judged. `in_a_row`: each value begins
    where the one before it ended. `work_units`: the work of a request, if that matters. `workers`: of U,
    which depends on it.
    """

    unit: str
    more_is_better: bool
    values: tuple[float, ...]
    of: str = ""
    beside: bool = False
    in_a_row: bool = False
    workers: int = 0
    work_units: int = 0

    @property
    def alike(self) -> bool:
        """Whether neighbouring values correlate more than in 95 % of independent series."""
        logarithms = [math.log(value) for value in self.values]
        middle = math.fsum(logarithms) / len(logarithms)
        off = [value - middle for value in logarithms]
        spread = math.fsum(value**2 for value in off)
        shared = math.fsum(one * two for one, two in itertools.pairwise(off))
        return spread > 0 and shared / spread > 1.645 / math.sqrt(len(off))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is compared of a run.

    `same`: what must be equal in both runs, or equal names would mean different things. `told`: what may
    differ, and is reported if it does. `cut_short`: how the run was cut short; empty if it was not.
    `unusable`: what cannot be compared, with the reason.
    """

    path: Path
    figures: Mapping[str, Figure]
    same: Mapping[str, Any]
    told: Mapping[str, Any]
    unusable: Mapping[str, str]
    cut_short: str = ""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the folder of an `experiment` or of one `run`.

        Raises:
            FolderError: it holds neither, or its samples were not kept.
        """
        if not path.is_dir():
            raise FolderError(f"there is no folder {path}")
        if holds_experiment(path):
            return cls.of_experiment(path, RunFolder(path).summary())
        if holds_steps(path):
            raise FolderError(f"{path} holds several rates: compare the folder of one, below it")
        try:
            plan = json.loads((path / "plan.json").read_text(encoding="utf-8"))
            samples, facts = read_samples(path / "samples.json")
            phase = Phase.from_json(plan["phase"])
        except (OSError, LookupError, ValueError, TypeError) as error:
            raise FolderError(
                f"{path} holds nothing to compare: `experiment` or `run --out` must have written it"
            ) from error
        summary = summarise(samples, facts, phase)
        if summary.invalid_because:
            return cls(
                path=path, figures={}, same={}, told={}, unusable={"the run": summary.invalid_because[0]}
            )
        return cls.of_phase(path, phase, samples, facts.started_monotonic, summary.window_seconds)

    @classmethod
    def of_experiment(cls, path: Path, summary: Summary) -> Self:
        """U of each variant with blocks, which is judged, and X and S beside it."""
        plan, status = summary.plan, summary.status
        unusable: dict[str, str] = {}
        if status.state == "invalid":
            unusable["the run"] = status.invalid_because
        elif gaps := ledger_gaps(summary):
            unusable["the run"] = gaps[0]
        evidence = Evidence(summary)
        figures: dict[str, Figure] = {}
        told = _flat(dataclasses.asdict(summary.environment))
        for variant in plan.variants:
            blocks = [] if unusable else list(evidence.blocks(variant.name).values())
            if blocks:
                figures |= _of_blocks(variant, blocks)
                told |= {f"{name} of {variant.name}": getattr(variant, name) for name in TOLD_OF_VARIANT}
        if not figures and not unusable:
            unusable["the run"] = "not one block may be judged"
        if plan.curve:
            unusable["latency"] = "an experiment has one phase at each load; compare runs of `run --out`"
        return cls(
            path=path,
            figures=figures,
            same={"command": "experiment", "preset": plan.preset}
            | {name: getattr(plan.factors, name) for name in SAME_PLAN},
            told=told,
            unusable=unusable,
            cut_short="" if status.state == "complete" else status.state,
        )

    @classmethod
    def of_phase(
        cls, path: Path, phase: Phase, samples: Sequence[Sample], start: float, window_seconds: float
    ) -> Self:
        """Answers per second and latencies of the slices of one phase."""
        due = [sample for sample in requests(samples) if sample.reason != STOPPED]
        figures: dict[str, Figure] = {}
        unusable: dict[str, str] = {}
        found = {"answers": _rates(due, start, window_seconds)}
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            found[f"latency {label}"] = _quantiles(due, window_seconds, share)
        for name, values in found.items():
            more = name == "answers"
            if len(values) < FEWEST_SLICES:
                unusable[name] = (
                    f"{len(values)} slices have enough samples and {FEWEST_SLICES} are needed: run longer"
                )
            elif phase.clients is not None and not more:
                unusable[name] = "clients in a closed loop wait for the service and offer no load"
            elif lost := values.count(math.inf):
                unusable[name] = f"in {lost} of {len(values)} slices it falls on a request that failed"
            else:
                figures[name] = Figure(
                    unit="/s" if more else "s", more_is_better=more, values=tuple(values), in_a_row=True
                )
        return cls(
            path=path,
            figures=figures,
            same={
                "command": "run",
                "load": f"{phase.workload} for {phase.duration_seconds:g} s",
                "method": phase.method,
                "who closes": phase.who_closes,
                "connections": "kept" if phase.keep_alive else "one per request",
                "expect": phase.expect,
                "retries": f"{phase.retry}, {phase.retries_at_most}",
            },
            told={"url": phase.url},
            unusable=unusable,
            cut_short="" if window_seconds >= phase.duration_seconds else f"after {window_seconds:.1f} s",
        )


def _of_blocks(variant: Variant, blocks: Sequence[Block]) -> dict[str, Figure]:
    def values(figure: Callable[[Block], float]) -> tuple[float, ...]:
        return tuple(figure(block) for block in blocks)

    of = f"{variant.work}, {variant.offload}, {variant.workers} workers"
    of += ", protected" if variant.protected else ""
    return {
        f"{variant.name}, U": Figure(
            of=of,
            unit="cores",
            more_is_better=True,
            values=values(lambda block: block.utilisation),
            workers=variant.workers,
            work_units=variant.work_units,
        ),
        f"{variant.name}, X": Figure(
            of=of,
            unit="/s",
            more_is_better=True,
            values=values(lambda block: block.throughput_per_second),
            beside=True,
            work_units=variant.work_units,
        ),
        f"{variant.name}, S": Figure(
            of=of,
            unit="s",
            more_is_better=False,
            values=values(lambda block: block.demand_seconds),
            beside=True,
            work_units=variant.work_units,
        ),
    }


def _rates(due: Sequence[Sample], start: float, window_seconds: float) -> list[float]:
    """Answers per second in each slice of the window; half an answer if there is none, for the ratio."""
    slices = min(MOST_SLICES, int(window_seconds / SLICE_SECONDS))
    length = window_seconds / max(slices, 1)
    counts = [0] * slices
    for sample in in_time(due, start, slices * length, None):
        counts[min(int(elapsed(start, sample.finished) / length), slices - 1)] += 1
    return [max(count, 0.5) / length for count in counts]


def _quantiles(due: Sequence[Sample], window_seconds: float, share: float) -> list[float]:
    """A quantile of the latencies of each slice; slices have equally many requests, as they came due.

    At least a microsecond, the resolution of the samples: a ratio needs a positive value.
    """
    slices = min(MOST_SLICES, int(window_seconds / SLICE_SECONDS), len(due) // minimum_samples(share))
    ordered = list(waits(sorted(due, key=lambda sample: sample.intended)))
    edges = [len(ordered) * k // slices for k in range(slices + 1)] if slices else []
    return [max(quantile(sorted(ordered[a:b]), share) or 0.0, 1e-6) for a, b in itertools.pairwise(edges)]


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The facts about the machine by name; without its date and load, which always differ."""
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if isinstance(value, dict):
            flat |= {f"{name} {inner}": fact for inner, fact in value.items()}
        elif name not in ("date", "load_average"):
            flat[name] = value
    return flat
