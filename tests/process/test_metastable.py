"""The preset `metastable` in its short form: a trigger of a second, real designs, nothing left of them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import machine
from loadtests.experiment import report
from loadtests.experiment.blocks import Block
from loadtests.experiment.child import DesignChild, ServiceError
from loadtests.experiment.evidence import ledger, ledger_gaps
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import DATA, Cost, Plan
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.presets import plan as make_plan
from loadtests.experiment.progress import Board
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Status, Summary
from loadtests.experiment.testbed import Testbed
from loadtests.experiment.verdict import judge
from loadtests.neighbours import effective_cores
from tests.support import ROOT
from tests.support.processes import argv, children, gone

SHOWN = ("pool-immediate", "offloop-immediate")
UNITS = 75_000  # about 10 ms


def short(*cases: str) -> Plan:
    """Two seconds, one of trigger, two more; clients that give up after a quarter of a second."""
    factors = replace(
        PRESETS["metastable"].factors,
        before_seconds=2,
        overload_seconds=1.0,
        after_seconds=2,
        timeout_seconds=0.25,
        block_seconds=0.4,
        settle_seconds=0.1,
    )
    made = make_plan("metastable", effective_cores(), {DATA: Cost(work_units=UNITS, s_seconds=0.01)}, factors)
    assert made.trigger is not None
    kept = tuple(case for case in made.trigger.cases if case.name in cases)
    return replace(made, trigger=replace(made.trigger, cases=kept))


def measured(folder: RunFolder, plan: Plan) -> Summary:
    """Every case once, whatever a neighbour does meanwhile: it makes cases void, and no figure wrong."""
    folder.write("environment.json", machine.Environment, machine.environment())
    folder.write("plan.json", Plan, plan)
    folder.write("status.json", Status, Status(state="complete", seconds=10.0))
    assert plan.trigger is not None
    blocks: list[Block] = []
    recoveries: list[Recovery] = []
    with Board(plan, Console(file=io.StringIO())) as board, Testbed(plan, folder) as bed:
        for number, case in enumerate(plan.trigger.cases, 1):
            blocks.append(bed.block(plan.variant(plan.trigger.variant), "beside", number))
            recoveries.append(bed.recovery(case, blocks[-1], board.sending(case)))
            board.recovery(recoveries)
    folder.write("blocks.json", tuple[Block, ...], tuple(blocks))
    folder.write("recoveries.json", tuple[Recovery, ...], tuple(recoveries))
    summary = folder.build()
    folder.write("summary.json", Summary, summary)
    return summary


def designs() -> set[int]:
    """Our children that serve a design of loadtests/peers."""
    return {pid for pid in children(os.getpid()) if "loadtests.peers" in argv(pid)}


@pytest.mark.alone
def test_two_cases_meet_a_short_trigger_and_are_judged_told_and_drawn(tmp_path: Path) -> None:
    folder, plan = RunFolder.create(tmp_path / "run"), short(*SHOWN)
    summary = measured(folder, plan)
    assert not designs()
    assert [one.case for one in summary.recoveries] == list(SHOWN)
    pool, ours = summary.recoveries
    for one in (pool, ours):
        assert len(one.answered) == len(one.attempts) == 5
        assert one.peak_per_second == pytest.approx(5 * one.base_per_second, rel=0.01)
        base, peak = one.base_per_second, one.peak_per_second
        assert one.client.planned == pytest.approx(4 * base + peak, abs=3)
        assert one.client.attempts > one.client.sent, "the trigger makes retries"
        assert min(one.loads) > 0
    # The service's books and the clients' agree attempt by attempt; the designs of others keep none.
    assert pool.ledger is None
    assert ours.ledger is not None
    assert ours.ledger.retried == ours.client.attempts - ours.client.sent > 0
    assert ours.ledger.closes, ours.ledger
    assert ledger_gaps(summary) == []
    assert ledger(summary).retried == ours.ledger.retried
    # A refusal is no answer, and a client that has left gets none: more attempts than answers on either side.
    assert {"status_503", "ok"} <= ours.attempt_outcomes.keys()
    assert pool.attempt_outcomes["timeout"] > 0

    again, text = report.draw(folder)
    assert again == summary
    assert [verdict.claim for verdict in judge(summary)] == [
        "As usually written, with clients that retry at once, it stays down after the trigger has gone",
        "offloop is back within 1 s",
    ]
    assert "process pool, immediate" in text
    names = {path.name for path in folder.path.iterdir()}
    assert names >= {"verdict.txt", "report.html", "pool-immediate.log", "offloop.log"}


@pytest.mark.alone
def test_an_end_in_the_middle_of_a_case_leaves_no_design_no_service_and_no_generator(tmp_path: Path) -> None:
    folder, plan = RunFolder.create(tmp_path / "run"), short("pool-immediate")
    assert plan.trigger is not None
    seen: set[int] = set()

    def interrupt(elapsed: float) -> None:
        seen.update(children(os.getpid()))
        if elapsed >= 0.5:
            raise KeyboardInterrupt

    (case,), (variant,) = plan.trigger.cases, plan.variants
    before = children(os.getpid())
    with pytest.raises(KeyboardInterrupt), Testbed(plan, folder) as bed:
        bed.recovery(case, bed.block(variant, "beside", 1), interrupt)
    assert len(seen - before) >= 3, "the service, a design and the generator"
    assert all(gone(pid) for pid in seen - before)


def test_a_design_is_ended_at_once_with_everything_it_started(tmp_path: Path) -> None:
    (variant,) = short(*SHOWN).variants
    with DesignChild("pool", variant, tmp_path / "pool.log") as design:
        assert designs() == {design.pid}
        assert design.is_running()
        started = children(design.pid)
        assert started, "its pool"
    assert not design.is_running()
    assert all(gone(pid) for pid in {design.pid, *started})


def test_a_design_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    (variant,) = short(*SHOWN).variants
    broken = replace(variant, work="service.work:unheard_of")
    with pytest.raises(ServiceError, match=r"'pool' did not start: .*unheard_of"):
        DesignChild("pool", broken, tmp_path / "pool.log").__enter__()
    assert not designs()


def test_a_trigger_that_cannot_be_counted_in_seconds_says_so_in_one_sentence(tmp_path: Path) -> None:
    flags = ("--preset", "metastable", "--work-units", "1000", "--overload-seconds", "0.5")
    command = [sys.executable, "-m", "loadtests", "experiment", *flags, "--out", str(tmp_path / "run")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "a trigger lasts whole seconds, not 0.5" in found.stderr
