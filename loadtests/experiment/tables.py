"""The tables of a report, as rows: each variant, the factors of each gain, the executor's cost. Pure."""

from __future__ import annotations

import dataclasses

from loadtests.experiment.evidence import Gain, UnusableError
from loadtests.experiment.results import Kill, Summary
from loadtests.experiment.verdict import evidence_of


@dataclasses.dataclass(frozen=True, slots=True)
class VariantRow:
    """Typical figures of one variant over its blocks; `left`: U as a share of the cores left over."""

    title: str
    workers: int
    throughput_per_second: float
    utilisation: float
    demand_seconds: float
    io_seconds_per_request: float
    left: float
    blocks: int


@dataclasses.dataclass(frozen=True, slots=True)
class GainRow:
    """The gain of one variant over the first one with the same work function."""

    variant: str
    baseline: str
    gain: Gain


def variants(summary: Summary) -> list[VariantRow]:
    """All variants with blocks, in the order of the plan."""
    evidence, rows = evidence_of(summary), []
    for variant in summary.plan.variants:
        blocks = evidence.blocks(variant.name)
        if blocks:
            rows.append(
                VariantRow(
                    title=variant.title,
                    workers=variant.workers,
                    throughput_per_second=evidence.typical(
                        variant.name, lambda block: block.throughput_per_second
                    ).value,
                    utilisation=evidence.typical(variant.name, lambda block: block.utilisation).value,
                    demand_seconds=evidence.typical(variant.name, lambda block: block.demand_seconds).value,
                    io_seconds_per_request=evidence.typical(
                        variant.name, lambda block: max(block.io_seconds_per_request, 1e-9)
                    ).value,
                    left=evidence.share_of_left(variant.name).value,
                    blocks=len(blocks),
                )
            )
    return rows


def gains(summary: Summary) -> list[GainRow]:
    """The gain of every measured variant over the first one of the plan with the same work function."""
    plan, evidence, rows = summary.plan, evidence_of(summary), []
    names = plan.measured or (plan.ramp.variants if plan.ramp is not None else ())
    first: dict[str, str] = {}  # of each work function
    for name in names:
        baseline = first.setdefault(plan.variant(name).work, name)
        if name != baseline:
            try:
                rows.append(GainRow(name, baseline, evidence.gain(name, baseline)))
            except UnusableError:
                continue
    return rows


def beside(summary: Summary) -> str | None:
    """The cost of the stock executor beside the lanes, in one or two sentences; None if not measured."""
    if not summary.plan.beside:
        return None
    evidence = evidence_of(summary)
    stock, lanes = summary.plan.beside
    try:
        costs = [
            evidence.typical(name, lambda block: max(block.io_seconds_per_request, 1e-9), ("beside",)).value
            for name in (stock, lanes)
        ]
    except UnusableError:
        return None
    text = (
        f"The stock executor beside our lanes, one worker each: {costs[0] * 1e6:.0f} against "
        f"{costs[1] * 1e6:.0f} us of CPU of the IO process per request ({costs[0] / costs[1]:.2f}x, "
        f"{len(evidence.blocks(stock, ('beside',)))} pairs)."
    )
    kills = {kill.variant: kill for kill in summary.kills}
    if stock in kills and lanes in kills:
        text += f" One killed worker: {_killed(kills[stock])} against {_killed(kills[lanes])}."
    return text


def _killed(kill: Kill) -> str:
    return f"{kill.failed} requests failed and the longest took {kill.longest_seconds * 1e3:.0f} ms"
