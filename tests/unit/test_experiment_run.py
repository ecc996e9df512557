"""When enough is measured, what is measured again, and how a run ends: with a made-up testbed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from loadtests.experiment import calibration, report, run
from loadtests.experiment.blocks import Block
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import Case, Factors, Plan, Variant
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.progress import Board, expected_seconds
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Kill, PhaseResult, Status
from loadtests.experiment.run import BESIDE_CYCLES, FEW_VOID, PHASE_TRIES, TRIES, Experiment, InvalidError
from loadtests.machine import Environment
from tests.support.synthetic import (
    COSTS,
    ENVIRONMENT,
    block_of,
    faster,
    phase_of,
    plan_of,
    recovery_of,
    scatter,
    share_of_work,
    speed,
    utilisation_of,
)

Spoil = Callable[[str, int, int], str]
"""Of variant, cycle and try: why the block is void, or nothing."""

NEIGHBOUR = "other processes of this machine used {}% of its CPU time"


def never(*_: object) -> str:
    return ""


class FakeBed:
    """Measures what the synthetic variants do, and takes as long as a real one by its own clock."""

    def __init__(
        self,
        plan: Plan,
        *,
        spoil: Spoil = never,
        factors: dict[str, float] | None = None,
        invalid: Callable[[int], tuple[str, ...]] = lambda _: (),
        pressure: Callable[[int], float] = lambda _: 1.4,
    ) -> None:
        self.plan = plan
        self.spoil = spoil
        self.factors = factors or {}
        self.invalid = invalid
        self.pressure = pressure
        self.now = 1000.0
        self.tries: list[tuple[str, int]] = []
        self.phases: list[tuple[str, str, float]] = []
        self.killed: list[str] = []
        self.cases: list[tuple[str, Block]] = []

    def block(self, variant: Variant, part: Literal["cycle", "beside"], cycle: int) -> Block:
        self.tries.append((variant.name, cycle))
        self.now += self.plan.block_seconds()
        why = self.spoil(variant.name, cycle, self.tries.count((variant.name, cycle)))
        made = block_of(
            variant,
            cycle,
            part=part,
            utilisation=utilisation_of(variant, self.plan.cores) * scatter(variant, cycle),
            demand_seconds=0.004 * speed(cycle) * share_of_work(variant),
            void_because=(why,) if why else (),
        )
        return faster(self.factors.get(variant.name, 1.0))(made)

    def phase(
        self, kind: Literal["overload", "ramp", "curve"], variant: Variant, rate: float, seconds: float
    ) -> PhaseResult:
        self.phases.append((kind, variant.name, rate))
        self.now += seconds
        pressure = self.pressure(len(self.phases))
        made = phase_of(variant, kind, len(self.phases), pressure=pressure, seconds=seconds)
        return replace(made, invalid_because=self.invalid(len(self.phases)))

    def recovery(self, case: Case, just_before: Block, tell: Callable[[float], None]) -> Recovery:
        assert self.plan.trigger is not None
        self.cases.append((case.name, just_before))
        self.now += self.plan.case_seconds() - self.plan.block_seconds()
        tell(self.plan.trigger.all_seconds)
        return replace(recovery_of(self.plan.trigger, case, 0), void_because=self.invalid(len(self.cases)))

    def kill(self, variant: Variant) -> Kill:
        self.killed.append(variant.name)
        return Kill(variant=variant.name, answered=1, failed=0, longest_seconds=0.1, usual_p99_seconds=0.01)


def prepared(path: Path, plan: Plan) -> RunFolder:
    folder = RunFolder.create(path)
    folder.write("status.json", Status, Status(state="running"))
    folder.write("environment.json", Environment, ENVIRONMENT)
    folder.write("plan.json", Plan, plan)
    return folder


def measured(path: Path, plan: Plan, **more: Any) -> FakeBed:
    """Measure a plan to its end."""
    bed = FakeBed(plan, **more)
    board = Board(plan, Console(file=io.StringIO()))
    Experiment(plan, prepared(path, plan), board, bed, lambda: bed.now).measure()
    return bed


def cycles(bed: FakeBed, name: str = "inline") -> int:
    return max(cycle for variant, cycle in bed.tries if variant == name)


def test_a_run_whose_claims_are_decided_stops_at_the_first_look(tmp_path: Path) -> None:
    bed = measured(tmp_path, plan_of("quick", budget_seconds=1e6))
    assert cycles(bed) == 12
    blocks = [name for name, _ in bed.tries]
    assert blocks.count("inline") == 12
    assert blocks.count("lanes-1") == BESIDE_CYCLES
    assert blocks.count("executor-1") == 12 + BESIDE_CYCLES


def test_variants_take_their_turns_in_the_order_of_the_plan(tmp_path: Path) -> None:
    plan = plan_of("a-a", cycles=4)
    bed = measured(tmp_path, plan)
    order = [(name, cycle) for cycle in range(1, 5) for name in plan.order(plan.measured, cycle)]
    assert bed.tries == order


# One worker gains 1.50 (1.49 to 1.51): just as much as the claim wants.
STRADDLES = {"executor-1": 1.268}


def test_an_undecided_claim_is_given_more_cycles_while_there_is_time(tmp_path: Path) -> None:
    bed = measured(tmp_path, plan_of("quick", budget_seconds=1e6), factors=STRADDLES)
    assert cycles(bed) in (16, 20)
    assert cycles(bed, "executor-1") == cycles(bed)
    assert cycles(bed, "executor-cores") == 12, "it would tell the open claim nothing"


def test_no_more_than_the_last_look_is_measured(tmp_path: Path) -> None:
    plan = plan_of("quick", more_cycles=2, budget_seconds=1e6)
    assert cycles(measured(tmp_path, plan, factors=STRADDLES)) == plan.looks[-1] == 14


def test_no_more_cycles_begin_when_the_time_would_not_suffice(tmp_path: Path) -> None:
    plan = plan_of("quick")
    # Twelve cycles of four blocks, four more of the two that matter, and what comes after them.
    twelve, four = 48 * plan.block_seconds(), 8 * plan.block_seconds()
    after = plan.seconds_after_cycles(BESIDE_CYCLES)
    enough = replace(plan, factors=replace(plan.factors, budget_seconds=twelve + four + after + 1))
    short = replace(plan, factors=replace(plan.factors, budget_seconds=twelve + four + after - 1))
    assert cycles(measured(tmp_path / "short", short, factors=STRADDLES)) == 12
    assert cycles(measured(tmp_path / "enough", enough, factors=STRADDLES)) == 16


def test_a_void_block_is_replaced_at_once_and_kept(tmp_path: Path) -> None:
    def first_try_of_cycle_3(name: str, cycle: int, number: int) -> str:
        return NEIGHBOUR.format(9) if (name, cycle, number) == ("inline", 3, 1) else ""

    bed = measured(tmp_path, plan_of("a-a", cycles=12), spoil=first_try_of_cycle_3)
    at = bed.tries.index(("inline", 3))
    assert bed.tries[at + 1] == ("inline", 3)
    assert bed.tries.count(("inline", 3)) == 2
    blocks = RunFolder(tmp_path).build().blocks
    assert [bool(b.void_because) for b in blocks if (b.variant, b.cycle) == ("inline", 3)] == [True, False]
    assert len(blocks) == 3 * 12 + 1


def test_a_block_that_stays_disturbed_is_left_out_after_three_tries(tmp_path: Path) -> None:
    bed = measured(
        tmp_path,
        plan_of("a-a", cycles=12),
        spoil=lambda name, cycle, _: NEIGHBOUR.format(9) if (name, cycle) == ("inline", 3) else "",
    )
    assert bed.tries.count(("inline", 3)) == TRIES
    assert cycles(bed) == 12


def test_a_neighbour_that_stays_makes_the_run_invalid_and_is_named(tmp_path: Path) -> None:
    # Mostly a neighbour, of a different size each time; the hypervisor twice.
    def spoil(_name: str, cycle: int, number: int) -> str:
        if number == 2:
            return "the hypervisor took 3% of the CPU time"
        return NEIGHBOUR.format(10 * cycle + number)

    with pytest.raises(
        InvalidError, match=r"^11 of 11 blocks were disturbed: other processes of this machine"
    ):
        measured(tmp_path, plan_of("a-a", cycles=12), spoil=spoil)
    kept = RunFolder(tmp_path).build().blocks
    assert len(kept) == FEW_VOID + 1


def test_every_second_block_void_is_a_neighbour_that_stays(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="blocks were disturbed"):
        measured(
            tmp_path, plan_of("a-a", cycles=12), spoil=lambda *at: NEIGHBOUR.format(9) if at[2] == 1 else ""
        )


def test_one_void_block_in_four_is_borne(tmp_path: Path) -> None:
    bed = measured(
        tmp_path,
        plan_of("a-a", cycles=12),
        spoil=lambda name, _, number: NEIGHBOUR.format(9) if (name, number) == ("inline", 1) else "",
    )
    assert len(bed.tries) == 4 * 12


def test_overloads_come_from_the_limit_by_the_last_three_blocks_then_by_the_overload_before(
    tmp_path: Path,
) -> None:
    plan = plan_of("quick")
    bed = measured(tmp_path, plan)
    blocks = RunFolder(tmp_path).build().blocks
    for name in ("inline", "executor-1", "lanes-1"):
        last = sorted(b.demand_seconds for b in [b for b in blocks if b.variant == name][-3:])
        rates = [rate for kind, variant, rate in bed.phases if variant == name and kind == "overload"]
        # The made-up overload finds a core on which S is 4 ms.
        assert rates == [plan.factors.overload / demand for demand in (last[1], 0.004, 0.004)]
    overloads = [(kind, name) for kind, name, _ in bed.phases]
    assert overloads == [("overload", name) for name in plan.overloaded] * plan.factors.overload_repeats
    assert bed.killed == list(plan.killed)


def test_an_overload_that_pressed_too_little_is_repeated_at_once_with_s_as_just_measured(
    tmp_path: Path,
) -> None:
    bed = measured(
        tmp_path,
        plan_of("quick", overload_repeats=1),
        pressure=lambda number: 1.1 if number in (1, 2) else 1.4,
    )
    assert [name for _, name, _ in bed.phases] == [
        "inline", "inline", "executor-1", "inline-batch", "lanes-1",
    ]  # fmt: skip
    assert bed.phases[1][2] == pytest.approx(1.5 / 0.004)


def test_a_variant_without_blocks_is_overloaded_by_what_one_with_the_same_work_can_do(
    tmp_path: Path,
) -> None:
    bed = measured(tmp_path, plan_of("quick", overload_repeats=1))
    rates = {variant: rate for _, variant, rate in bed.phases}
    assert rates["inline-batch"] == rates["inline"] != rates["executor-1"]


def test_a_variant_with_less_work_is_no_measure_for_one_with_more(tmp_path: Path) -> None:
    plan = replace(
        plan_of("quick", cycles=1, more_cycles=0, overload_repeats=1),
        beside=(),
        overloaded=("executor-1",),
        killed=(),
    )
    bed = measured(tmp_path, plan, spoil=lambda name, *_: "void" if name == "executor-1" else "")
    (inline,) = [block for block in RunFolder(tmp_path).build().blocks if block.variant == "inline"]
    assert {rate for *_, rate in bed.phases} == {plan.factors.overload / inline.demand_seconds}


def test_without_one_block_to_go_by_the_run_is_invalid(tmp_path: Path) -> None:
    plan = plan_of("controlled", cycles=1, more_cycles=0)
    with pytest.raises(InvalidError, match=r"^the throughput of executor-cores is unknown"):
        measured(tmp_path, plan, spoil=lambda name, *_: "void" if name == "executor-cores" else "")


def test_a_run_that_lost_its_time_to_a_neighbour_does_with_fewer_overloads(tmp_path: Path) -> None:
    plan = plan_of("quick")
    late = replace(plan, factors=replace(plan.factors, budget_seconds=1.0))
    assert len(measured(tmp_path / "late", late).phases) == len(plan.overloaded), "one of each is measured"
    assert len(measured(tmp_path / "usual", plan).phases) == 3 * len(plan.overloaded)


def test_a_disturbed_overload_is_repeated_once(tmp_path: Path) -> None:
    plan = plan_of("quick", overload_repeats=1)
    bed = measured(tmp_path, plan, invalid=lambda number: ("late",) if number == 2 else ())
    assert [name for _, name, _ in bed.phases] == [
        "inline", "executor-1", "executor-1", "inline-batch", "lanes-1",
    ]  # fmt: skip
    bed = measured(tmp_path / "again", plan, invalid=lambda number: ("late",) if number in (2, 3) else ())
    assert [name for _, name, _ in bed.phases].count("executor-1") == 2


def test_a_ramp_goes_on_rising_and_gives_each_rate_to_both_variants(tmp_path: Path) -> None:
    bed = measured(tmp_path, plan_of("accept-all-we-can"), invalid=lambda _: ("late",))
    assert bed.tries == []
    rates = [rate for _, _, rate in bed.phases]
    assert rates == sorted(rates)
    assert len(bed.phases) == 2 * 22
    assert {name for _, name, _ in bed.phases[:2]} == {"inline", "executor-1"}
    assert [name for _, name, _ in bed.phases[:4]] == ["executor-1", "inline", "inline", "executor-1"]


def test_each_case_meets_its_trigger_with_s_as_measured_just_before(tmp_path: Path) -> None:
    plan = plan_of("metastable")
    bed = measured(tmp_path, plan)
    assert plan.trigger is not None
    assert [name for name, _ in bed.cases] == [case.name for case in plan.trigger.cases]
    assert bed.tries == [("offloop", number) for number in range(1, 7)]
    kept = RunFolder(tmp_path).build()
    assert [block for _, block in bed.cases] == list(kept.blocks)
    assert [one.case for one in kept.recoveries] == [case.name for case in plan.trigger.cases]
    assert bed.now - 1000.0 == pytest.approx(expected_seconds(plan))


def test_a_void_case_is_measured_again_while_there_is_time(tmp_path: Path) -> None:
    plan = plan_of("metastable")

    def third_and_the_one_after_it(number: int) -> tuple[str, ...]:
        return ("late",) if number in (3, 4) else ()

    bed = measured(tmp_path, plan, invalid=third_and_the_one_after_it)
    assert [name for name, _ in bed.cases].count("pool-backoff") == PHASE_TRIES == 2
    assert len(bed.cases) == 7
    assert [one.case for one in RunFolder(tmp_path).build().recoveries].count("pool-backoff") == 2


def test_a_void_case_is_left_when_the_others_would_not_have_time(tmp_path: Path) -> None:
    plan = plan_of("metastable", budget_seconds=expected_seconds(plan_of("metastable")))
    bed = measured(tmp_path, plan, invalid=lambda number: ("late",) if number == 3 else ())
    assert len(bed.cases) == 6


def test_a_run_without_one_case_to_judge_is_invalid_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"^all \d+ cases were void: late$"):
        measured(tmp_path, plan_of("metastable"), invalid=lambda _: ("late",))


class Interruption:
    """Ctrl-C in the n-th block."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: object) -> str:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return ""


