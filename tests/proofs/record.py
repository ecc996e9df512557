"""Keeps the last full result of a proof: figures with date, machine and command, in docs/proofs/."""

from __future__ import annotations

import json
from typing import Any

from loadtests.machine import environment
from tests.process.support import ROOT

FOLDER = ROOT / "docs/proofs"


def keep(name: str, command: str, figures: Any) -> None:
    """Write docs/proofs/NAME.json; the run before it is in the repository's history."""
    found = environment()
    machine = {key: found[key] for key in ("cpu", "cores", "kernel", "python")}
    made = {"command": command, "date": found["date"], "machine": machine}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps({**made, "figures": figures}, indent=1) + "\n")
    print(f"kept in docs/proofs/{name}.json")
