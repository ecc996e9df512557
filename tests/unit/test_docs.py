"""The pages say what the code does: tables, links, anchors, targets of make, the path of one connection.

Whether their commands do what they say: tests/process/test_docs_commands.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import reading
from docs.tables import PAGES, README, rewrite
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.report import as_text
from service.net.accept_errors import HELP
from service.work import data

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = (".ci", "docs", "loadtests", "metrics", "service", "tests")
FILES = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
KINDS = {".py", ".toml", ".yml", ".yaml", ".j2"}
SOURCES = [
    path
    for path in FILES
    if path != Path(__file__)
    and (path.suffix in KINDS or path.name in {"Makefile", "Dockerfile", "run", "stack"})
]
PRESENT = [page for page in reading.PAGES if page.name != "CHANGELOG.md"]  # that tells of what is gone, too


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def page_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    assert rewrite(page_of(page), PAGES[page]) == page_of(page), "run `make docs`"


def leads_somewhere(folder: Path, link: str) -> bool:
    """Whether a relative link, seen from a folder, leads to a file, and to a heading if it names one."""
    path, _, anchor = link.partition("#")
    target = folder / path
    return target.exists() and (not anchor or anchor in reading.anchors(page_of(target)))


@pytest.mark.parametrize("page", reading.PAGES, ids=name)
def test_every_link_leads_to_a_file_and_to_a_heading(page: Path) -> None:
    for link in reading.links(page_of(page)):
        if not link.startswith("https://"):
            whole = page.name + link if link.startswith("#") else link
            assert leads_somewhere(page.parent, whole), link


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## Start, drain, restart", "start-drain-restart"),
        ("# gunicorn: several IO processes", "gunicorn-several-io-processes"),
        ("### `--app` and [a link](page.md#there)", "--app-and-a-link"),
        ("## What's `a_b`?", "whats-a_b"),
        ("# Übersicht ##", "übersicht"),
    ],
)
def test_an_anchor_is_what_github_makes_of_a_heading(heading: str, anchor: str) -> None:
    assert reading.anchors(f"```text\n# none\n```\n{heading}\n") == {anchor}


def test_headings_of_the_same_text_have_anchors_of_their_own() -> None:
    assert reading.anchors("# Limits\n## Limits\n") == {"limits", "limits-1"}


def test_every_page_that_code_names_exists_with_its_heading() -> None:
    named = {
        (name(path), link)
        for path in SOURCES
        for link in re.findall(r"(?<![\w/])((?:docs/)?[\w-]+\.md(?:#[\w-]+)?)", page_of(path))
    }
    assert ("service/net/accept_errors.py", HELP) in named
    folders = (ROOT, ROOT / "docs")
    assert [one for one in named if not any(leads_somewhere(folder, one[1]) for folder in folders)] == []


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_file_that_prose_names_exists(page: Path) -> None:
    for path in re.findall(r"`((?:docs|loadtests|metrics|service|tests)/[\w./-]+)`", page_of(page)):
        assert (ROOT / path).exists(), path


def test_targets_of_make_are_found_wherever_a_page_names_them() -> None:
    prose = "units of work make 4 ms, `make bench-accept`,\n`make\nio2`\n"
    console = "```console\n$ make known-answers ARGS=1  # as long as it takes\n```\n"
    assert reading.make_targets(prose + console) == {"bench-accept", "io2", "known-answers"}


def test_every_make_target_that_a_page_or_code_names_exists() -> None:
    named = {
        (name(path), target)
        for path in (*reading.PAGES, *SOURCES)
        for target in reading.make_targets(page_of(path))
    }
    exist = set(re.findall(r"^([\w.-]+):", MAKEFILE, re.MULTILINE))
    assert [one for one in named if one[1] not in exist] == []


def test_the_answer_shown_is_the_one_that_curl_gets() -> None:
    (shown,) = re.findall(r"^\{.*\}$", TEXT, re.MULTILINE)
    units = int(json.loads(shown)["city"].removeprefix("Value: ")) + 1
    assert shown.encode() == data(units)


@pytest.mark.parametrize("run", sorted((ROOT / "docs/runs").iterdir()), ids=lambda run: run.name)
def test_every_committed_verdict_is_what_its_summary_says(run: Path) -> None:
    assert as_text(RunFolder(run).summary()) == (run / "verdict.txt").read_text(encoding="utf-8")


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert TEXT.count("\n") < 200


# The path of one connection, as the README and the chassis's own map tell it.

CHASSIS = ROOT / "service"
MAP = page_of(CHASSIS / "__init__.py")
PATH = MAP.partition("Around it:")[0]
ROOMS = dict(re.findall(r"^\| `(\w+)/` \| (.+) \|$", TEXT, re.MULTILINE))


def test_readme_and_map_name_each_room_of_the_tree_in_the_same_order() -> None:
    in_readme = re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE)
    in_map = list(dict.fromkeys(re.findall(r"\b(\w+)/", MAP)))
    assert in_readme == in_map
    assert sorted(in_readme) == sorted(path.parent.name for path in CHASSIS.glob("*/__init__.py"))


def test_the_path_of_one_connection_is_the_same_in_readme_and_map() -> None:
    path: dict[str, list[str]] = {}
    for room, file in dict.fromkeys(re.findall(r"\b(\w+)/(\w+\.py)\b", PATH)):
        path.setdefault(room, []).append(file)
    assert list(path) == list(ROOMS)[: len(path)]
    for room, files in path.items():
        assert [file for file in re.findall(r"`(\w+\.py)`", ROOMS[room]) if file in files] == files


@pytest.mark.parametrize("room", ROOMS)
def test_the_readme_names_files_of_a_room_that_are_there_each_once(room: str) -> None:
    named = re.findall(r"`(\w+\.py)`", ROOMS[room])
    assert len(named) == len(set(named)) > 0
    assert [one for one in named if not (CHASSIS / room / one).exists()] == []


def test_the_readme_names_every_file_at_the_top_of_the_chassis() -> None:
    assert [path.name for path in CHASSIS.glob("[a-z_]*.py") if path.name not in TEXT] == []


def test_each_failure_mode_names_a_test_that_is_there() -> None:
    page = (ROOT / "docs/failure-modes.md").read_text("utf-8")
    named = re.findall(r"\| \[(test_\w+)\]\(\.\./(tests/[\w/.]+)\) \|$", page, re.MULTILINE)
    rows = [line for line in page.partition("## What we leave")[0].splitlines() if line.startswith("| ")]
    headers = page.partition("## What we leave")[0].count("\n## ")
    assert len(named) == len(rows) - 2 * headers > 50
    for test, file in named:
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), test
