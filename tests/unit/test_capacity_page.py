"""What is kept of a search is read back, and its page tells all of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from loadtests.capacity import page
from loadtests.capacity.folder import PAGE, RESULT, holds_capacity, kept, read
from loadtests.capacity.results import Capacity, Saturation
from loadtests.capacity.search import Bracket
from loadtests.capacity.trial import Trial
from loadtests.exits import UsageError

PASSED = Trial(
    load=0.9, rate_per_second=225.0, achieved_per_second=224.9, seconds=6.0, hold=False, passed=True,
    stable=True, why="", p99_seconds=0.02, error_share=0.0, demand_seconds=0.004, invalid_because="",
)  # fmt: skip
FAILED = dataclasses.replace(
    PASSED, load=1.02, rate_per_second=255.0, passed=False, why="p99<100ms missed: never", p99_seconds=None
)
VOID = dataclasses.replace(PASSED, invalid_because="the generator <was> late")
FOUND = Capacity(
    url="http://127.0.0.1:1/?a=<b>",
    thresholds=("p99<100ms", "errors<=1%"),
    bracket=Bracket(0.9, 1.02, complete=True),
    upper_end="p99<100ms missed: never",
    stable_load=0.9,
    unstable_load=None,
    saturations=(Saturation(clients=16, throughput_per_second=240.0, demand_seconds=0.004),) * 2,
    workers=1,
    demand_seconds=0.004,
    trials=(PASSED, FAILED, VOID, dataclasses.replace(PASSED, hold=True)),
    seconds=60.0,
    state="complete",
)
FOREIGN = dataclasses.replace(
    FOUND,
    workers=None,
    demand_seconds=None,
    bracket=Bracket(225.0, None, complete=False),
    state="out of time",
    trials=(dataclasses.replace(PASSED, load=225.0, demand_seconds=None),),
)


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with kept(folder) as keep:
        assert not holds_capacity(folder)
        keep(FOUND)
    assert read(folder) == FOUND
    with pytest.raises(UsageError, match="already holds"), kept(folder):
        pass


def test_what_is_no_result_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text("{}")
    with pytest.raises(ValueError, match="does not hold a readable result"):
        read(tmp_path)


@pytest.mark.parametrize("found", [FOUND, FOREIGN])
def test_the_page_is_one_file_that_tells_every_trial(tmp_path: Path, found: Capacity) -> None:
    with kept(tmp_path) as keep:
        keep(found)
    assert page.draw(tmp_path) == tmp_path / PAGE
    html = (tmp_path / PAGE).read_text()
    tags = re.findall(r"<(\w+)", html)
    assert tags.count("tr") == 1 + len(found.trials)
    assert tags.count("svg") == 1
    assert "script" not in tags
    assert "a=&lt;b&gt;" in html
    assert ("of the limit" in html) == (found.workers is not None)


def test_an_invalid_trial_says_why_on_the_page() -> None:
    assert "INVALID: the generator &lt;was&gt; late" in page.of(FOUND)
