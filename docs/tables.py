"""Rewrites the generated tables of the README and of the pages: `make docs`. A test compares them.

Each table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loadtests.experiment.finding import HELD
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.verdict import judge
from loadtests.peers import report
from loadtests.peers.results import Results
from metrics.catalogue import CATALOGUE
from service.config.settings import Settings, shown_default
from service.config.sources import flag
from service.lifecycle.states import STATES, TRANSITIONS
from service.web import exchange
from tests.proofs.fuzz_oracle import ONLY_H11_ROWS, ROWS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
QUICK = DOCS / "runs/quick"
METASTABLE = DOCS / "runs/metastable"


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
        ready = alive if row.ready else "no"
        lines.append(f"| {state.value} | {ready} | {alive} | {row.meaning} |")
    return "\n".join([*diagram, "", *lines])


def exchange_table() -> str:
    """The life of a connection as a diagram, and what each of its states means.

    What all states of a group have in common is one arrow; a state that leads to itself is none.
    """
    moves, event_of = exchange.MOVES, exchange.Event
    before = [state for state in exchange.State if (state, event_of.REQUEST) in moves]
    at_work = [
        state for state in exchange.State if (state, event_of.ANSWERED) in moves and state not in before
    ]
    groups = {"waiting": before, "answering": at_work}
    alike: dict[tuple[str, Any], list[Any]] = {}
    for (state, event), step in moves.items():
        if event is not event_of.LOST:  # which leads from everywhere to the end
            acts = step.action is not exchange.Action.NOTHING
            action = f" ({step.action.name.lower().replace('_', ' ')})" if acts else ""
            alike.setdefault((event.value + action, step.state), []).append(state)
    arrows: dict[tuple[str, str], list[str]] = {}
    for (label, after), states in alike.items():
        left = list(states)
        for group, members in groups.items():
            if set(members) <= set(states):
                arrows.setdefault((group, after.value), []).append(label)
                left = [state for state in left if state not in members]
        for state in left:
            if state is not after:
                arrows.setdefault((state.value, after.value), []).append(label)
    first, *_, last = exchange.State
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}"]
    for group, members in groups.items():
        lines += [f"    state {group} {{", *(f"        {state.value}" for state in members), "    }"]
    lines += [f"    {start} --> {after}: {' / '.join(labels)}" for (start, after), labels in arrows.items()]
    lines += [
        f"    {last.value} --> [*]",
        "```",
        "",
        "| state | deadline | what it means |",
        "| --- | --- | --- |",
    ]
    for state, row in exchange.STATES.items():
        lines.append(f"| {state.value} | {row.stage.value if row.stage else '-'} | {row.meaning} |")
    return "\n".join(lines)


def presets_table() -> str:
    """The presets of the experiment."""
    rows = [f"| `{name}` | {preset.question} |" for name, preset in PRESETS.items()]
    return "\n".join(["| preset | what it asks |", "| --- | --- |", *rows])


def found_table() -> str:
    """Each claim of the committed run, with its verdict and why."""
    summary = RunFolder(QUICK).summary()
    machine = summary.environment
    lines = [
        f"`make experiment`, {machine.date[:10]}, {machine.cpu}, {machine.cores:g} cores:",
        "",
        "| claim | verdict | why |",
        "| --- | --- | --- |",
        *(
            f"| {one.claim} | {verdict if verdict == HELD else f'**{verdict}**'} | {one.finding.why} |"
            for one in judge(summary)
            for verdict in [one.verdict]
        ),
    ]
    return "\n".join(lines)


def verdict_text() -> str:
    """The verdict of the committed run."""
    return "```text\n" + (QUICK / "verdict.txt").read_text(encoding="utf-8") + "```"


def metastable_text() -> str:
    """Picture and verdict of the committed run of `metastable`, if there is one."""
    if not METASTABLE.exists():
        return "`make metastable` has not been run in full yet."
    picture = "![Each case: answers and attempts per second](runs/metastable/recovery.png)"
    verdict = (METASTABLE / "verdict.txt").read_text(encoding="utf-8")
    return f"{picture}\n\n```text\n{verdict}```\n\n{_comebacks()}"


def _comebacks() -> str:
    """What all kept runs of the preset said."""
    kept = json.loads((ROOT / "docs/proofs/repeats.json").read_text(encoding="utf-8"))
    found = kept["figures"]["metastable"]
    rows = [f"| {claim} | {told} |" for claim, told in found["verdicts"].items()]
    head = f"What {found['runs']} runs in a row said, `make comebacks`:"
    return "\n".join([head, "", "| claim | verdicts |", "| --- | --- |", *rows])


def proof_table(name: str) -> str:
    """The figures of one proof as it was last run in full."""
    kept = json.loads((ROOT / f"docs/proofs/{name}.json").read_text(encoding="utf-8"))
    lines = [_origin(kept), "", "| figure | value |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {label} | {value} |" for label, value in _rows("", kept["figures"]))])


def _origin(kept: dict[str, Any]) -> str:
    """By which command the figures of a proof were found, when, and on what."""
    machine = kept["machine"]
    where = f"{machine['cpu']}, {machine['cores']:g} cores, {machine['kernel']}, {machine['python']}"
    return f"`{kept['command']}`, {kept['date'][:10]}, {where}"


def _rows(label: str, value: Any) -> Iterator[tuple[str, str]]:
    """A line per figure; what belongs together is joined by commas."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = str(key).replace("_", " ")
            yield from _rows(f"{label}: {name}" if label else name, inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value, 1):
            yield f"{label}: {number}", ", ".join(f"{name} {figure}" for name, figure in inner.items())
    elif isinstance(value, list):
        yield label, ", ".join(map(str, value))
    else:
        yield label, f"{value:g}" if isinstance(value, float) else str(value)


