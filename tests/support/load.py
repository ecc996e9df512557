"""Good clients, and a look at the service meanwhile."""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtests.load.sample import Sample, from_columns
from metrics.exposition import total
from tests.support import ROOT
from tests.support.child import Child
from tests.support.processes import cpu_seconds
from tests.support.waiting import every

SUMMARY = "summary.json"


def load(
    address: str, seconds: float, rate: float, out: Path, path: str = "/data", *more: str
) -> dict[str, Any]:
    """Good clients: our own open loop, a connection per request; returns its summary, kept in `out`.

    Without a run folder, whose page would be drawn for another second.
    """
    with _started(address, seconds, rate, out, path, *more) as process:
        return _summary(process, seconds, out)


def _started(
    address: str, seconds: float, rate: float, out: Path, path: str, *more: str
) -> subprocess.Popen[bytes]:
    out.mkdir()
    command = [sys.executable, "-m", "loadtests", "run", f"{address}{path}", "--rate", f"{rate:g}"]
    command += ["--duration", f"{seconds:g}", "--json", str(out / SUMMARY), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _summary(process: subprocess.Popen[bytes], seconds: float, out: Path) -> dict[str, Any]:
    try:
        process.wait(seconds + 60)
    finally:
        process.kill()
    summary: dict[str, Any] = json.loads((out / SUMMARY).read_text())
    return summary


class Load:
    """Good clients in the background; their samples are kept with `--out` and a folder among the flags."""

    def __init__(
        self, address: str, seconds: float, rate: float, out: Path, *more: str, path: str = "/data"
    ) -> None:
        self._seconds = seconds
        self._out = out
        self._process = _started(address, seconds, rate, out, path, *more)
        atexit.register(self._process.kill)  # a proof that fails does not wait for them

    def samples(self, folder: Path) -> list[Sample]:
        """Every request, when all are over, from the run folder."""
        self.outcomes()
        return from_columns(json.loads((folder / "samples.json").read_text()))

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End them before their time, as Ctrl-C does: the summary is of those until then."""
        self._process.send_signal(signal.SIGINT)

    def summary(self) -> dict[str, Any]:
        """The summary, when all are over."""
        return _summary(self._process, self._seconds, self._out)

    def outcomes(self) -> dict[str, int]:
        """What became of every request, when all are over."""
        return dict(self.summary()["outcomes"])


def accepted(child: Child) -> float:
    return child.scrape()["http_connections_accepted_total"]


@contextmanager
def watched(child: Child) -> Iterator[list[dict[str, float]]]:
    """Scrape the service about three times a second meanwhile; each row also holds `time` and `cpu`."""
    rows: list[dict[str, float]] = []

    def watch() -> None:
        row = child.scrape()
        rows.append({**row, "time": time.monotonic(), "cpu": cpu_seconds(child.process.pid)})

    with every(0.3, watch):
        yield rows


def torn(rows: list[dict[str, float]]) -> int:
    """Scrapes in which accepted is not completed + active."""
    return sum(
        row["http_connections_accepted_total"]
        != total(row, "http_connections_completed_total") + row["http_connections_active"]
        for row in rows
    )
