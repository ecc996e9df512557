"""The run folder: the boundary between measuring and drawing.

    plan.json          what will be done; written before the first connection
    environment.json   what it was measured on
    status.json        running, complete, invalid, interrupted or failed
    blocks.json        all blocks so far, void ones too
    phases/ID/         raw.json (the order and the readings), load.json (the samples)
    kills.json         what clients saw of a killed worker
    recoveries.json    what came after the trigger, all cases so far
    NAME.log           the log of the service of that variant
    summary.json       the figures that follow from these, without the samples
    verdict.txt, report.html, *.png, *.svg   what report.py draws from the summary

Touches files below one folder. Computes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from loadtests.exits import UsageError
from loadtests.experiment.blocks import Block
from loadtests.experiment.plan import Plan
from loadtests.experiment.recovery import Recovery
from loadtests.experiment.results import Kill, PhaseResult, Raw, Status, Summary, phase_result, stretches
from loadtests.files import by_line, write_whole
from loadtests.load.facts import GeneratorFacts
from loadtests.load.generator import read_samples
from loadtests.load.sample import Sample
from loadtests.machine import Environment

T = TypeVar("T")
SUMMARY: Final = TypeAdapter(Summary)


class FolderError(UsageError):
    """The folder cannot be written, or does not hold a run; the message is one sentence."""


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new folder; one that already holds a run is left unchanged.

        Raises:
            FolderError: it cannot be written, or already holds a run.
        """
        try:
            (path / "phases").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(f"cannot write the run folder {path}: {error.strerror}") from error
        if (path / "plan.json").exists():
            raise FolderError(f"{path} already holds a run; choose another folder with --out")
        return cls(path)

    def log_of(self, variant: str) -> Path:
        """The log file of that variant's service."""
        return self.path / f"{variant}.log"

    def write(self, name: str, kind: type[T], value: T) -> None:
        """Write one value as a whole, a line for each item of a list, so that diffs can be read."""
        write_whole(self.path / name, by_line(TypeAdapter(kind).dump_python(value, mode="json")))

    def read(self, name: str, kind: type[T]) -> T:
        """Read one value back.

        Raises:
            FolderError: it is missing, or has another form.
        """
        try:
            return TypeAdapter(kind).validate_json((self.path / name).read_bytes())
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else _first_of(error)
            raise FolderError(f"{self.path} does not hold a readable run: {name}: {reason}") from error

    def samples_of(self, phase_id: str) -> Path:
        """The file that the generator writes for a phase; its folder is made if necessary."""
        folder = self.path / "phases" / phase_id
        folder.mkdir(exist_ok=True)
        return folder / "load.json"

    def write_raw(self, raw: Raw) -> None:
        """Keep the order of a phase and the readings during it."""
        self.write(f"phases/{raw.id}/raw.json", Raw, raw)

    def phases(self, plan: Plan) -> tuple[list[PhaseResult], list[Block]]:
        """All phases with order and samples, in the order in which they ran; and the blocks of a ramp."""
        results, blocks = [], []
        for number, file in enumerate(sorted((self.path / "phases").glob("*/raw.json"))):
            raw = self.read(str(file.relative_to(self.path)), Raw)
            samples, facts = self._samples(plan, raw)
            results.append(phase_result(plan, raw, samples, facts))
            if raw.kind == "ramp":
                blocks += stretches(plan, raw, facts, number // len(plan.ramp.variants) if plan.ramp else 0)
        return results, blocks

    def build(self) -> Summary:
        """The summary of the measurements so far.

        Raises:
            FolderError: the folder holds no run.
        """
        plan = self.read("plan.json", Plan)
        results, cut = self.phases(plan)
        return Summary(
            status=self.read("status.json", Status),
            environment=self.read("environment.json", Environment),
            plan=plan,
            blocks=(*self._list("blocks.json", tuple[Block, ...]), *cut),
            phases=tuple(results),
            kills=self._list("kills.json", tuple[Kill, ...]),
            recoveries=self._list("recoveries.json", tuple[Recovery, ...]),
        )

    def summary(self) -> Summary:
        """The summary as it was written, or built again if there is none.

        Raises:
            FolderError: the folder holds no experiment.
        """
        if (self.path / "summary.json").exists():
            return self.read("summary.json", Summary)
        return self.build()

    def _samples(self, plan: Plan, raw: Raw) -> tuple[list[Sample], GeneratorFacts]:
        try:
            plan.variant(raw.variant)
            return read_samples(self.samples_of(raw.id))
        except (OSError, LookupError, ValueError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            where = f"{self.path} does not hold a readable run: phase {raw.id}"
            raise FolderError(f"{where}: {reason}") from error

    def _list(self, name: str, kind: type[tuple[T, ...]]) -> tuple[T, ...]:
        return self.read(name, kind) if (self.path / name).exists() else ()


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}{': ' if place else ''}{first['msg']} (did another version write it?)"


def holds_experiment(path: Path) -> bool:
    """Whether `experiment` wrote a folder."""
    try:
        plan: Any = json.loads((path / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (path / "summary.json").exists() and not (path / "samples.json").exists()
    return isinstance(plan, dict) and "preset" in plan