def engines_table() -> str:
    """What each executor did, as `make executors` last found; and Dask beside the stock one."""
    file = ROOT / "docs/proofs/executors.json"
    if not file.exists():
        return "`make executors` has not been run in full yet."
    kept = json.loads(file.read_text(encoding="utf-8"))
    table: dict[str, dict[str, Any]] = kept["figures"]["executors"]
    asked = list(next(iter(table.values())))
    lines = [_origin(kept), "", f"| executor | {' | '.join(asked)} |", "| --- " * (len(asked) + 1) + "|"]
    for name, cells in table.items():
        told = ("; ".join(f"{label}: {value}" for label, value in cells[one].items()) for one in asked)
        lines.append(f"| {name} | {' | '.join(told)} |")
    rest = {key: kept["figures"][key] for key in ("pairs", "engine lost")}
    lines += ["", "| Dask | value |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {label} | {value} |" for label, value in _rows("", rest))])


def worked_table() -> str:
    """For work of so many ms: what one core does, how many cores one IO process feeds, what Dask leaves."""
    kept = json.loads((ROOT / "docs/proofs/hand-over.json").read_text(encoding="utf-8"))
    ceiling = kept["figures"]["whole requests"]["connection per request"]["ceiling per second"]
    lines = [
        f"One IO process feeds at most {ceiling} requests/s on as many connections ({_origin(kept)}). "
        f"For Dask {DASK_MS} ms a task are assumed.",
        "",
        "| S | one core: 1/S | cores that one IO process feeds | time that a Dask worker works | take |",
        "| --- | --- | --- | --- | --- |",
    ]
    for ms, engine in WORK_MS.items():
        cores, share = ceiling * ms / 1e3, ms / (ms + DASK_MS)
        lines.append(f"| {ms:g} ms | {1e3 / ms:g}/s | {round(cores, 1):g} | {share:.0%} | {engine} |")
    return "\n".join(lines)


def peers_table() -> str:
    """Our service beside the usual designs, as `make peers` last measured them."""
    results = Results.from_json(json.loads((ROOT / "docs/proofs/peers.json").read_text(encoding="utf-8")))
    where = "{cpu}, {cores} cores, {kernel}, {python}".format(**results.environment)
    date, plan = results.environment["date"][:10], results.plan
    head = f"`make peers`, {date}, {where}; cycles: {plan.cycles}, blocks of {plan.measured_seconds:g} s"
    return "\n\n".join([head, report.markdown(results), " ".join(report.notes(results))])


def known_answers_table() -> str:
    """What the generator made of a server that is known, as `make known-answers` last found."""
    kept = json.loads((ROOT / "docs/proofs/known-answers.json").read_text(encoding="utf-8"))
    figures = kept["figures"]
    names = ("p50", "p90", "p99", "max")
    took = ", ".join(f"{name} {us}" for name, us in figures["delivery us, at most"].items())
    lines = [
        f"{_origin(kept)}; each {figures['runs']} times. A client that only reads took at most (us): {took}",
        "",
        "| the server | outcomes | " + " | ".join(names) + " | above the bracket |",
        "| --- | --- |" + " --- |" * len(names) + " --- |",
    ]
    for case, row in figures["cases"].items():
        outcomes = ", ".join(f"{count} {label}" for label, count in row["outcomes"].items())
        cells = [
            " / ".join(f"{us / 1e3:.2f}" for us in row["us"][name]) if name in row["us"] else "never"
            for name in names
        ]
        lines.append(f"| {' | '.join([case, outcomes, *cells, ', '.join(row['faults']) or 'none'])} |")
    return "\n".join(lines)


