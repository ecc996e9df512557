"""Do we measure what others measure? The generator beside wrk and hey: `make beside-tools`.

All three ask a server that holds every request for 5 ms, in turns, the same number of closed clients, and a
connection for each request. They can only agree on the same span: from connected to the last byte. What
each calls its latency is another matter (sources: wrk 4.1.0, src/wrk.c and src/stats.c; hey 0.1.4,
requester/requester.go and report.go; what the columns of its CSV hold is there as well):

* wrk's clock starts as it is about to write the request on a connection that stands (`socket_writeable`),
  and stops when the parser has seen the end of the answer (`response_complete`): connecting is in no figure
  of wrk. It counts in microseconds. At its end `stats_correct` makes up values for those who would have
  waited behind an answer that took two mean cycles or more. All of them are above one mean cycle, so the
  middle of as many values as there were requests, counted from below, is the median of what was measured.
* hey's clock starts before it asks for a connection, and stops when the body is read and closed: its
  response-time contains connecting. httptrace's GotConn ends that part (the column DNS+dialup). The
  difference of the two is our span; the lines are rounded to 0.1 ms, 2 % of what is measured here.
* Ours keeps the moments themselves, `connected` and `finished` (loadtests/load/connection.py). On loopback
  `connected` is read when the send() behind connect() has returned, so up to some 10 us after the server can
  have read the request; `finished` is read when the socket is ready, before the last recv().

Above the server's hold, by its own clock, are the way there and back, wake-ups, and the tool's own work. With
one client nothing waits for another one's work, and the tools differ in where they look at the clock. With
four, all wait equally long, so answers come close together, and the last of them waits while server and tool
work on the others: that shows the tool's CPU, not its clock. The parts tell which it is: our way there and
back, by both clocks, which are one (CLOCK_MONOTONIC); and what hey spends on either side of the answer,
between goroutines.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from loadtests.experiment.statistics import hodges_lehmann
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from tests.proofs.record import keep
from tests.support import ROOT
from tests.support.tools import need, run

HOLD_MS: Final = 5.0
CLIENTS: Final = (1, 4)
ROUNDS: Final = 5
SECONDS: Final = 2
WITHIN: Final = (0.05, 0.10)  # of the median: agreed; agreed, with a reason

# Five pairs cannot say more: all of them have the same sign by chance in 2 of 32 cases.
LEVEL: Final = 0.9375

PAIRS: Final = (("offloop", "wrk"), ("offloop", "hey"))
REASONS: Final = {
    "offloop - wrk": "answers that come together wait for our work on one another (sent to finished)",
    "offloop - hey": "hey's span holds hand-overs between goroutines, at either end",
}

HEY_TICK: Final = 1e-4  # seconds; its lines have four digits behind the point

# `latency(n)` gives the n-th different value, in microseconds, and how often it came.
WRK_SCRIPT: Final = """
wrk.headers["Connection"] = "close"
function done(summary, latency, requests)
  local seen, n = 0, 0
  local value, count
  while seen < summary.requests / 2 do
    n = n + 1
    value, count = latency(n)
    seen = seen + count
  end
  local errors = summary.errors
  io.write(string.format("median %d us of %d requests, %d failed\\n", value, summary.requests,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a tool found: median seconds from connected to the last byte, of so many requests.

    `moments`: ours alone, by local port: connected and finished. `parts`: hey's alone, medians in seconds.
    """

    median: float
    count: int
    moments: dict[int, tuple[float, float]] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What one run of a tool showed, all medians in seconds: as the tool says, and as the server held it."""

    median: float
    hold: float
    parts: dict[str, float]


class Server:
    """The server that holds every request for the same time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._reports = process.stdin, process.stdout
        self.url = f"http://127.0.0.1:{int(self._reports.readline())}/"

    def report(self) -> dict[str, Any]:
        """What it has seen since it was last asked."""
        self._orders.write("\n")
        self._orders.flush()
        seen: dict[str, Any] = json.loads(self._reports.readline())
        return seen


@contextmanager
def server(hold_ms: float = HOLD_MS) -> Iterator[Server]:
    """Start one, and end it."""
    command = [sys.executable, "-m", "tests.proofs.fixed_answer", f"{hold_ms:g}"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def wrk(url: str, clients: int, seconds: float, folder: Path) -> Answered:
    """wrk, for whole seconds."""
    (folder / "median.lua").write_text(WRK_SCRIPT)
    command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{max(1, round(seconds))}s"]
    code, said = run([*command, "-s", folder / "median.lua", url], folder)
    found = re.search(r"^median (\d+) us of (\d+) requests, (\d+) failed$", said, re.MULTILINE)
    assert code == 0, said
    assert found, said
    median, count, failed = map(int, found.groups())
    assert not failed, said
    return Answered(median / 1e6, count)


def hey(url: str, clients: int, seconds: float, folder: Path) -> Answered:
    """hey, with a line per request."""
    command = ["hey", "-z", f"{seconds:g}s", "-c", str(clients), "-disable-keepalive", "-o", "csv", url]
    code, said = run(command, folder)
    assert code == 0, said
    return hey_answered(said)


def hey_answered(said: str) -> Answered:
    """Medians of hey's lines; within a step of 0.1 ms they are taken as evenly spread."""
    rows = list(csv.DictReader(said.splitlines()))
    assert rows, said
    assert {row["status-code"] for row in rows} == {"200"}, said

    def median(of: Callable[[dict[str, str]], float]) -> float:
        return statistics.median_grouped([round(of(row) / HEY_TICK) for row in rows], 1) * HEY_TICK

    return Answered(
        median(lambda row: float(row["response-time"]) - float(row["DNS+dialup"])),
        len(rows),
        parts={
            "connected to written": median(lambda row: float(row["Request-write"])),
            "first byte to closed": median(lambda row: float(row["Response-read"])),
        },
    )


def ours(url: str, clients: int, seconds: float, folder: Path) -> Answered:
    """The generator, in a process of its own as ever."""
    path = folder / "samples.json"
    with Generator() as generator:
        for _ in generator.run(Phase(url=url, clients=clients, duration_seconds=seconds), path):
            pass
    samples, _ = read_samples(path)
    moments = {}
    for sample in samples:
        assert sample.outcome == "ok", sample
        assert None not in (sample.connected, sample.finished, sample.local_port)
        moments[sample.local_port or 0] = (sample.connected or 0.0, sample.finished or 0.0)
    spans = [finished - connected for connected, finished in moments.values()]
    return Answered(statistics.median(spans), len(samples), moments)


TOOLS: Final = {"offloop": ours, "wrk": wrk, "hey": hey}


def measure(place: Server, clients: int, seconds: float, folder: Path, number: int) -> dict[str, Found]:
    """One round of all three, each round begun by another.

    What a tool counts must be what the server counts, and each request a connection. wrk is cut off with
    requests under way, and tries the address once before it begins.
    """
    found = {}
    names = list(TOOLS)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        place.report()
        answered = TOOLS[name](place.url, clients, seconds, folder)
        seen = place.report()
        extra, cut_off = (1, clients) if name == "wrk" else (0, 0)
        books = (name, answered.count, seen["read"], seen["accepted"])
        assert answered.count <= seen["read"] <= answered.count + cut_off, books
        assert seen["read"] <= seen["accepted"] <= seen["read"] + extra + cut_off, books
        hold = statistics.median(sent - read for _, read, sent in seen["answered"])
        parts = answered.parts | ways(answered.moments, seen["answered"])
        found[name] = Found(answered.median, hold, parts)
    return found


def ways(
    moments: dict[int, tuple[float, float]], answers: Sequence[tuple[int, float, float]]
) -> dict[str, float]:
    """Our way there and back, medians in seconds: both processes read the same clock."""
    trips = [(*moments[port], read, sent) for port, read, sent in answers if port in moments]
    if not trips:
        return {}
    return {
        "connected to read": statistics.median(read - connected for connected, _, read, _ in trips),
        "sent to finished": statistics.median(finished - sent for _, finished, _, sent in trips),
    }


def judge(pair: str, mine: Sequence[float], theirs: Sequence[float]) -> dict[str, str]:
    """The paired difference of medians (seconds), its interval, and within what share of theirs that lies."""
    estimate = hodges_lehmann([a - b for a, b in zip(mine, theirs, strict=True)], 1 - LEVEL)
    middle = statistics.median(theirs)
    ends = (estimate.value, estimate.low, estimate.high)
    told = {
        "ms": "{:+.3f} ({:+.3f} to {:+.3f})".format(*(end * 1000 for end in ends)),
        "share": "{:+.1%} ({:+.1%} to {:+.1%})".format(*(end / middle for end in ends)),
    }
    furthest = max(abs(estimate.low), abs(estimate.high)) / middle
    if furthest <= WITHIN[0]:
        return {**told, "within": f"{WITHIN[0]:.0%}"}
    if furthest <= WITHIN[1]:
        return {**told, "within": f"{WITHIN[1]:.0%}", "because": REASONS[pair]}
    return {**told, "within": "no"}


def compare(clients: int, rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All rounds with so many clients, and what they say of each pair of tools."""
    found: list[dict[str, Found]] = []
    with server() as place:
        for number in range(rounds):
            found.append(measure(place, clients, seconds, folder, number))
            row = ", ".join(f"{name} {run.median * 1000:.3f} ms" for name, run in found[-1].items())
            print(f"clients {clients}: {row}", file=sys.stderr, flush=True)
    medians = {name: [row[name].median for row in found] for name in TOOLS}
    return {
        "median ms": {name: [round(value * 1000, 3) for value in row] for name, row in medians.items()},
        "above the server's hold us": {
            name: [round((row[name].median - row[name].hold) * 1e6) for row in found] for name in TOOLS
        },
        "parts us": {
            f"{name}: {part}": round(statistics.median(row[name].parts[part] for row in found) * 1e6)
            for name in TOOLS
            for part in found[0][name].parts
        },
        **{
            f"{mine} - {theirs}": judge(f"{mine} - {theirs}", medians[mine], medians[theirs])
            for mine, theirs in PAIRS
        },
    }


def main() -> int:
    """Compare and keep the figures; 1 if ours says something else than one of the others."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.beside_tools", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help=f"default: {SECONDS}")
    seconds = parser.parse_args().seconds
    try:
        for tool in ("wrk", "hey"):
            need(tool, tool)
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return os.EX_OK
    with tempfile.TemporaryDirectory() as folder:
        found = {f"clients {clients}": compare(clients, ROUNDS, seconds, Path(folder)) for clients in CLIENTS}
    plan = {"hold ms": HOLD_MS, "rounds": ROUNDS, "seconds each": seconds, "level of the intervals": LEVEL}
    keep("beside-tools", "make beside-tools", plan | found)
    print(json.dumps(found, indent=1))
    judged = [row[f"{mine} - {theirs}"] for row in found.values() for mine, theirs in PAIRS]
    return 1 if any(pair["within"] == "no" for pair in judged) else os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
