"""Renders report.html: one self-contained page, drawn from the summary alone.

Knows the template and what a reader should know of the run. Reads the template and touches nothing else.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Final

from loadtests.experiment import tables
from loadtests.experiment.evidence import ledger, ledger_gaps
from loadtests.experiment.figures import as_svg
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import answer, judge
from loadtests.pages import frame

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
CAPTIONS: Final = {
    "cycles": "Every cycle measures each variant once, seconds apart. Throughput moves with the speed of the "
    "machine; U, the CPU seconds of work per second, does not, because a slow clock stretches the work and "
    "everything else alike. Hollow points are void (a neighbour, stolen time) and were measured again.",
    "queues": "Connections under overload. Above: offered, accepted and completed since the phase began; the "
    "shaded area between accepted and completed is in flight. Below: where connections wait.",
    "recovery": "Each case by itself: answers per second, below them attempts per second. The load is above "
    "the limit in the shaded seconds only; dotted is the base load before and after them. With retries there "
    "are more attempts than requests.",
    "ramp": "Offered, accepted and completed per second while the rate rises from phase to phase. Where "
    "completed leaves offered, capacity ends; where accepted leaves completed, the queue stands inside the "
    "service.",
    "latency": "Each point is one phase at a share of the throughput just measured. Latency counts from the "
    "moment a request was due, so it includes the wait for a full service. No verdict depends on it.",
    "cpu": "Cores used by the work itself, by the rest of the IO process (accepting, parsing, answering, "
    "handing over) and by the load generator, which shares the machine; medians over the blocks.",
}


def render(summary: Summary) -> str:
    """The page as HTML."""
    invalid = summary.status.state == "invalid"
    return frame.render(
        TEMPLATE,
        as_svg(summary),
        summary=summary,
        plan=summary.plan,
        factors={
            name: "calibrated" if value is None else value
            for name, value in dataclasses.asdict(summary.plan.factors).items()
        },
        environment=summary.environment,
        phases=summary.phases,
        verdicts=[] if invalid else judge(summary),
        answer=None if invalid else answer(summary),
        variants=tables.variants(summary),
        gains=tables.gains(summary),
        beside=tables.beside(summary),
        heading=tables.heading(summary.plan),
        recoveries=tables.recoveries(summary),
        captions=CAPTIONS,
        totals=ledger(summary),
        gaps=ledger_gaps(summary),
        outcomes=_outcomes(summary),
        cautions=_cautions(summary),
        titles={variant.name: variant.title for variant in summary.plan.variants},
    )


def _outcomes(summary: Summary) -> Counter[str]:
    total = Counter[str]()
    of_loads = [*(p.outcomes for p in summary.phases), *(one.outcomes for one in summary.recoveries)]
    for outcomes in (*(b.outcomes for b in summary.blocks), *of_loads):
        total.update(outcomes)
    return total


def _cautions(summary: Summary) -> list[str]:
    """What a reader should know before quoting a figure; no sentence occurs twice."""
    cautions = [f"{phase.id} is invalid: {why}" for phase in summary.phases for why in phase.invalid_because]
    cautions += [f"{one.case} is void: {why}" for one in summary.recoveries for why in one.void_because]
    void = Counter(block.void_because[0] for block in summary.blocks if block.void_because)
    cautions += [f"{count} blocks were void and do not count: {why}." for why, count in void.most_common(5)]
    if summary.environment.load_average > 0.5:
        load = summary.environment.load_average
        cautions.append(f"The machine was not idle before the run: load average {load:.1f}.")
    if summary.environment.cores <= 4:
        cautions.append(
            f"Generator, service and workers shared {summary.environment.cores:g} cores: "
            "quote ratios, not absolute rates."
        )
    return cautions
