"""Runs an experiment: calibrates, plans, measures cycle by cycle until the claims are decided, and sums up.

Knows the order of things and when enough is measured. Touches the run folder and, through the testbed, the
child processes; all figures come from the folder. However it ends, no child is left and the measurements are
kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Final, Literal, Protocol

from rich.console import Console

from loadtests import machine
from loadtests.experiment.blocks import Block
from loadtests.experiment.calibration import cost_of
from loadtests.experiment.evidence import PRESSED
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.plan import Case, Factors, Plan, Variant
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.presets import plan as make_plan
from loadtests.experiment.progress import Board
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Kill, PhaseResult, Status, Summary
from loadtests.experiment.testbed import Testbed
from loadtests.experiment.trigger import Tell
from loadtests.experiment.verdict import undecided
from loadtests.neighbours import effective_cores

BESIDE_CYCLES: Final = 4
"""Pairs of the stock executor and the lanes: their costs are a row of the report and no verdict."""

PHASE_TRIES: Final = 2

TRIES: Final = 3
"""Of a disturbed block. A brief neighbour is gone at the next try; one that stays makes the run INVALID."""

MOST_VOID: Final = 0.5
"""Void blocks for each valid one. A neighbour that spoils every third block is no brief one: the other blocks
may be disturbed too little to be noticed."""

FEW_VOID: Final = 10
"""Void blocks up to which their share does not count: a neighbour may take the first half minute of a run
that is quiet from then on."""

CURVE_LOADS: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05)
"""Of the throughput just measured. Latency needs an offered load; it is reported and not judged."""

CURVE_SECONDS: Final = 4.0


class InvalidError(Exception):
    """Other processes or guests used the machine; the message says which, in one sentence."""


def run(preset: str, factors: Factors, path: Path, console: Console) -> Summary:
    """Calibrate, plan, measure; return the summary, which is also in the folder.

    After Ctrl-C or a failure status.json says so; the exception is raised again.

    Raises:
        FolderError: the folder cannot be used; ServiceError, GeneratorError: a child failed.
    """
    folder = RunFolder.create(path)
    started = time.monotonic()
    state: Literal["complete", "invalid", "interrupted", "failed"] = "failed"
    because = ""
    folder.write("status.json", Status, Status(state="running"))
    folder.write("environment.json", machine.Environment, machine.environment())
    try:
        costs = {work: cost_of(folder, work, factors, console) for work in PRESETS[preset].works}
        plan = make_plan(preset, effective_cores(), costs, factors)
        folder.write("plan.json", Plan, plan)
        with Board(plan, console) as board, Testbed(plan, folder) as bed:
            Experiment(plan, folder, board, bed).measure()
        state = "complete"
    except InvalidError as reason:
        state, because = "invalid", str(reason)
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        seconds = round(time.monotonic() - started, 1)
        folder.write("status.json", Status, Status(state=state, invalid_because=because, seconds=seconds))
        if (folder.path / "plan.json").exists():
            summary = folder.build()
            folder.write("summary.json", Summary, summary)
    return summary


class Bed(Protocol):
    """What an experiment needs of its testbed."""

    def block(self, variant: Variant, part: Literal["cycle", "beside"], cycle: int) -> Block:
        """Saturate a variant for a block."""

    def phase(
        self, kind: Literal["overload", "ramp", "curve"], variant: Variant, rate: float, seconds: float
    ) -> PhaseResult:
        """Offer a rate to a variant."""

    def kill(self, variant: Variant) -> Kill:
        """Kill one of its workers."""

    def recovery(self, case: Case, just_before: Block, tell: Tell) -> Recovery:
        """Let a case meet the trigger."""


class Experiment:
    """One run, once the plan is made."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        board: Board,
        bed: Bed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._board = board
        self._bed = bed
        self._clock = clock
        self._blocks: list[Block] = []
        self._kills: list[Kill] = []
        self._recoveries: list[Recovery] = []
        self._demand: dict[str, float] = {}  # S of the last overload, by variant

    def measure(self) -> None:
        """Measure everything in the plan.

        Raises:
            InvalidError: too many blocks were disturbed.
        """
        began = self._clock()
        self._cycles()
        for cycle in range(1, min(BESIDE_CYCLES, self._plan.factors.cycles) + 1):
            self._cycle(self._plan.beside, "beside", cycle)
        for repeat in range(self._plan.factors.overload_repeats):
            # The time of replaced blocks is taken from the last overloads, never from the first.
            spent = self._clock() - began
            if repeat and spent + self._plan.overload_seconds() > self._plan.factors.budget_seconds:
                break
            for name in self._plan.overloaded:
                self._overload(name)
        for name in self._plan.killed:
            self._kills.append(self._bed.kill(self._plan.variant(name)))
            self._folder.write("kills.json", tuple[Kill, ...], tuple(self._kills))
        for name in self._plan.curve:
            for load in CURVE_LOADS:
                blocks = self._just_measured(name)
                throughput = median(block.throughput_per_second for block in blocks)
                for _ in range(PHASE_TRIES):
                    if not self._phase("curve", name, load * throughput, CURVE_SECONDS).invalid_because:
                        break
        self._ramp()
        self._cases(began)

    def _cycles(self) -> None:
        """Cycles of all variants up to the first look, then of those that an undecided claim needs."""
        plan, looks, began = self._plan, self._plan.looks, self._clock()
        names = plan.measured
        if not names:
            return
        for cycle in range(1, looks[-1] + 1):
            self._cycle(names, "cycle", cycle)
            summary = self._folder.build()
            self._board.cycle(cycle, summary)
            if cycle in looks:
                spent = self._clock() - began
                still_open = undecided(summary)
                names = tuple(name for name in plan.measured if name in still_open)
                next_look = min((look for look in looks if look > cycle), default=cycle)
                more = (next_look - cycle) * len(names) * spent / len(self._blocks)
                after = plan.seconds_after_cycles(BESIDE_CYCLES)
                if not names or spent + more + after > plan.factors.budget_seconds:
                    return

    def _cycle(self, names: tuple[str, ...], part: Literal["cycle", "beside"], cycle: int) -> None:
        try:
            for name in self._plan.order(names, cycle):
                self._block(name, part, cycle)
        finally:
            # Also after Ctrl-C: the ledger of a measured block is kept.
            self._folder.write("blocks.json", tuple[Block, ...], tuple(self._blocks))

    def _block(self, name: str, part: Literal["cycle", "beside"], cycle: int) -> None:
        """Measure one block; again if it was disturbed."""
        for _ in range(TRIES):
            block = self._bed.block(self._plan.variant(name), part, cycle)
            self._blocks.append(block)
            self._board.block(block)
            if not block.void_because:
                return
            self._check_void()

    def _check_void(self) -> None:
        void = [block for block in self._blocks if block.void_because]
        if len(void) > max(FEW_VOID, MOST_VOID * (len(self._blocks) - len(void))):
            raise InvalidError(
                f"{len(void)} of {len(self._blocks)} blocks were disturbed: "
                f"{_commonest(block.void_because[0] for block in void)}"
            )

    def _just_measured(self, name: str) -> list[Block]:
        """The last blocks of this variant, or of one with the same work.

        Raises:
            InvalidError: all of these blocks were disturbed.
        """
        wanted = self._plan.variant(name)
        found: dict[tuple[bool, bool], list[Block]] = {}  # by how it differs, the least first
        for block in self._blocks:
            variant = self._plan.variant(block.variant)
            same = variant.workers == wanted.workers and variant.work == wanted.work
            if same and variant.work_units == wanted.work_units and not block.void_because:
                differs = (variant.name != name, variant.offload != wanted.offload)
                found.setdefault(differs, []).append(block)
        if not found:
            raise InvalidError(f"the throughput of {name} is unknown: all of its blocks were disturbed")
        return found[min(found)][-3:]

    def _overload(self, name: str) -> None:
        """Offer more than the limit, workers / S; once more if that was not enough, or disturbed.

        Not a multiple of the throughput: a loop that works inline serves 0.85 / S, and 1.5 times that is so
        little pressure that no queue builds up on a core that is a quarter faster for a moment. S is that of
        the overload before, if there was one, because the blocks may be half a minute old: in one run a core
        was half as fast in the last three of them, and all overloads stayed below the limit.
        """
        factors, workers = self._plan.factors, self._plan.variant(name).workers
        for _ in range(PHASE_TRIES):
            if name not in self._demand:
                self._demand[name] = median(block.demand_seconds for block in self._just_measured(name))
            rate = factors.overload * workers / self._demand[name]
            result = self._phase("overload", name, rate, factors.overload_seconds)
            self._demand[name] = result.demand_seconds or self._demand[name]
            if not result.invalid_because and (result.pressure or PRESSED) >= PRESSED:
                break

    def _phase(
        self, kind: Literal["overload", "ramp", "curve"], name: str, rate: float, seconds: float
    ) -> PhaseResult:
        result = self._bed.phase(kind, self._plan.variant(name), rate, seconds)
        self._board.phase(result)
        return result

    def _ramp(self) -> None:
        """Rising rates; a disturbed phase is not repeated, because the rates of the post kept rising."""
        ramp = self._plan.ramp
        if ramp is not None:
            for number, rate in enumerate(ramp.rates_per_second):
                for name in ramp.variants if number % 2 else ramp.variants[::-1]:
                    self._phase("ramp", name, rate, ramp.phase_seconds)

    def _cases(self, began: float) -> None:
        """Each case of the trigger, S measured just before it; once more if it was void and there is time.

        Raises:
            InvalidError: not one of them may be judged.
        """
        trigger, factors = self._plan.trigger, self._plan.factors
        if trigger is None:
            return
        for number, case in enumerate(trigger.cases, 1):
            left = (len(trigger.cases) - number + 1) * self._plan.case_seconds()
            for _ in range(PHASE_TRIES):
                self._cycle((trigger.variant,), "beside", number)
                just_before = self._just_measured(trigger.variant)[-1]
                self._recoveries.append(self._bed.recovery(case, just_before, self._board.sending(case)))
                self._folder.write("recoveries.json", tuple[Recovery, ...], tuple(self._recoveries))
                self._board.recovery(self._recoveries)
                spent = self._clock() - began
                if not self._recoveries[-1].void_because or spent + left > factors.budget_seconds:
                    break
        void = [one.void_because[0] for one in self._recoveries if one.void_because]
        if len(void) == len(self._recoveries):
            raise InvalidError(f"all {len(void)} cases were void: {_commonest(void)}")


def _commonest(reasons: Iterable[str]) -> str:
    """The most frequent reason, apart from the figures in which the reasons differ."""
    found = list(reasons)
    starts = [reason.split(" of ")[0].rstrip("0123456789% ") for reason in found]
    most = max(starts, key=starts.count)
    shown = [reason for reason, start in zip(found, starts, strict=True) if start == most]
    return shown[len(shown) // 2]
