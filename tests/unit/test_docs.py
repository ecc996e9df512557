"""The README says what the code does: tables, links and commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tables import README, rewrite
from service.work import data

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    assert rewrite(TEXT) == TEXT, "run `make docs`"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+) ", TEXT)) - {"and"}))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_answer_shown_is_the_one_that_curl_gets() -> None:
    (shown,) = re.findall(r"^\{.*\}$", TEXT, re.MULTILINE)
    units = int(json.loads(shown)["city"].removeprefix("Value: ")) + 1
    assert shown.encode() == data(units)


@pytest.mark.parametrize("run", sorted((ROOT / "docs/runs").iterdir()), ids=lambda run: run.name)
def test_every_committed_verdict_is_what_its_summary_says(tmp_path: Path, run: Path) -> None:
    (tmp_path / "summary.json").write_bytes((run / "summary.json").read_bytes())
    command = [sys.executable, "-m", "loadtests", "report", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert (tmp_path / "verdict.txt").read_bytes() == (run / "verdict.txt").read_bytes()
