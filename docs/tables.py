"""Rewrites the tables of the README and of docs/proofs.md: `make docs`. A test compares them.

Each table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loadtests.experiment.presets import PRESETS
from loadtests.peers import report
from loadtests.peers.results import Results
from metrics.catalogue import CATALOGUE
from service.settings import Settings, shown_default
from service.sources import flag
from service.states import STATES, TRANSITIONS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PROOFS = ROOT / "docs/proofs.md"


def settings_table() -> str:
    """Flag, default and meaning of every setting of the service."""
    lines = ["| flag | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{flag(name)}` | {shown_default(name)} | {field.description} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Name, type and question of every metric."""
    lines = ["| metric | type | the question it answers |", "| --- | --- | --- |"]
    for row in CATALOGUE:
        labels = "{" + ",".join(row.labels) + "}" if row.labels else ""
        lines.append(f"| `{row.name}{labels}` | {row.type} | {row.question} |")
    return "\n".join(lines)


def states_table() -> str:
    """The life of a service as a diagram, and what probes are told in each state."""
    steps = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TRANSITIONS.items()
    ]
    diagram = ["```mermaid", "stateDiagram-v2", "    [*] --> starting", *steps, "    stopped --> [*]", "```"]
    lines = [
        "| state | ready | alive (/healthz of the admin port) | what happens |",
        "| --- | --- | --- | --- |",
    ]
    for state, row in STATES.items():
        alive = "if the loop turns" if row.watched else "yes"
        lines.append(f"| {state.value} | {'yes' if row.ready else 'no'} | {alive} | {row.meaning} |")
    return "\n".join([*diagram, "", *lines])


def presets_table() -> str:
    """The presets of the experiment."""
    rows = [f"| `{name}` | {preset.question} |" for name, preset in PRESETS.items()]
    return "\n".join(["| preset | what it asks |", "| --- | --- |", *rows])


def verdict_text() -> str:
    """The verdict of the committed run."""
    return "```text\n" + (ROOT / "docs/runs/quick/verdict.txt").read_text(encoding="utf-8") + "```"


def proof_table(name: str) -> str:
    """The figures of one proof as it was last run in full."""
    kept = json.loads((ROOT / f"docs/proofs/{name}.json").read_text(encoding="utf-8"))
    machine = kept["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}"
    lines = [f"`{kept['command']}`, {kept['date'][:10]}, {where}", "", "| figure | value |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {label} | {value} |" for label, value in _rows("", kept["figures"]))])


def _rows(label: str, value: Any) -> Iterator[tuple[str, str]]:
    """A line per figure; what belongs together is joined by commas."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = str(key).replace("_", " ")
            yield from _rows(f"{label}: {name}" if label else name, inner)
    elif isinstance(value, list):
        yield label, ", ".join(map(str, value))
    else:
        yield label, f"{value:g}" if isinstance(value, float) else str(value)


def peers_table() -> str:
    """Our service beside the usual designs, as `make peers` last measured them."""
    results = Results.from_json(json.loads((ROOT / "docs/proofs/peers.json").read_text(encoding="utf-8")))
    where = "{cpu}, {cores} cores, {kernel}, {python}".format(**results.environment)
    date, plan = results.environment["date"][:10], results.plan
    head = f"`make peers`, {date}, {where}; cycles: {plan.cycles}, blocks of {plan.measured_seconds:g} s"
    return "\n\n".join([head, report.markdown(results), " ".join(report.notes(results))])


def verdicts_table() -> str:
    """How often the verdict of a made-up experiment decides and is wrong, as `make verdicts` last found."""
    kept = json.loads((ROOT / "docs/proofs/verdicts.json").read_text(encoding="utf-8"))
    lines = [
        f"`{kept['command']}`, {kept['date'][:10]}, {kept['figures']['runs']} runs of each kind",
        "",
        "| S | noise per cycle | claim | decided 5 % off | on an end | wrong | holds the truth | cycles |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in kept["figures"]["rows"]:
        noise = "as measured" if row["noise"] is None else f"{row['noise']:.0%}"
        shares = (
            "" if row[name] is None else f"{row[name]:.1%}"
            for name in ("decided", "decided_on_an_end", "wrong", "covered")
        )
        cells = [row["scenario"], f"{noise}: {row['noise_found']:.1%}", row["claim"], *shares]
        lines.append("| " + " | ".join([*cells, f"{row['cycles']:g}"]) + " |")
    return "\n".join(
        [*lines, "", *(f"Missed: {sentence}" for sentence in kept["figures"]["missed"])]
    ).rstrip()


PROOF_NAMES = (
    *("front-door", "fuzz", "accept-bench", "memory", "hand-over", "faults", "soak", "restarts"),
    "io-processes",
)
Tables = dict[str, Callable[[], str]]
PAGES: dict[Path, Tables] = {
    README: {
        "verdict": verdict_text,
        "presets": presets_table,
        "states": states_table,
        "settings": settings_table,
        "metrics": metrics_table,
    },
    PROOFS: {name: functools.partial(proof_table, name) for name in PROOF_NAMES}
    | {"peers": peers_table, "verdicts": verdicts_table},
}


def rewrite(text: str, tables: Tables) -> str:
    """A page with every table as the code has it.

    Raises:
        ValueError: a table's markers are missing.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the page must have the markers of the table {name!r} once")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(rewrite(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