@pytest.fixture
def beds(monkeypatch: pytest.MonkeyPatch) -> list[FakeBed]:
    """The beds that `run` made, which asks no service; what the first is told to spoil is set by a test."""
    made: list[FakeBed] = []

    @contextmanager
    def testbed(plan: Plan, _: RunFolder) -> Iterator[FakeBed]:
        made.append(FakeBed(plan, spoil=made_to_spoil[0]))
        yield made[-1]

    made_to_spoil: list[Spoil] = [never]
    monkeypatch.setattr(run, "Testbed", testbed)
    monkeypatch.setattr(calibration, "calibrate", lambda _folder, work, *_: COSTS[work])
    monkeypatch.setattr(run, "effective_cores", lambda: 2.0)
    monkeypatch.setattr(FakeBed, "to_spoil", made_to_spoil, raising=False)
    return made


def spoil(how: Spoil) -> None:
    FakeBed.to_spoil[0] = how  # type: ignore[attr-defined]  # set by the fixture


SHORT = Factors(cycles=2, more_cycles=0)


@pytest.mark.usefixtures("beds")
def test_a_run_leaves_its_plan_its_status_and_a_summary(tmp_path: Path) -> None:
    summary = run.run("a-a", SHORT, tmp_path / "run", Console(file=io.StringIO()))
    folder = RunFolder(tmp_path / "run")
    assert summary.status.state == "complete"
    assert folder.summary() == summary == folder.build()
    assert folder.read("plan.json", Plan) == summary.plan == plan_of("a-a", cycles=2, more_cycles=0)
    assert len(summary.blocks) == 6


