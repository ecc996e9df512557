"""Draws the report of a run from its summary alone: verdict.txt and the figures.

Knows how verdicts, table and ledger read as text. Touches files in the run folder only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from loadtests import figures, results
from loadtests.folder import RunFolder
from loadtests.verdict import Evidence, UnusableError, answer, judge, ledger_gaps

WIDTH = 78
MARKS = {"held": "+", "did not hold": "-", "inconclusive": "?"}


def draw(folder: RunFolder) -> tuple[dict[str, Any], str]:
    """Write verdict.txt and the figures; return the summary and the text.

    Raises:
        FolderError: the folder holds no readable run.
    """
    has_summary = (folder.path / "summary.json").exists()
    summary = folder.read("summary.json") if has_summary else results.build(folder)
    text = as_text(summary)
    (folder.path / "verdict.txt").write_text(text, encoding="utf-8")
    if summary["phases"]:
        figures.draw(summary, folder.path)
    return summary, text


def is_invalid(summary: dict[str, Any]) -> bool:
    """Whether a phase was invalid even when repeated, or the books do not close."""
    return any(phase["state"] == "invalid" for phase in summary["phases"]) or bool(ledger_gaps(summary))


def as_text(summary: dict[str, Any]) -> str:
    """The whole verdict as plain text of at most 80 columns."""
    return (
        "\n".join([*_head(summary), "", *_verdicts(summary), *_table(summary), "", *_ledger(summary)]) + "\n"
    )


def _head(summary: dict[str, Any]) -> Iterator[str]:
    plan, machine, status = summary["plan"], summary["environment"], summary["status"]
    title = f"Accept All We Can, preset {plan['preset']}"
    if status["state"] != "complete":
        title += f" ({status['state'].upper()}: {len(summary['phases'])} phases measured)"
    yield title
    yield from _wrap(
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, "
        f"{machine['python']}; S = {plan['s_seconds'] * 1e3:.2f} ms of CPU per request by calibration"
    )


def _verdicts(summary: dict[str, Any]) -> Iterator[str]:
    for verdict in judge(summary):
        mark = f"{MARKS[verdict.verdict]} {verdict.verdict.upper():<13} "
        yield from textwrap.wrap(verdict.claim, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))
        yield from _wrap(f"{verdict.numbers}. {verdict.why}", indent="    ")
    yield ""
    yield "Where does the 5.2x come from?"
    yield from _wrap(answer(summary), indent="    ")
    yield ""


def _table(summary: dict[str, Any]) -> Iterator[str]:
    """Capacity by variant, beside the limit it cannot pass."""
    evidence = Evidence(summary)
    yield f"{'variant':<34}{'capacity':>10}{'of workers/S':>14}{'S':>10}"
    titles = {visit["variant"]["name"]: visit["variant"]["title"] for visit in summary["plan"]["visits"]}
    for name, title in titles.items():
        try:
            capacity, share = max(evidence.capacities(name).values()), evidence.share_of_limit(name)
        except UnusableError:
            continue
        costs = [p["s_seconds"] for p in summary["phases"] if p["variant"] == name and p["s_seconds"]]
        s_ms = sum(costs) / len(costs) * 1e3
        yield f"{title:<34}{capacity:>8.0f}/s{share!s:>14}{s_ms:>7.2f} ms"


def _ledger(summary: dict[str, Any]) -> Iterator[str]:
    totals = {
        name: sum(phase["ledger"][name] for phase in (*summary["phases"], *summary["discarded"]))
        for name in (
            "planned",
            "sent",
            "not_sent",
            "connected",
            "never_connected",
            "accepted",
            "completed",
            "half_open",
        )
    }
    yield from _wrap(
        f"Ledger: planned {totals['planned']} = sent {totals['sent']} + not sent {totals['not_sent']}; "
        f"sent = connected {totals['connected']} + never connected {totals['never_connected']}; "
        f"connected = accepted {totals['accepted']} + half-open {totals['half_open']}; "
        f"accepted = completed {totals['completed']}."
    )
    gaps = ledger_gaps(summary)
    yield from gaps or ["No connection is unexplained."]
    invalid = [phase for phase in summary["phases"] if phase["state"] == "invalid"]
    for phase in invalid:
        yield from _wrap(f"INVALID {phase['id']}: {' '.join(phase['invalid_because'])}")


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
