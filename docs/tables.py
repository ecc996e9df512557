"""Rewrites the README's tables from the code: `make docs`. A test compares them.

Each table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticUndefined

from loadtests.presets import PRESETS
from metrics.catalogue import CATALOGUE
from service.settings import Settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def settings_table() -> str:
    """Flag, default and meaning of every setting of the service."""
    lines = ["| flag | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "calibrated" if field.default is None else field.default
        assert default is not PydanticUndefined
        shown = "the cores" if name == "workers" else default
        lines.append(f"| `--{name.replace('_', '-')}` | {shown} | {field.description} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Name, type and question of every metric."""
    lines = ["| metric | type | the question it answers |", "| --- | --- | --- |"]
    for row in CATALOGUE:
        labels = "{" + ",".join(row.labels) + "}" if row.labels else ""
        lines.append(f"| `{row.name}{labels}` | {row.type} | {row.question} |")
    return "\n".join(lines)


def presets_table() -> str:
    """The presets of the experiment."""
    rows = [f"| `{name}` | {preset.question} |" for name, preset in PRESETS.items()]
    return "\n".join(["| preset | what it asks |", "| --- | --- |", *rows])


def verdict_text() -> str:
    """The verdict of the committed run."""
    return "```text\n" + (ROOT / "docs/runs/quick/verdict.txt").read_text(encoding="utf-8") + "```"


TABLES = {
    "verdict": verdict_text,
    "presets": presets_table,
    "settings": settings_table,
    "metrics": metrics_table,
}


def rewrite(text: str) -> str:
    """The README with every table as the code has it.

    Raises:
        ValueError: a table's markers are missing.
    """
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the README must have the markers of the table {name!r} once")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    README.write_text(rewrite(README.read_text(encoding="utf-8")), encoding="utf-8")
