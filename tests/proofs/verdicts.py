"""How often the verdict decides, and how often it is wrong: `make verdicts`.

A thousand made-up experiments for each way in which S drifts, each amount of noise, and each place of the
truth beside the end of a claim's region; tests/support/simulated.py says what is made up and what is real. A
claim that lies 5 % off must be decided in at least 95 % of the runs if its figure scatters by at most 4 %
from cycle to cycle, drift of S and all. At most 1 % of the runs may be wrong, and the interval must hold the
truth in at least 95 %, whatever the noise. Exactly on an end neither verdict is wrong; how often there
is one, is told.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any, Final

import numpy as np

from loadtests.experiment.amounts import FOUND, INLINE_CAP, NOTHING, NOTHING_LEFT, PUBLISHED, RAISES
from loadtests.experiment.blocks import Block
from loadtests.experiment.evidence import Evidence
from loadtests.experiment.finding import DID_NOT_HOLD, HELD, INCONCLUSIVE, Finding
from loadtests.experiment.plan import DATA, Cost, Plan
from loadtests.experiment.presets import PLANTED, PRESETS, PUBLISHED_SHARE, plan
from loadtests.experiment.results import Summary
from loadtests.experiment.statistics import Region
from loadtests.experiment.verdict import judge, rules_for
from tests.proofs.record import keep
from tests.support.simulated import SCENARIOS, Noise, Service, experiment, real_noise

RUNS: Final = 1000
CORES: Final = 2.0
NOISES: Final[Mapping[str, tuple[float | None, ...]]] = {
    "quick": (None, 0.02, 0.04, 0.07),
    "controlled": (0.04, 0.07),
    "a-a": (None, 0.02, 0.04, 0.07),
}
"""Standard deviations per cycle, by preset; None: as it was measured. `controlled` is for noisy machines."""

OFF: Final = 0.05
QUIET: Final = 0.04
LEAST_DECIDED: Final = 0.95
MOST_WRONG: Final = 0.01
LEAST_COVERED: Final = 0.95

UNITS: Final = 30_000
USUAL: Final[Mapping[Region, float]] = {
    INLINE_CAP: 0.83,
    PUBLISHED: 5.1,
    RAISES: 1.19,
    NOTHING_LEFT: 0.97,
    NOTHING: 1.0,
    FOUND: PLANTED,
}
"""What was measured, about: the truth of a claim whose region has no such end."""

NAMES: Final[Mapping[Region, str]] = {
    INLINE_CAP: "U of inline",
    PUBLISHED: "X with a fifth of the work",
    RAISES: "U of one worker",
    NOTHING_LEFT: "U of the cores left",
    NOTHING: "U of inline again",
    FOUND: "S of 25 % more work",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Truths, and which of them lie where the case is about: `off` by so much from an end of the region."""

    preset: str
    off: float
    truths: Mapping[Region, float]
    told: frozenset[Region]


def cases() -> Iterator[Case]:
    """Below, on and above the lower end of each claim, all claims at once; then the upper end."""
    post = (INLINE_CAP, PUBLISHED, RAISES, NOTHING_LEFT)
    presets = {"quick": post, "controlled": post, "a-a": (NOTHING, FOUND)}
    for preset, regions in presets.items():
        for end in ("low", "high"):
            told = frozenset(region for region in regions if math.isfinite(getattr(region, end)))
            for off in (-OFF, 0.0, OFF):
                truths = {
                    region: getattr(region, end) * (1 + off) if region in told else USUAL[region]
                    for region in regions
                }
                yield Case(preset, off, truths, frozenset(r for r in told if _is_off(truths[r], r, off)))
    yield Case("a-a", math.nan, {region: USUAL[region] for region in (NOTHING, FOUND)}, frozenset({NOTHING}))


def _is_off(truth: float, region: Region, off: float) -> bool:
    """Whether the other end is at least as far away: in a region of 6 % nothing lies 5 % inside."""
    return not off or all(abs(truth / end - 1) > OFF * 0.9 for end in (region.low, region.high) if end)


def plan_of(preset: str, seed: int, demand_seconds: float) -> Plan:
    """The plan of one run; its seed shuffles the order of the blocks."""
    costs = {DATA: Cost(work_units=UNITS, s_seconds=demand_seconds)}
    return plan(preset, CORES, costs, dataclasses.replace(PRESETS[preset].factors, seed=seed))


def services(truths: Mapping[Region, float], demand: float) -> dict[str, Service]:
    """What the variants do if so much is true. A unit of work costs the same CPU in all of them."""
    inline = truths.get(INLINE_CAP, USUAL[INLINE_CAP])
    fifth = demand * PUBLISHED_SHARE
    found = {"inline": Service(demand_seconds=demand, figure=inline)}
    if PUBLISHED in truths:  # X = U / S, of both
        figure = truths[PUBLISHED] * inline / demand * fifth
        found["executor-1-fifth"] = Service(demand_seconds=fifth, figure=figure)
        found["executor-1"] = Service(demand_seconds=demand, figure=truths[RAISES] * inline)
        found["executor-cores"] = Service(demand_seconds=demand, figure=truths[NOTHING_LEFT])
    else:
        found["inline-again"] = Service(demand_seconds=demand, figure=truths[NOTHING] * inline)
        found["inline-more"] = Service(demand_seconds=demand * truths[FOUND], figure=inline)
    return found


