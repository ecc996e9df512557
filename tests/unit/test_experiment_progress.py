"""What a person sees while an experiment runs, on a terminal of 80 columns and in a log file."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from loadtests.experiment.plan import Plan
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.progress import Board, expected_seconds, table
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import rules_for
from tests.support.synthetic import faster, plan_of, summary_of, with_blocks

REASON = "other processes of this machine used 31% of its CPU time"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def spoilt(summary: Summary) -> Summary:
    """Some blocks void, some phases invalid and with queues of thousands."""
    blocks = tuple(
        replace(block, void_because=(REASON,)) if block.cycle == 2 else block for block in summary.blocks
    )
    phases = tuple(
        replace(phase, peak=12_345, offered_per_second=12_345.0, goodput_per_second=12_345.0,
                invalid_because=(f"the load generator was busy for 91% of its core; {REASON}",))
        for phase in summary.phases
    )  # fmt: skip
    recoveries = tuple(
        replace(one, void_because=(REASON,), attempts=(12_345,) * len(one.attempts))
        for one in summary.recoveries
    )
    return replace(summary, blocks=blocks, phases=phases, recoveries=recoveries)


def shown(summary: Summary, *, terminal: bool, width: int = 80) -> str:
    """Everything that a board writes over a run."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, legacy_windows=False)
    plan = summary.plan
    with Board(plan, console) as board:
        for cycle in range(1, plan.looks[0] + 1):
            for block in summary.blocks:
                if block.cycle == cycle:
                    board.block(block)
            if plan.measured:
                so_far = tuple(block for block in summary.blocks if block.cycle <= cycle)
                board.cycle(cycle, replace(summary, blocks=so_far))
        for phase in summary.phases:
            board.phase(phase)
        for number in range(1, len(summary.recoveries) + 1):
            assert plan.trigger is not None
            board.sending(plan.trigger.cases[number - 1])(37.0)
            board.recovery(summary.recoveries[:number])
    return stream.getvalue()


def plans() -> dict[str, Plan]:
    return {f"{preset}-{cores:g}": plan_of(preset, cores) for preset in PRESETS for cores in (2.0, 64.0)}


@pytest.mark.parametrize("plan", plans().values(), ids=plans())
def test_no_line_wraps_on_a_terminal_of_80_columns(plan: Plan) -> None:
    for summary in (summary_of(plan), spoilt(summary_of(plan))):
        lines = CONTROL.sub("\n", shown(summary, terminal=True)).splitlines()
        too_long = [line for line in lines if cell_len(line) > 80]
        assert not too_long
        assert not [line for line in lines if "…" in line], "something was cut off"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_log_file_gets_plain_lines(preset: str) -> None:
    summary = spoilt(summary_of(plan_of(preset)))
    text = shown(summary, terminal=False)
    assert "\x1b" not in text
    assert "\r" not in text
    cycles = re.findall(r"^cycle (\d+): ", text, re.MULTILINE)
    measured = summary.plan.looks[0] if summary.plan.measured else 0
    assert cycles == [str(number + 1) for number in range(measured)]
    void = [block for block in summary.blocks if block.void_because and block.cycle <= summary.plan.looks[0]]
    assert text.count("void, measured again") == len(void)
    assert text.count("  invalid: ") == len(summary.phases)
    assert len(re.findall(r"^case [\w-]+: ", text, re.MULTILINE)) == len(summary.recoveries)
    assert text.count("  void: ") == len(summary.recoveries)


def test_a_line_of_a_log_file_is_never_broken() -> None:
    lines = shown(spoilt(summary_of(plan_of("threads"))), terminal=False).splitlines()
    assert [line for line in lines if line.startswith("  void")] == [
        f"  void, measured again: {block.variant}: {REASON}"
        for block in spoilt(summary_of(plan_of("threads"))).blocks
        if block.void_because
    ]


def test_the_table_stays_on_the_screen_when_all_is_measured() -> None:
    text = CONTROL.sub("", shown(summary_of(plan_of("quick")), terminal=True))
    last = text[text.rindex("After 12 cycles") :]
    for rule in rules_for(summary_of(plan_of("quick"))):
        assert not rule.by_interval or rule.short in last
    assert "in flight" not in last


def test_the_cases_stay_on_the_screen_with_how_they_ended() -> None:
    summary = summary_of(plan_of("metastable"))
    text = CONTROL.sub("", shown(summary, terminal=True))
    last = text[text.rindex("Answers per second, 0.6x the limit but for 3 s at 3x") :]
    assert summary.plan.trigger is not None
    for case in summary.plan.trigger.cases:
        assert case.title in last
    assert re.search(r"process pool, immediate +120 +30 +0 +480 +down for 30 s", last)


@pytest.mark.parametrize(("factor", "word"), [(1.0, "does not hold"), (1.5, "held"), (1.268, "open")])
def test_a_claim_is_open_until_its_interval_has_cleared_the_end_of_its_region(
    factor: float, word: str
) -> None:
    summary = with_blocks(summary_of(plan_of("quick")), "executor-1", faster(factor))
    rules = [rule for rule in rules_for(summary) if rule.short == "one worker: U over inline"]
    stream = io.StringIO()
    Console(file=stream, width=80).print(table(summary, rules, 12))
    (row,) = [line for line in stream.getvalue().splitlines() if line.startswith("one worker")]
    assert row.split("  ")[-1].strip() == word
    assert "1.5 and up" in row


def test_before_there_is_data_the_table_says_so() -> None:
    empty = replace(summary_of(plan_of("a-a")), blocks=())
    stream = io.StringIO()
    rules = [rule for rule in rules_for(empty) if rule.by_interval]
    Console(file=stream, width=80).print(table(empty, rules, 0))
    assert stream.getvalue().count("No usable data") == len(rules)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_left_is_told_before_it_begins(preset: str) -> None:
    plan = plan_of(preset)
    minutes = expected_seconds(plan) / 60
    assert shown(summary_of(plan), terminal=False).startswith(f"About {minutes:.1f} minutes on 2 cores.")
    assert 0.5 < minutes < 40
