"""The comparison with the usual designs as its command: short blocks, real designs, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.experiment.child import ServiceError
from loadtests.peers import contenders, trees
from loadtests.peers.contenders import Contender
from loadtests.peers.plan import OURS
from loadtests.peers.results import Results
from tests.support import ROOT
from tests.support.processes import argv, children, gone
from tests.support.waiting import until

SHORT = ("peers", "--works-ms", "4", "--times", "2", "--cycles", "1", "--seconds", "0.5")
BURN = "import time\nwhile time.process_time() < {seconds}: pass"
PARENT_OF_ONE = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
print("ended", flush=True)
sys.stdin.read()
"""


def peers(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests", *SHORT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
        start_new_session=True,
    )


def designs() -> set[int]:
    """Our children that serve a design."""
    return {pid for pid in children(os.getpid()) if "loadtests.peers" in argv(pid)}


@pytest.mark.timeout(300)
def test_two_designs_are_measured_told_and_drawn(tmp_path: Path) -> None:
    child = peers("--designs", "bounded,pool", "--json", str(tmp_path / "peers.json"))
    out, err = child.communicate(timeout=280)
    assert child.returncode in (0, 3), err  # so short a block may be void on a busy machine
    results = Results.from_json(json.loads((tmp_path / "peers.json").read_text()))
    assert (child.returncode == 3) == results.invalid
    assert {block.design for block in results.blocks} == {OURS, "bounded", "pool"}
    for block in results.blocks:
        assert block.cpu_seconds > 0.1, block
        assert block.answers > 0, block
        assert block.trivial_p99_seconds is not None
        assert 0 < block.conditions.generator_share < 1.5
    for title in ("offloop", "process pool, 64 max", "aiohttp, process pool", "4 ms at 2x the limit"):
        assert title in out
        assert title in (tmp_path / "peers.svg").read_text() or title == "offloop"
    assert "too few for an interval" in " ".join(out.split())
    assert sum("/CPU s" in line for line in err.splitlines()) == len(results.blocks)
    assert max(map(len, (out + err).splitlines())) <= 80
    assert gone(child.pid)


@pytest.mark.timeout(300)
def test_a_design_that_cannot_be_built_is_left_out_and_the_reason_told(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    arguments = ("--designs", "hyper,inline", "--json", str(file))
    child = peers(*arguments, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))  # no cargo there
    out, err = child.communicate(timeout=280)
    assert child.returncode in (0, 3), err
    results = Results.from_json(json.loads(file.read_text()))
    assert {block.design for block in results.blocks} == {OURS, "inline"}
    assert list(results.skipped) == ["hyper"]
    assert "Skipped: 'hyper, spawn_blocking': cargo is not installed" in " ".join(out.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_by_signal_leaves_no_design_and_no_generator(number: signal.Signals) -> None:
    child = peers("--designs", "pool", "--seconds", "30")
    until(lambda: len(children(child.pid)) >= 4, "two designs and two generators")
    started = children(child.pid)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    assert "Traceback" not in err
    assert all(gone(leader) for leader in started)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--designs", "nginx"], "nginx"),
        (["--times", "none"], "--times"),
        (["--cycles", "0"], "--cycles"),
        (["--seconds", "-1"], "--seconds"),
    ],
)
def test_what_cannot_be_compared_says_so_in_one_sentence(arguments: list[str], says: str) -> None:
    child = peers(*arguments)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_design_that_cannot_be_started_is_named_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "DATA", "service.work:unheard_of")
    broken = Contender("pool", 1, 1, tmp_path)
    with pytest.raises(ServiceError, match=r"'aiohttp, process pool' did not start: .*unheard_of"):
        broken.start()
    broken.stop(0)


def test_a_contender_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    contender = Contender("pool", 1, 2, tmp_path)
    contender.start()
    (leader,) = designs()
    assert len(children(leader)) >= 2  # its pool
    assert contender.cpu_seconds > 0
    contender.stop(0)
    assert gone(leader)
    assert contender.cpu_seconds == 0


def test_the_time_of_a_process_that_has_ended_stays_with_its_tree() -> None:
    command = [sys.executable, "-c", PARENT_OF_ONE, BURN.format(seconds=0.3)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        assert root.stdout.readline() == b"ended\n"
        assert trees.cpu_seconds(root.pid) >= 0.3
        root.kill()
    assert trees.cpu_seconds(root.pid) == 0