def verdicts_table() -> str:
    """How often the verdict of a made-up experiment decides and is wrong, as `make verdicts` last found.

    The worst of all ways in which S drifts.
    """
    kept = json.loads((ROOT / "docs/proofs/verdicts.json").read_text(encoding="utf-8"))
    rows = kept["figures"]["rows"]
    lines = [
        f"`{kept['command']}`, {kept['date'][:10]}, {kept['figures']['runs']} runs of each kind",
        "",
        "| preset | noise per cycle | claim | decided 5 % off | wrong | holds the truth | cycles |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("preset", "noise", "claim")
    for names in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        group = [row for row in rows if tuple(row[key] for key in keys) == names]
        preset, noise, claim = names
        asked = "as measured" if noise is None else f"{noise:.0%}"
        cells = [
            preset,
            f"{asked}: {max(row['noise_found'] for row in group):.1%}",
            claim,
            f"{min(row['decided'] for row in group):.1%}",
            f"{max(row['wrong'] for row in group):.1%}",
            f"{min(row['covered'] for row in group):.1%}",
            f"{max(row['cycles'] for row in group):g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences_table() -> str:
    """What one of h11 and our parser refuses and the other does not, and why."""
    lines = ["| what | who refuses it | why |", "| --- | --- | --- |"]
    for who, rows in (("ours", ROWS), ("h11", ONLY_H11_ROWS)):
        lines += [f"| {row.name} | {who} | {row.argument} |" for row in rows]
    return "\n".join(lines)


def repeats_table() -> str:
    """What each claim was told in run after run, and between which figures, as last repeated."""
    kept = json.loads((ROOT / "docs/proofs/repeats.json").read_text(encoding="utf-8"))
    lines = [_origin(kept)]
    for name, found in kept["figures"].items():
        rows = found["rows"]
        states = collections.Counter(row["state"] for row in rows)
        told = ", ".join(f"{count} {state}" for state, count in states.items())
        seconds = [row["seconds"] for row in rows]
        void = sum(row["void"] for row in rows)
        blocks = sum(row["blocks"] for row in rows)
        lines += [
            "",
            f"**{name}**: {told}; {min(seconds)} to {max(seconds)} s a run; {void} of {blocks} blocks void",
            "",
        ]
        if found["verdicts"]:
            lines += ["| claim | verdicts | estimates | widest interval |", "| --- | --- | --- | --- |"]
        for claim, verdicts in found["verdicts"].items():
            estimates = [row[claim].partition(": ")[2] for row in rows if claim in row]
            lines.append(f"| {claim} | {verdicts} | {_spread([text for text in estimates if text])} |")
        because = collections.Counter(row["because"] for row in rows if "because" in row)
        lines += [f"- {reason}" for reason in because]
    return "\n".join(lines)


def _spread(estimates: list[str]) -> str:
    """The smallest and the largest of estimates such as `1.10 (1.08 to 1.14)`, and the widest interval."""
    if not estimates:
        return "- | -"
    values = [float(text.split()[0]) for text in estimates]
    widest = max(estimates, key=_width)
    return f"{min(values):.2f} to {max(values):.2f} | {widest}"


def _width(estimate: str) -> float:
    low, _, high = estimate.partition("(")[2].rstrip(")").partition(" to ")
    return float(high) / float(low) if high else 0.0


DASK_MS = 10
"""What a task costs its worker in Dask, whatever it does: the way to the scheduler and back."""
WORK_MS = {
    0.5: "`process`; more: several IO processes",
    4: "`process`; more: several IO processes, then replicas behind a balancer",
    40: "`process`; more: replicas behind a balancer",
    200: "`process`; more machines: Dask, or replicas",
    1000: "`process`; more machines: Dask",
}
"""Which engine is for which S, in ms."""

PROOF_NAMES = (
    *("front-door", "fuzz", "accept-bench", "memory", "hand-over", "faults", "soak", "restarts"),
    *("io-processes", "chaos", "goodbyes", "lossy", "guided-fuzz", "refusals", "replicas"),
    *("overload", "priorities", "retries"),
    *("beside-tools", "generator", "invalid", "capacity", "profile"),
)
Tables = dict[str, Callable[[], str]]
PAGES: dict[Path, Tables] = {
    README: {"found": found_table},
    DOCS / "experiments.md": {"verdict": verdict_text, "presets": presets_table},
    DOCS / "metastable.md": {"metastable": metastable_text},
    DOCS / "engines.md": {"worked": worked_table, "engines": engines_table},
    DOCS / "operations.md": {"states": states_table},
    DOCS / "design.md": {"exchange": exchange_table},
    DOCS / "settings.md": {"settings": settings_table},
    DOCS / "metrics.md": {"metrics": metrics_table},
    DOCS / "proofs.md": {name: functools.partial(proof_table, name) for name in PROOF_NAMES}
    | {"peers": peers_table, "verdicts": verdicts_table, "repeats": repeats_table}
    | {"known-answers": known_answers_table, "differences": differences_table},
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
