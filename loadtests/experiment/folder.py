"""The run folder: the boundary between measuring and everything that is drawn from it.

    plan.json          what will be done; written before the first connection
    environment.json   what it was measured on
    status.json        running, complete, interrupted or failed
    phases/ID/         plan.json, load.json (samples), server.json (the watch); ID-discarded: repeated
    summary.json       what results.py makes of the phases
    verdict.txt, *.png, *.svg   what report.py makes of the summary

Touches files below one folder. Computes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtests.experiment.matrix import Plan, Step
from loadtests.files import write_json
from loadtests.load.facts import GeneratorFacts
from loadtests.load.generator import read_samples
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample

DISCARDED = "-discarded"


class FolderError(Exception):
    """The folder cannot be written, or does not hold a run; the message is one sentence."""


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new folder; one that already holds a run is left alone.

        Raises:
            FolderError: it cannot be written, or a run is in it.
        """
        try:
            (path / "phases").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(f"cannot write the run folder {path}: {error.strerror}") from error
        if (path / "plan.json").exists():
            raise FolderError(f"{path} already holds a run; choose another folder with --out")
        return cls(path)

    def write(self, name: str, value: object) -> None:
        """Write one JSON file whole."""
        write_json(self.path / name, value, indent=1)

    def read(self, name: str) -> Any:
        """Read one JSON file.

        Raises:
            FolderError: it is missing or not JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FolderError(f"{self.path} does not hold a readable run: {name}: {error}") from error

    def plan(self) -> Plan:
        """The plan."""
        return Plan.from_json(self.read("plan.json"))

    @property
    def log(self) -> Path:
        """Where the services under test log."""
        return self.path / "service.log"

    def phase(self, step: Step) -> Path:
        """The folder of one phase, made if need be."""
        folder = self.path / "phases" / step.id
        folder.mkdir(exist_ok=True)
        return folder

    def load_of(self, step: Step) -> Path:
        """The file that the generator writes."""
        return self.phase(step) / "load.json"

    def write_server(self, step: Step, phase: Phase, watched: dict[str, Any]) -> None:
        """Keep what was ordered and what the watch saw."""
        write_json(self.phase(step) / "plan.json", phase.to_json(), indent=1)
        write_json(self.phase(step) / "server.json", watched)

    def discard(self, step: Step) -> None:
        """Set a phase aside that says nothing about the server; its books still count."""
        self.phase(step).rename(self.path / "phases" / f"{step.id}{DISCARDED}")

    def is_measured(self, step: Step) -> bool:
        """Whether the phase has both sides."""
        folder = self.path / "phases" / step.id
        return (folder / "load.json").exists() and (folder / "server.json").exists()

    def raw(self, step: Step) -> tuple[Phase, list[Sample], GeneratorFacts, dict[str, Any]]:
        """Phase, samples, the generator's facts and the watch of one phase."""
        where = f"phases/{step.id}"
        samples, facts = read_samples(self.load_of(step))
        return (
            Phase.from_json(self.read(f"{where}/plan.json")),
            samples,
            facts,
            self.read(f"{where}/server.json"),
        )
