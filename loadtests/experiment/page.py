"""Renders report.html: one self-contained page, drawn from the summary alone.

Knows the template and how a drawing takes on the page's colours, light or dark. Touches nothing but
the template; the page loads nothing from anywhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests.experiment.evidence import Evidence, Summary, ledger_gaps, ledger_totals
from loadtests.experiment.figures import COLOURS, as_svg
from loadtests.experiment.verdict import answer, judge

TEMPLATE: Final = "report.html.j2"
CAPTIONS: Final = {
    "queues": "The life of a connection under overload. Above: connections offered, accepted and completed "
    "since the phase began; the shaded lead of accepted over completed is what the service holds. Below: "
    "where they wait.",
    "ramp": "Offered, accepted and completed per second while the rate rises from phase to phase. Where "
    "completed leaves offered, capacity ends; where accepted leaves completed, the queue stands inside the "
    "service.",
    "capacity": "Each point is one phase. Latency counts from the moment a request was meant to be sent, so "
    "waiting for a full service is in it. Capacity is the most answers within the SLO per second; the limit "
    "is workers / S, with S from the workers' own CPU time.",
    "cpu": "Cores used by the work itself, by the rest of the IO process (accepting, parsing, answering, "
    "handing over) and by the load generator, which shares the machine.",
}


def render(summary: Summary) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawings = {name: Markup(_themed(svg)) for name, svg in as_svg(summary).items()}  # our own SVG
    phases = summary["phases"]
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        plan=summary["plan"],
        phases=phases,
        verdicts=judge(summary),
        answer=answer(summary),
        capacities=Evidence(summary).capacity_table(),
        drawings=drawings,
        captions=CAPTIONS,
        totals=ledger_totals(summary),
        gaps=ledger_gaps(summary),
        outcomes=sum((Counter(phase["outcomes"]) for phase in phases), Counter()),
        cautions=_cautions(summary),
        titles={visit["variant"]["name"]: visit["variant"]["title"] for visit in summary["plan"]["visits"]},
    )


def _themed(svg: str) -> str:
    """The drawing with the page's colours instead of its own, and without the XML prologue."""
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg[svg.index("<svg") :]


def _cautions(summary: Summary) -> list[str]:
    """What a reader should know before quoting a figure, each sentence once."""
    cautions = [
        f"{phase['id']} is invalid: {why}" for phase in summary["phases"] for why in phase["invalid_because"]
    ]
    cautions += [
        f"{phase['id']} was invalid and repeated: {' '.join(phase['invalid_because'])}"
        for phase in summary["discarded"]
    ]
    stolen = summary["status"].get("stolen_cpu_seconds")
    if stolen and stolen >= 0.1:
        cautions.append(f"The hypervisor gave {stolen:.1f} CPU seconds of this run to somebody else.")
    load = summary["environment"]["load_average"][0]
    if load > 0.5:
        cautions.append(f"The machine was not idle before the run: load average {load:.1f}.")
    if summary["environment"]["cores"] <= 4:
        cautions.append(
            f"Generator, service and workers shared {summary['environment']['cores']} cores: "
            "quote ratios, not absolute rates."
        )
    return cautions
