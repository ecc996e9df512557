"""What clients feel at three and at ten times the limit, and what the service says of it: `make overload`.

For each row the limit is measured just before: workers / S, S the CPU time of a task under load. Then so many
times that is offered, while a slow stream of requests asks for a route that needs no worker. Latencies are
those of the clients, from the intended send.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.load.sample import OK, elapsed
from loadtests.neighbours import Neighbours
from tests.proofs.record import prove
from tests.support.child import Child, service
from tests.support.load import Load, load
from tests.support.processes import cpu_seconds

Figures = dict[str, Any]

QUEUE_WAIT_SECONDS = 0.2
"""The default of the service."""

MARGIN_SECONDS = 0.05
TRIVIAL_P99_SECONDS = 0.02
OF_THE_REST = 0.95
"""Least share of goodput in the CPU time that all others leave to the workers: what these use, and what is
idle. What the kernel does for clients and IO process counts as theirs: no process is charged for it."""

EDGE_SECONDS = 2.0
"""At both ends of a load, in which CPU time is not counted: its processes start and end."""

SAME_SHARE, SAME_SECONDS = 0.05, 0.002
DURATION = "http_request_duration_seconds_{}{{route=/data,status_class=2xx}}"
WORKERS = 2
MOST_PER_SECOND = 4000
"""What one generator offers on time."""


class Row(NamedTuple):
    """Work in milliseconds, and times the limit."""

    work_ms: float
    times: float


ROWS = (Row(4, 3), Row(40, 3), Row(40, 10), Row(4, 10))


def limit_of(child: Child, address: str, folder: Path, work_ms: float) -> float:
    """Tasks per second that the workers can do, from what they took when they had no pause."""
    before = child.scrape()
    load(address, 3.0, min(3 * WORKERS * 1000 / work_ms, MOST_PER_SECOND), folder, "/data", "--timeout", "2")
    after = child.scrape()
    name = "offload_task_cpu_seconds"
    tasks = after[f"{name}_count"] - before[f"{name}_count"]
    return WORKERS * tasks / (after[f"{name}_sum"] - before[f"{name}_sum"])


class Moment(NamedTuple):
    """Readings of one moment; all since the start."""

    counts: dict[str, float]
    left_seconds: float  # CPU time of the workers and what belongs to them, and of idle cores


def read(child: Child, machine: Neighbours) -> Moment:
    """What the service counts, and what was left to its workers."""
    workers = sum(cpu_seconds(pid) for pid in child.session() - {child.process.pid})
    return Moment(child.scrape(), workers + machine.read().idle_seconds)


def _asked(child: Child, route: str, before: dict[str, float]) -> bool:
    """Whether somebody has asked for this route since then."""

    def answers(counts: dict[str, float]) -> float:
        return sum(
            count
            for name, count in counts.items()
            if name.startswith(f"http_requests_total{{method=GET,route={route},")
        )

    return answers(child.scrape()) > answers(before)


def overload(folder: Path, row: Row, seconds: float) -> Figures:
    """One row; what holds of it is in its figures."""
    flags = ("--work-ms", f"{row.work_ms:g}", "--workers", str(WORKERS))
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        limit = limit_of(child, address, folder / "limit", row.work_ms)
        rate = min(row.times * limit, MOST_PER_SECOND)
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        machine = Neighbours()
        before, usage = child.scrape(), machine.read()
        more = ("--timeout", "2", "--out", str(folder / "kept"))
        data = Load(address, seconds, rate, folder / "data", *more)
        healthz = Load(address, seconds, 20, folder / "trivial", path="/healthz")
        child.wait_until(lambda: _asked(child, "/data", before) and _asked(child, "/healthz", before))
        time.sleep(EDGE_SECONDS)
        first = read(child, machine)
        time.sleep(seconds - 2 * EDGE_SECONDS)
        last = read(child, machine)
        summary, trivial, samples = data.summary(), healthz.summary(), data.samples(folder / "kept")
        stolen = machine.read().stolen_seconds - usage.stolen_seconds
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        after = child.scrape()
        assert child.end() == 0

    def gained(name: str, since: dict[str, float] = before, until: dict[str, float] = after) -> float:
        return until[name] - since.get(name, 0.0)

    took = [elapsed(one.started, one.finished) for one in samples if one.outcome == OK]
    client = sum(took) / len(took)
    answers = gained(DURATION.format("count"))
    assert answers >= len(took) > 0
    told = gained(DURATION.format("sum")) / answers
    cost = gained("offload_task_cpu_seconds_sum", first.counts, last.counts) / gained(
        "offload_task_cpu_seconds_count", first.counts, last.counts
    )
    bound = QUEUE_WAIT_SECONDS + 2 * cost + MARGIN_SECONDS
    good = gained(DURATION.format("count"), first.counts, last.counts) * cost
    share = good / (last.left_seconds - first.left_seconds)
    p99, trivial_p99 = (one["answered_latency_seconds"]["p99"] for one in (summary, trivial))
    return {
        "offered per second": round(rate),
        "times the limit": round(rate / limit, 1),
        "S ms": round(cost * 1e3, 2),
        "goodput per second": round(len(took) / seconds, 1),
        "p99 ms late": _ms(summary["lateness_seconds"]["p99"]),
        "p99 ms of answers": _ms(p99),
        "bound ms": _ms(bound),
        "trivial p99 ms": _ms(trivial_p99),
        "goodput x S of the CPU that is left": round(share, 3),
        "stolen by the hypervisor": round(stolen / seconds / WORKERS, 3),
        "mean ms of 200s: client": _ms(client),
        "mean ms of 200s: service": _ms(told),
        "outcomes": [summary["outcomes"], trivial["outcomes"]],
        "holds": {
            "answers": p99 <= bound,
            "trivial route": trivial_p99 < TRIVIAL_P99_SECONDS,
            "CPU": share >= OF_THE_REST,
            "durations": abs(told - client) <= SAME_SHARE * client + SAME_SECONDS,
        },
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)


PROOFS = {
    f"{row.work_ms:g} ms, {row.times:g}x": functools.partial(overload, row=row, seconds=20.0) for row in ROWS
}

if __name__ == "__main__":
    sys.exit(prove("overload", PROOFS))
