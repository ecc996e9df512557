"""What the race found, as people see it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests.peers import report

KEPT = Path(__file__).parents[2] / "docs/proofs/peers.json"


@pytest.fixture
def found() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(KEPT.read_text())
    return kept


def test_every_figure_is_legible_on_80_columns(found: dict[str, Any]) -> None:
    easy, pressed = (printed(table) for table in report.tables(found))
    assert max(map(len, easy + pressed)) <= 80
    row = next(row for row in found["rows"] if row["design"] == "offloop" and row["work_ms"] == 4)
    told = " ".join(" ".join(line.split()) for line in easy)
    assert f"4 ms offloop {row['io_us_per_request']:.0f} {row['comfortable']['p50'] * 1e3:.0f} ms" in told
    for load in report.LOADS:
        figures = f"offloop {row[load]['goodput']:.0f}/s {row[load]['share']:.0%}"
        assert figures in " ".join(" ".join(line.split()) for line in pressed)
    assert len(pressed) - 3 == sum(load in row for row in found["rows"] for load in report.LOADS)


def test_the_drawing_is_the_same_each_time(found: dict[str, Any], tmp_path: Path) -> None:
    found["rows"] = [row for row in found["rows"] if row["work_ms"] != 40]
    for name in ("one", "two"):
        report.draw(found, tmp_path / name)
    drawn = (tmp_path / "one").read_text()
    assert drawn == (tmp_path / "two").read_text()
    for row in found["rows"]:
        assert f"{row['3x']['share'] * 100:.0f} %" in drawn
        assert report.TITLES[row["design"]] in drawn


def printed(table: Any) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    return text.splitlines()
