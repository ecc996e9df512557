"""Compares two run folders: each figure's difference with an interval, and one of three sentences.

Knows which figures two runs share and how far chance alone could move them. Reads run folders only;
measures nothing. It sees what varied *within* the two runs. What differed between them, such as a
machine that clocked lower, it can only name.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtests.experiment import results
from loadtests.experiment.evidence import Evidence, UnusableError
from loadtests.experiment.folder import FolderError, RunFolder
from loadtests.load.generator import read_samples
from loadtests.load.histogram import minimum_samples
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample
from loadtests.load.summary import in_time, summarise

BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "no difference beyond noise"

BLOCK_SECONDS: Final = 0.5
"""Neighbouring requests share a queue, so they do not vary independently: whole half seconds are drawn
(block bootstrap; Kuensch, Annals of Statistics 17, 1989). A queue at a comfortable load forgets sooner."""

DRAWS: Final = 1000
T_DRAWS: Final = 400_000  # numpy has no quantile of Student's t; so many draws give it to a per cent
WIDTH: Final = 78
TINY: Final = 1e-9  # stands for "none at all" in a logarithm
CONFIDENCE: Final = 0.95
"""Of all intervals of a comparison together: with k figures each is drawn at 1 - 0.05/k (Bonferroni), or
one of twelve figures would differ by chance in every second comparison of a thing with itself."""

FEWEST_BLOCKS: Final = 4
NOTABLE: Final = 0.03
"""A request whose CPU cost moved by more than this between the runs is named: capacity moves with it."""

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What happened in one stretch of a phase: answers in time, and the latencies of what came due, s."""

    seconds: float
    answered: int
    latencies: Floats