def per_cycle(summary: Summary, region: Region) -> list[float]:
    """The values that a claim is judged by, one for each cycle."""
    evidence = Evidence(summary)

    def ratios(variant: str, baseline: str, figure: Callable[[Block], float]) -> list[float]:
        above, below = evidence.blocks(variant), evidence.blocks(baseline)
        return [figure(above[cycle]) / figure(below[cycle]) for cycle in above if cycle in below]

    if region == INLINE_CAP:
        return [found.utilisation for found in evidence.blocks("inline").values()]
    if region == NOTHING_LEFT:
        cores = summary.plan.cores
        return [found.share_of_left(cores) for found in evidence.blocks("executor-cores").values()]
    if region == PUBLISHED:
        return ratios("executor-1-fifth", "inline", lambda found: found.steady_throughput)
    if region == FOUND:
        return ratios("inline-more", "inline", lambda found: found.steady_demand)
    variant = "executor-1" if region == RAISES else "inline-again"
    return ratios(variant, "inline", lambda found: found.utilisation)


@dataclasses.dataclass(slots=True)
class Tally:
    """What became of one claim in many runs."""

    runs: int = 0
    decided: int = 0
    wrong: int = 0
    covered: int = 0
    cycles: list[int] = dataclasses.field(default_factory=list)
    variances: list[float] = dataclasses.field(default_factory=list)

    def count(self, summary: Summary, finding: Finding, truth: float) -> None:
        """One more run."""
        region, estimate = finding.region, finding.estimate
        assert region is not None
        assert estimate is not None
        right = HELD if region.low <= truth <= region.high else DID_NOT_HOLD
        self.runs += 1
        self.decided += finding.verdict != INCONCLUSIVE
        on_an_end = math.isclose(truth, region.low) or math.isclose(truth, region.high)
        self.wrong += finding.verdict not in (right, INCONCLUSIVE) and not on_an_end
        self.covered += estimate.low <= truth <= estimate.high
        self.cycles.append(max(found.cycle for found in summary.blocks))
        self.variances.append(float(np.var(np.log(per_cycle(summary, region)), ddof=1)))


def simulate(case: Case, scenario: str, noise: Noise, runs: int, base_seed: int) -> dict[Region, Tally]:
    """So many runs of one case, one seed each."""
    tallies = {region: Tally() for region in case.told}
    for number in range(runs):
        seed = base_seed + number
        made = plan_of(case.preset, seed, noise.demand_seconds)
        summary = experiment(
            made,
            services(case.truths, noise.demand_seconds),
            noise,
            SCENARIOS[scenario],
            np.random.default_rng(seed),
        )
        for verdict in judge(summary, [rule for rule in rules_for(summary) if rule.by_interval]):
            region = verdict.finding.region
            if region in tallies:
                tallies[region].count(summary, verdict.finding, case.truths[region])
    return tallies


def row(case: Case, region: Region, scenario: str, sd: float | None, tally: Tally) -> dict[str, Any]:
    """The figures of one claim in one case."""
    return {
        "preset": case.preset,
        "scenario": scenario,
        "noise": sd,
        "claim": NAMES[region] + (", no difference" if math.isnan(case.off) else ""),
        "truth": round(case.truths[region], 4),
        "off": None if math.isnan(case.off) else case.off,
        "noise_found": round(math.sqrt(float(np.mean(tally.variances))), 4),
        "decided": tally.decided / tally.runs,
        "wrong": tally.wrong / tally.runs,
        "covered": tally.covered / tally.runs,
        "cycles": median(tally.cycles),
    }


def misses(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each target that a row does not reach."""
    found = []
    for line in rows:
        name = "{preset}, {scenario}, noise {noise}, {claim}, truth {truth:g}".format(**line)
        asked = bool(line["off"]) and line["noise_found"] <= QUIET * 1.05  # which is 4 % as far as is known
        if asked and line["decided"] < LEAST_DECIDED:
            found.append(f"{name}: only {line['decided']:.1%} decided")
        if line["wrong"] > MOST_WRONG:
            found.append(f"{name}: {line['wrong']:.1%} wrong")
        if line["covered"] < LEAST_COVERED:
            found.append(f"{name}: only {line['covered']:.1%} hold the truth")
    return found


def together(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each scenario, noise and claim: the worst over the places of the truth."""
    found = []
    keys = ("preset", "scenario", "noise", "claim")
    for names in dict.fromkeys(tuple(line[key] for key in keys) for line in rows):
        group = [line for line in rows if tuple(line[key] for key in keys) == names]
        off = [line["decided"] for line in group if line["off"] != 0]
        on_end = [line["decided"] for line in group if line["off"] == 0]
        found.append(
            {
                **dict(zip(keys, names, strict=True)),
                "noise_found": max(line["noise_found"] for line in group),
                "decided": min(off),
                "decided_on_an_end": max(on_end, default=None),
                "wrong": max(line["wrong"] for line in group),
                "covered": min(line["covered"] for line in group),
                "cycles": max(line["cycles"] for line in group),
            }
        )
    return found


def cell(job: tuple[Case, str, float | None, int]) -> list[dict[str, Any]]:
    """All rows of one case, scenario and noise."""
    case, scenario, sd, runs = job
    noise = real_noise()
    noise = noise if sd is None else noise.scaled(sd)
    return [
        row(case, region, scenario, sd, tally)
        for region, tally in simulate(case, scenario, noise, runs, 1).items()
    ]


def main() -> int:
    """Simulate everything and keep the figures; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.verdicts", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"of each kind (default: {RUNS})")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    arguments = parser.parse_args()
    jobs = [
        (case, scenario, sd, arguments.runs)
        for scenario in SCENARIOS
        for case in cases()
        for sd in NOISES[case.preset]
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for number, found in enumerate(pool.map(cell, jobs), 1):
            rows += found
            print(f"{number} of {len(jobs)}", file=sys.stderr, flush=True)
    failed = misses(rows)
    keep("verdicts", "make verdicts", {"runs": arguments.runs, "missed": failed, "rows": together(rows)})
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
