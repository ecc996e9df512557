"""Soak under overload, with priorities and with clients that try again, long form: `make retries`.

Two classes of clients ask together for more than the service can do. What is refused comes again, up to three
times: the urgent at once, the others after a while. Every attempt has to be in the books of both sides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from metrics.exposition import total
from tests.proofs.faults import sizes_of
from tests.proofs.record import prove
from tests.support.child import service
from tests.support.load import Load, torn, watched

Figures = dict[str, Any]
FLAGS = ("--work-ms", "4", "--workers", "2")
TRUST = ("--trust-priority", "127.0.0.0/8")
RETRIES = ("--timeout", "1", "--retries", "3", "--retry")
URGENT = (*RETRIES, "immediate", "--source", "127.0.0.2", "--header", "Priority: u=0")
USUAL = (*RETRIES, "backoff", "--source", "127.0.0.3")
SHARE = 0.2
"""Of the requests, that are urgent."""

NEVER_CONNECTED = ("connect_failed", "connect_timeout", "connect_aborted")


def soak(folder: Path, requests: int, rate: float, flags: tuple[str, ...] = FLAGS) -> Figures:
    """So many requests at so many a second in both classes together."""
    classes = {"urgent": (SHARE * rate, URGENT), "usual": ((1 - SHARE) * rate, USUAL)}
    with service(folder / "log", *flags, *TRUST) as child:
        address, _ = child.ready()
        pid = child.process.pid
        before = sizes_of(pid)
        with watched(child) as rows:
            loads = {
                name: Load(address, requests / rate, share, folder / name, *more)
                for name, (share, more) in classes.items()
            }
            runs = {name: load.summary() for name, load in loads.items()}
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        values, after = child.scrape(), sizes_of(pid)
        assert child.end() == 0
    clients = {key: sum(run["ledger"][key] for run in runs.values()) for key in runs["usual"]["ledger"]}
    figures: Figures = {
        "outcomes of requests": {name: run["outcomes"] for name, run in runs.items()},
        "outcomes of attempts": {name: run["attempt_outcomes"] for name, run in runs.items()},
        "clients": clients,
        "accepted": int(values["http_connections_accepted_total"]),
        "answers": int(total(values, "http_requests_total", route="/data")),
        "tasks": int(total(values, "offload_tasks_total")),
        "tasks by urgency": int(total(values, "offload_tasks_by_urgency_total")),
        "completed": int(values["offload_tasks_total{outcome=completed}"]),
        "scrapes": len(rows),
        "torn scrapes": torn(rows),
        **{name: [size, after[name]] for name, size in before.items()},
    }
    check(figures, requests)
    return figures


def check(figures: Figures, requests: int) -> None:
    """Every attempt has one connection, and one answer unless its client gave up."""
    clients, left = figures["clients"], figures["clients"]["unanswered"]
    assert abs(clients["planned"] - requests) <= 2, figures  # each class is rounded
    assert clients["sent"] == clients["planned"], figures
    assert clients["attempts"] == clients["connected"] + sum(clients[one] for one in NEVER_CONNECTED), figures
    assert clients["attempts"] > clients["sent"], figures
    assert clients["connected"] == clients["answered"] + left == figures["accepted"], figures
    assert clients["answered"] <= figures["answers"] <= clients["answered"] + left, figures
    # A client that gives up before its request is read leaves no task.
    assert figures["accepted"] - left <= figures["tasks"] <= figures["accepted"], figures
    assert figures["tasks"] == figures["tasks by urgency"], figures
    ok = sum(found.get("ok", 0) for found in figures["outcomes of attempts"].values())
    assert ok <= figures["completed"] <= ok + left, figures
    for found in figures["outcomes of attempts"].values():
        assert set(found) <= {"ok", "status_503", "timeout"}, figures
    assert figures["scrapes"] > 0, figures
    assert figures["torn scrapes"] == 0, figures
    before, after = figures["rss_mib"]
    assert after < 1.5 * before + 8, figures
    before, after = figures["descriptors"]
    assert after <= before + 4, figures


if __name__ == "__main__":
    sys.exit(prove("retries", {"soak": lambda folder: soak(folder, 300_000, 1000)}))