Rounds = Sequence[Sequence[Block]]
Statistic = Callable[[Sequence[Block]], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run: how it is computed from blocks, and the blocks of each round."""

    unit: str
    more_is_better: bool
    statistic: Statistic
    rounds: Rounds

    @property
    def value(self) -> float:
        """The figure from all blocks."""
        return self.statistic([block for blocks in self.rounds for block in blocks])

    @property
    def freedom(self) -> int:
        """Degrees of freedom: rounds less one, or blocks less one where there is one round only."""
        return (len(self.rounds) if len(self.rounds) > 1 else len(self.rounds[0])) - 1

    def resampled(self, random: np.random.Generator) -> Floats:
        """The figure as it might have come out, `DRAWS` times.

        Rounds are drawn first, then blocks within them, n - 1 out of n each time: drawing n would make
        the spread of a mean too small by (n - 1) / n, which with two rounds is half of it (McCarthy
        and Snowden, The Bootstrap and Finite Population Sampling, 1985).
        """

        def some(things: Sequence[Any]) -> list[Any]:
            return [
                things[k] for k in random.integers(len(things), size=max(len(things) - 1, 1), dtype=np.int64)
            ]

        return np.array(
            [
                self.statistic([block for blocks in some(self.rounds) for block in some(blocks)])
                for _ in range(DRAWS)
            ]
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One figure in both runs. `change`, `low` and `high` are shares: 0.1 is B ten per cent above A."""

    name: str
    unit: str
    a: float
    b: float
    change: float
    low: float
    high: float
    verdict: str


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run folder as far as comparing goes."""

    path: Path
    measures: dict[str, Measure]
    load: str  # what two runs must share before their latencies mean the same
    unusable: dict[str, str]  # figures that the run cannot give, with the reason
    environment: dict[str, Any]
    s_seconds: dict[str, float]  # CPU per request by variant, as the workers measured it


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, and what a reader should know before believing them."""

    differences: list[Difference]
    cautions: list[str]

    @property
    def is_worse(self) -> bool:
        """Whether any figure got worse beyond noise."""
        return any(difference.verdict == WORSE for difference in self.differences)


def compare(a: Run, b: Run) -> Comparison:
    """Every figure that both runs have, B against A.

    Raises:
        FolderError: the runs share no figure, or did not offer the same load.
    """
    if a.load != b.load:
        raise FolderError(f"the two runs did not offer the same load: {a.path} {a.load}, {b.path} {b.load}")
    shared = [name for name in a.measures if name in b.measures]
    if not shared:
        reasons = {**a.unusable, **b.unusable}
        raise FolderError(
            "the two runs share no figure that can be compared"
            + "".join(f"; {name}: {why}" for name, why in reasons.items())
        )
    level = (1 - CONFIDENCE) / len(shared)
    differences = [difference(name, a.measures[name], b.measures[name], level) for name in shared]
    return Comparison(differences, list(_cautions(a, b, shared)))


def difference(name: str, a: Measure, b: Measure, level: float) -> Difference:
    """The change from `a` to `b` and its interval, which misses the truth with probability `level`.

    The interval is symmetric for the logarithm of the ratio: its standard error comes from the
    bootstrap, its length from Student's t with the degrees of freedom that so few rounds leave. The plain
    percentile interval of two rounds cannot reach beyond what was seen: it would call two runs of the
    same thing different in a third of all cases (all of one above all of the other: 2 in 6).
    """
    random = np.random.default_rng(1)  # the same two folders always get the same answer
    spreads = [np.std(_log(side.resampled(random))) for side in (a, b)]
    error = float(np.hypot(spreads[0], spreads[1]))
    reach = float(np.quantile(random.standard_t(a.freedom + b.freedom, T_DRAWS), 1 - level / 2)) * error
    change = float(_log(np.array(b.value)) - _log(np.array(a.value)))
    low, high = change - reach, change + reach
    verdict = SAME
    if low > 0 or high < 0:
        verdict = BETTER if (low > 0) == a.more_is_better else WORSE
    change, low, high = (float(np.expm1(edge)) for edge in (change, low, high))
    return Difference(name, a.unit, a.value, b.value, change, low, high, verdict)


def _log(values: Floats) -> Floats:
    return np.log(np.maximum(values, TINY))


def load(path: Path) -> Run:
    """Read the folder of an `experiment` or of one `run`.

    Raises:
        FolderError: it holds neither, or its samples were not kept.
    """
    if not path.is_dir():
        raise FolderError(f"there is no folder {path}")
    folder = RunFolder(path)
    plan = folder.read("plan.json") if (path / "plan.json").exists() else {}
    if "phase" in plan:
        return _single(path, Phase.from_json(plan["phase"]))
    if "visits" in plan and (path / "phases").is_dir():
        return _experiment(folder)
    raise FolderError(f"{path} holds no samples to compare: `experiment` or `run --out` must have written it")


def as_text(a: Run, b: Run, comparison: Comparison) -> str:
    """The comparison as plain text."""
    lines = [
        f"A  {a.path}",
        f"B  {b.path}",
        f"B against A, with a {CONFIDENCE:.0%} interval of all rows together",
        "",
    ]
    for row in comparison.differences:
        lines.append(f"{row.name}: {row.verdict}")
        change = f"{row.change:+.1%} ({row.low:+.1%} to {row.high:+.1%})"
        lines.append(f"    {_value(row.a, row.unit):>10} to {_value(row.b, row.unit):>10}   {change}")
    lines.append("")
    for caution in comparison.cautions:
        lines += textwrap.wrap(caution, WIDTH)
    return "\n".join(lines).rstrip() + "\n"


def blocks_of(
    samples: Iterable[Sample], start: float, window: float, slo_seconds: float | None
) -> list[Block]:
    """Cut a phase into blocks of equal length, about `BLOCK_SECONDS` each.

    An answer counts in the block in which it finished, a latency in the one in which it came due.
    """
    sent = [sample for sample in samples if sample.started is not None]
    count = max(1, round(window / BLOCK_SECONDS))
    length = window / count

    def place(moment: float) -> int:
        return min(max(int((moment - start) / length), 0), count - 1)

    answered = [0] * count
    latencies: list[list[float]] = [[] for _ in range(count)]
    for sample in in_time(sent, start, window, slo_seconds):
        answered[place(sample.finished or start)] += 1
    for sample in sent:
        if sample.finished is not None:
            latencies[place(sample.intended)].append(sample.finished - sample.intended)
    return [Block(length, n, np.array(sorted(found))) for n, found in zip(answered, latencies, strict=True)]


def rate(blocks: Sequence[Block]) -> float:
    """Answers in time per second."""
    return sum(block.answered for block in blocks) / sum(block.seconds for block in blocks)


def quantile_ms(share: float) -> Statistic:
    """The statistic that gives a quantile of latency in milliseconds."""

    def statistic(blocks: Sequence[Block]) -> float:
        found = np.concatenate([block.latencies for block in blocks])
        return float(np.quantile(found, share)) * 1e3 if found.size else float("inf")

    return statistic


def _single(path: Path, phase: Phase) -> Run:
    """The folder of one `run`: answers per second and latency at its one rate."""
    samples, facts = read_samples(path / "samples.json")
    summary = summarise(samples, facts, phase)
    load = f"{phase.workload} for {phase.duration_seconds:g} s"
    run = Run(path, {}, load, {}, {}, {})
    if summary.invalid_because:
        run.unusable["the run"] = summary.invalid_because[0]
        return run
    rounds = [blocks_of(samples, facts.started_monotonic, summary.window_seconds, None)]
    _add(run, "answers", Measure("/s", True, rate, rounds))
    _add_latencies(run, "latency", rounds)
    return run


def _experiment(folder: RunFolder) -> Run:
    """The folder of an `experiment`: capacity of each variant, and latency at its lowest load."""
    summary = results.build(folder)
    plan, evidence = folder.plan(), Evidence(summary)
    steps = {step.id: step for step in plan.steps}
    slo = plan.factors.slo_seconds
    lowest = min((phase["load"] for phase in summary["phases"] if phase["kind"] != "overload"), default=None)
    factors = dataclasses.asdict(plan.factors)
    shared = ("slo_seconds", "timeout_seconds", "work_ms", "backlog")
    run = Run(
        folder.path,
        {},
        f"{plan.preset}, " + ", ".join(f"{name} {factors[name]:g}" for name in shared),
        {},
        summary["environment"],
        {},
    )

    def rounds(phases: Iterable[dict[str, Any]]) -> list[list[Block]]:
        found = []
        for result in phases:
            phase, samples, facts, _ = folder.raw(steps[result["id"]])
            found.append(blocks_of(samples, facts.started_monotonic, phase.duration_seconds, slo))
        return found

    for name in plan.variants:
        phases = [p for p in summary["phases"] if p["variant"] == name and p["kind"] != "overload"]
        costs = [phase["s_seconds"] for phase in phases if phase["s_seconds"]]
        if not costs:
            continue
        run.s_seconds[name] = sum(costs) / len(costs)
        try:
            capacities = evidence.capacities(name)
        except UnusableError as problem:
            run.unusable[f"{name}, capacity"] = str(problem)
        else:
            best = [
                max((p for p in phases if p["round"] == number), key=lambda p: float(p["goodput_per_second"]))
                for number in capacities
            ]
            _add(run, f"{name}, capacity", Measure("/s", True, rate, rounds(best)))
        calm = [p for p in phases if p["load"] == lowest and p["state"] != "invalid"]
        if calm:
            _add_latencies(run, f"{name}, latency at {lowest:.2g}x the limit,", rounds(calm))
    return run


def _add(run: Run, name: str, measure: Measure) -> None:
    if sum(len(blocks) for blocks in measure.rounds) < FEWEST_BLOCKS:
        run.unusable[name] = f"less than {FEWEST_BLOCKS * BLOCK_SECONDS:g} s were measured"
    else:
        run.measures[name] = measure


def _add_latencies(run: Run, name: str, rounds: Rounds) -> None:
    """p50, and p99 where there are samples enough for an interval of it."""
    count = sum(block.latencies.size for blocks in rounds for block in blocks)
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        if count >= minimum_samples(share):
            _add(run, f"{name} {label}", Measure("ms", False, quantile_ms(share), rounds))
        else:
            run.unusable[f"{name} {label}"] = f"{count} samples are too few"


def _cautions(a: Run, b: Run, shared: Sequence[str]) -> Iterable[str]:
    """What differed between the runs besides what is compared, and what could not be compared."""
    for key in sorted(a.environment.keys() & b.environment.keys() - {"date", "load_average"}):
        was, now = a.environment[key], b.environment[key]
        if was != now:
            if isinstance(was, dict) and isinstance(now, dict):
                changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
                was, now = ({name: side.get(name) for name in changed} for side in (was, now))
            yield f"The environments differ: {key} was {was} in A and is {now} in B."
    for name, before in a.s_seconds.items():
        after = b.s_seconds.get(name)
        if after and abs(after / before - 1) > NOTABLE:
            yield (
                f"A request of {name} cost {before * 1e3:.2f} ms of CPU in A and {after * 1e3:.2f} ms in B: "
                "its capacity moves with that."
            )
    missing = {name: why for run in (a, b) for name, why in run.unusable.items() if name not in shared}
    for name, why in missing.items():
        yield f"Not compared: {name}: {why}."
    yield (
        "The interval holds what varied within the two runs. For what varies between runs, compare a run "
        "with another of the same kind first."
    )


def _value(value: float, unit: str) -> str:
    return f"{value:.0f}/s" if unit == "/s" else f"{value:.3g} ms"
