"""The tables of a report, as rows: variants, factors of each gain, the executor's cost, cases. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from loadtests.experiment.comebacks import outcome
from loadtests.experiment.evidence import Gain, UnusableError
from loadtests.experiment.plan import Plan, Trigger
from loadtests.experiment.recovery import Recovery
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


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryRow:
    """What a case answered per second before, in and after the trigger, its attempts per second after it."""

    title: str
    before: float
    during: float
    after: float
    attempts: float
    outcome: str


def recoveries(summary: Summary) -> list[RecoveryRow]:
    """All cases that were measured, void ones too, in the order in which they ran."""
    trigger = summary.plan.trigger
    return recovery_rows(trigger, summary.recoveries) if trigger is not None else []


def recovery_rows(trigger: Trigger, found: Iterable[Recovery]) -> list[RecoveryRow]:
    """A row for each of these; a void one says so."""
    titles = {case.name: case.title for case in trigger.cases}
    return [
        RecoveryRow(
            title=titles[one.case],
            before=one.before_per_second,
            during=one.during_per_second,
            after=one.after_per_second,
            attempts=one.attempts_after_per_second,
            outcome="void" if one.void_because else outcome(one),
        )
        for one in found
    ]


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


def heading(plan: Plan) -> str:
    """The experiment that a plan belongs to."""
    return "Accept All We Can" if plan.trigger is None else "The failure that does not go away"
