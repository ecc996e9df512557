"""Runs proofs in full and keeps the last results: figures, date, machine and command, in docs/proofs/."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.machine import environment
from tests.support import ROOT

FOLDER = ROOT / "docs/proofs"


def prove(name: str, proofs: Mapping[str, Callable[[Path], Any]]) -> int:
    """Run all parts of `make NAME`, each in a folder of its own, and keep the figures; 0 if all hold."""
    found = {}
    for part, proof in proofs.items():
        print(f"{part} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[part] = proof(Path(folder))
        print(json.dumps(found[part]), file=sys.stderr, flush=True)
    keep(name, f"make {name}", found)
    return os.EX_OK


def keep(name: str, command: str, figures: Any) -> None:
    """Write docs/proofs/NAME.json; the run before it is in the repository's history."""
    found = environment()
    machine = {key: getattr(found, key) for key in ("cpu", "cores", "kernel", "python")}
    made = {"command": command, "date": found.date, "machine": machine}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps({**made, "figures": figures}, indent=1) + "\n")
    print(f"kept in docs/proofs/{name}.json")
