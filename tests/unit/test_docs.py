"""The README says what the code does: tables, links and commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.tables import PAGES, README, rewrite
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.report import as_text
from service.work import data

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
PROSE = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rewrite(text, PAGES[page]) == text, "run `make docs`"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:\$ |`)make ([a-z-]+)", TEXT))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_answer_shown_is_the_one_that_curl_gets() -> None:
    (shown,) = re.findall(r"^\{.*\}$", TEXT, re.MULTILINE)
    units = int(json.loads(shown)["city"].removeprefix("Value: ")) + 1
    assert shown.encode() == data(units)


@pytest.mark.parametrize("run", sorted((ROOT / "docs/runs").iterdir()), ids=lambda run: run.name)
def test_every_committed_verdict_is_what_its_summary_says(run: Path) -> None:
    assert as_text(RunFolder(run).summary()) == (run / "verdict.txt").read_text(encoding="utf-8")
