"""Whether the experiment says the same every time: `make repeats`, `make neighbours`.

Runs a preset one time after the other, alone or beside a neighbour that this proof starts, and keeps the
verdicts and intervals as one small table. No claim may have opposite verdicts in two runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtests.experiment.finding import DID_NOT_HOLD, HELD
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import judge
from tests.proofs.record import FOLDER, keep

PULSE_SECONDS = 3.0
NEIGHBOURS = ("none", "steady", "pulsed")


@contextlib.contextmanager
def neighbour(kind: str) -> Iterator[None]:
    """One busy core beside the run: all the time, or three seconds on and three seconds off."""
    stop = threading.Event()

    def spin() -> None:
        command = [
            "stress-ng",
            "--cpu",
            "1",
            "--timeout",
            "600" if kind == "steady" else str(int(PULSE_SECONDS)),
        ]
        while not stop.is_set():
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spinner:
                while spinner.poll() is None and not stop.wait(0.05):
                    pass
                spinner.terminate()
            stop.wait(PULSE_SECONDS)

    thread = threading.Thread(target=spin)
    if kind != "none":
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if kind != "none":
            thread.join()


def once(preset: str, seed: int, kind: str, folder: Path) -> Summary:
    """One run of the experiment as a person would start it."""
    command = [sys.executable, "-m", "loadtests", "experiment", "--preset", preset, "--out", str(folder)]
    with (
        neighbour(kind),
        subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.DEVNULL) as experiment,
    ):
        try:
            code = experiment.wait(timeout=900)
        except BaseException:
            experiment.terminate()  # killed, it would leave what it has started
            experiment.wait(timeout=60)
            raise
    if code not in (0, 3):
        raise SystemExit(f"the experiment ended with exit code {code}")
    return RunFolder(folder).summary()


def row_of(summary: Summary) -> dict[str, Any]:
    """What one run said."""
    void = [bool(block.void_because) for block in summary.blocks]
    void += [bool(case.void_because) for case in summary.recoveries]
    row: dict[str, Any] = {
        "state": summary.status.state,
        "seconds": round(summary.status.seconds),
        "void": sum(void),
        "blocks": len(void),
    }
    if summary.status.state == "invalid":
        return {**row, "because": summary.status.invalid_because}
    for verdict in judge(summary):
        estimate = verdict.finding.estimate
        row[verdict.claim] = verdict.verdict + (f": {estimate}" if estimate is not None else "")
    return row


def opposites(rows: list[dict[str, Any]]) -> list[str]:
    """Claims that held in one run and did not hold in another."""
    words: dict[str, set[str]] = {}
    for row in rows:
        for claim, told in row.items():
            words.setdefault(claim, set()).add(str(told).partition(":")[0])
    return [claim for claim, said in words.items() if {HELD, DID_NOT_HOLD} <= said]


def counts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """How often each claim got each verdict."""
    told: dict[str, Counter[str]] = {}
    for row in rows:
        for claim, text in row.items():
            if claim not in ("state", "seconds", "void", "blocks", "because"):
                told.setdefault(claim, Counter())[str(text).partition(":")[0]] += 1
    return {
        claim: ", ".join(f"{word} {count}" for word, count in found.most_common())
        for claim, found in told.items()
    }


@dataclasses.dataclass(frozen=True)
class Order:
    """What to repeat, and under which name its rows are kept.

    `kept`: where the run folders stay; None: nowhere.
    """

    preset: str
    runs: int
    neighbour: str
    kept: Path | None = None

    @property
    def name(self) -> str:
        """Such as `quick`, or `quick beside a steady neighbour`."""
        return (
            self.preset if self.neighbour == "none" else f"{self.preset} beside a {self.neighbour} neighbour"
        )


def repeat(order: Order) -> dict[str, Any]:
    """All runs of an order: counts, and a row for each."""
    rows = []
    for number in range(1, order.runs + 1):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "run" if order.kept is None else order.kept / str(number)
            rows.append(row_of(once(order.preset, number, order.neighbour, folder)))
        print(f"{order.name} {number}/{order.runs}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
        time.sleep(2)  # what the run left to the kernel is not the next one's
    return {"runs": order.runs, "verdicts": counts(rows), "opposite": opposites(rows), "rows": rows}


def main() -> int:
    """Repeat what argv says, and keep it beside what was kept before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--neighbour", choices=NEIGHBOURS, default="none")
    parser.add_argument("--folder", type=Path, help="keep the run folders here")
    given = parser.parse_args()
    order = Order(given.preset, given.runs, given.neighbour, given.folder)
    found = repeat(order)
    file = FOLDER / "repeats.json"
    kept = json.loads(file.read_text())["figures"] if file.exists() else {}
    keep("repeats", "make repeats, make neighbours", {**kept, order.name: found})
    return 1 if found["opposite"] else 0


if __name__ == "__main__":
    sys.exit(main())
