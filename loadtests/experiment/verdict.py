"""Judges the claims of a plan from a summary. Pure.

Knows the level, and what to say if the data do not suffice. The claims are in claims.py.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from loadtests.experiment.claims import RULES, Rule
from loadtests.experiment.evidence import Evidence, Gain, UnusableError
from loadtests.experiment.finding import INCONCLUSIVE, Finding
from loadtests.experiment.results import Summary
from loadtests.experiment.statistics import Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One claim, judged."""

    claim: str
    source: Literal["post", "offloop"]
    finding: Finding

    @property
    def verdict(self) -> str:
        """Held, did not hold, or inconclusive."""
        return self.finding.verdict


def rules_for(summary: Summary) -> list[Rule]:
    """The rules that a plan can decide: it measures blocks, or overloads, of all variants that they need;
    or it has these cases.
    """
    plan = summary.plan
    ramped = plan.ramp.variants if plan.ramp is not None else ()
    cases = [case.name for case in plan.trigger.cases] if plan.trigger is not None else []
    return [
        rule
        for rule in RULES
        if set(rule.needs) <= {*ramped, *cases, *(plan.measured if rule.by_interval else plan.overloaded)}
    ]


def evidence_of(summary: Summary) -> Evidence:
    """The evidence, with the level shared by all claims that are judged by an interval."""
    return Evidence(summary, sum(rule.by_interval for rule in rules_for(summary)))


def judge(summary: Summary, rules: list[Rule] | None = None) -> list[Verdict]:
    """A verdict on every claim that the plan can decide, in the order of `RULES`; or only on `rules`."""
    evidence = evidence_of(summary)
    verdicts = []
    for rule in rules_for(summary) if rules is None else rules:
        try:
            finding = rule.judge(evidence)
        except UnusableError as problem:
            why = str(problem)
            why = f"{why[0].upper()}{why[1:]}."
            finding = Finding(verdict=INCONCLUSIVE, numbers="No usable data", why=why)
        verdicts.append(Verdict(claim=rule.claim, source=rule.source, finding=finding))
    return verdicts


def undecided(summary: Summary) -> frozenset[str]:
    """The variants of undecided claims, of which more blocks are needed."""
    by_interval = [rule for rule in rules_for(summary) if rule.by_interval]
    verdicts = zip(by_interval, judge(summary, by_interval), strict=True)
    return frozenset(
        name for rule, verdict in verdicts if verdict.verdict == INCONCLUSIVE for name in rule.needs
    )


def answer(summary: Summary) -> str | None:
    """The answer to the 5.2x question, from the measurement; None if the plan does not ask it."""
    planned = {variant.name for variant in summary.plan.variants}
    if not planned.issuperset(("inline", "executor-1", "executor-cores", "executor-1-fifth")):
        return None
    evidence = evidence_of(summary)
    try:
        published = evidence.gain("executor-1-fifth", "inline")
        controlled = evidence.gain("executor-1", "inline")
        cores = evidence.gain("executor-cores", "inline")
        work_alone = evidence.ratio("executor-1-fifth", "executor-1", lambda block: block.steady_throughput)
    except UnusableError as problem:
        return f"Where the 5.2x comes from cannot be said from this run: {problem}."
    number = evidence.plan.variant("executor-cores").workers
    return (
        f"As published, with a fifth of the work per offloaded request, one worker gives "
        f"{published.steady}x. With the same work on both sides it gives {controlled.utilisation}x, and "
        f"{number} workers give {cores.utilisation}x on {evidence.plan.cores:g} cores. The smaller work "
        f"alone, one worker beside one worker, gives {work_alone}x. {_explained(work_alone, controlled)}"
    )


def _explained(work_alone: Estimate, controlled: Gain) -> str:
    if not (work_alone.finite and controlled.utilisation.finite):
        return f"{work_alone.count} cycles are too few to say more."
    if work_alone.low > controlled.utilisation.high:
        return (
            "The published gain is the smaller work; what offloading itself brings is a free loop, and the "
            "other cores once there are workers for them."
        )
    return "On this machine the work alone does not explain the published gain."