@pytest.mark.usefixtures("beds")
def test_a_run_of_cases_leaves_them_in_its_folder_and_its_summary(tmp_path: Path) -> None:
    summary = run.run(
        "metastable", PRESETS["metastable"].factors, tmp_path / "run", Console(file=io.StringIO())
    )
    folder = RunFolder(tmp_path / "run")
    assert summary.status.state == "complete"
    assert folder.summary() == summary == folder.build()
    assert len(summary.recoveries) == len(summary.blocks) == 6
    assert not report.is_invalid(summary)


@pytest.mark.usefixtures("beds")
def test_ctrl_c_keeps_every_block_that_was_measured(tmp_path: Path) -> None:
    spoil(Interruption(at=5))
    with pytest.raises(KeyboardInterrupt):
        run.run("a-a", SHORT, tmp_path / "run", Console(file=io.StringIO()))
    folder = RunFolder(tmp_path / "run")
    assert folder.read("status.json", Status).state == "interrupted"
    assert len(folder.summary().blocks) == 4
    assert folder.summary().status.state == "interrupted"
    assert "INTERRUPTED" in report.as_text(folder.summary()).splitlines()[0]


@pytest.mark.usefixtures("beds")
def test_an_invalid_run_says_why_and_judges_nothing(tmp_path: Path) -> None:
    spoil(lambda *_: NEIGHBOUR.format(30))
    summary = run.run("a-a", SHORT, tmp_path / "run", Console(file=io.StringIO()))
    assert summary.status.state == "invalid"
    assert summary.status.invalid_because.startswith("11 of 11 blocks were disturbed: other processes")
    assert report.is_invalid(summary)
    text = report.as_text(summary)
    assert "This run says nothing about the service" in text
    assert "HELD" not in text


@pytest.mark.usefixtures("beds")
def test_a_run_that_breaks_is_marked_as_failed_and_the_error_goes_on(tmp_path: Path) -> None:
    def breaks(*_: object) -> str:
        raise OSError("no space left")

    spoil(breaks)
    with pytest.raises(OSError, match="no space"):
        run.run("a-a", SHORT, tmp_path / "run", Console(file=io.StringIO()))
    assert RunFolder(tmp_path / "run").read("status.json", Status).state == "failed"


def test_the_commonest_reason_is_told_whatever_its_figures() -> None:
    reasons = ["the hypervisor took 2% of the CPU time", NEIGHBOUR.format(7), NEIGHBOUR.format(31)]
    assert run._commonest(reasons) in reasons[1:]
