"""Draws the report of a run from its summary alone: verdict.txt, report.html and the figures.

Knows how verdicts, table and ledger read as text. Touches files in the run folder only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from loadtests.experiment import figures, page, results
from loadtests.experiment.evidence import Evidence, ledger_gaps, ledger_totals
from loadtests.experiment.folder import FolderError, RunFolder
from loadtests.experiment.verdict import answer, judge

WIDTH = 78
MARKS = {"held": "+", "did not hold": "-", "inconclusive": "?"}


def draw(folder: RunFolder) -> tuple[dict[str, Any], str]:
    """Write verdict.txt and the figures; return the summary and the text.

    Raises:
        FolderError: the folder holds no readable run.
    """
    has_summary = (folder.path / "summary.json").exists()
    summary = folder.read("summary.json") if has_summary else results.build(folder)
    if not {"plan", "environment", "status", "phases", "discarded"} <= set(summary):
        raise FolderError(
            f"{folder.path} holds no experiment, but perhaps a run: its summary.json is already one"
        )
    text = as_text(summary)
    (folder.path / "verdict.txt").write_text(text, encoding="utf-8")
    (folder.path / "report.html").write_text(page.render(summary), encoding="utf-8")
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
    spent = {visit["variant"]["s_seconds"] for visit in plan["visits"]}
    costs = ", ".join(f"{s * 1e3:.2f}" for s in sorted(spent, reverse=True)) + " ms of CPU"
    title = f"Accept All We Can, preset {plan['preset']}"
    if status["state"] != "complete":
        title += f" ({status['state'].upper()}: {len(summary['phases'])} phases measured)"
    yield title
    yield from _wrap(
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, "
        f"{machine['python']}; by calibration one request costs {costs}; load average before the run "
        f"{machine['load_average'][0]:.1f}, CPU stolen meanwhile {status.get('stolen_cpu_seconds')} s"
    )


def _verdicts(summary: dict[str, Any]) -> Iterator[str]:
    for verdict in judge(summary):
        mark = f"{MARKS[verdict.verdict]} {verdict.verdict.upper():<13} "
        yield from textwrap.wrap(verdict.claim, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))
        yield from _wrap(f"{verdict.numbers}. {verdict.why}", indent="    ")
    yield ""
    if (why := answer(summary)) is not None:
        yield "Where does the 5.2x come from?"
        yield from _wrap(why, indent="    ")
        yield ""


def _table(summary: dict[str, Any]) -> Iterator[str]:
    """Capacity by variant, beside the limit it cannot pass."""
    rows = Evidence(summary).capacity_table()
    if rows:
        yield f"{'variant':<38}{'capacity':>10}{'of workers/S':>14}{'S':>10}"
    for row in rows:
        yield f"{row.title:<38}{row.capacity:>8.0f}/s{row.share!s:>14}{row.s_seconds * 1e3:>7.2f} ms"


def _ledger(summary: dict[str, Any]) -> Iterator[str]:
    total = ledger_totals(summary)
    yield from _wrap(
        f"Ledger: planned {total['planned']} = sent {total['sent']} + not sent {total['not_sent']}; "
        f"sent = connected {total['connected']} + never connected {total['never_connected']}; "
        f"connected = accepted {total['accepted']} + in the kernel queue {total['kernel_queue']} "
        f"+ half-open {total['half_open']}; "
        f"accepted = completed {total['completed']} + active {total['active']}."
    )
    gaps = ledger_gaps(summary)
    yield from gaps or ["No connection is unexplained."]
    invalid = [phase for phase in summary["phases"] if phase["state"] == "invalid"]
    for phase in invalid:
        yield from _wrap(f"INVALID {phase['id']}: {' '.join(phase['invalid_because'])}")


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
