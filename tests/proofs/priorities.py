"""Proofs that overload hurts nobody who matters, long form: `make priorities`.

Two generators load one service at the same time. Each is a class of its own: the urgent one says `Priority:
u=0`, the other one nothing. Or one is a single client that sends nine of ten requests, and the other one is
seven clients that send the rest. Each with the feature, and beside it without. A request counts as answered
if its answer is whole within a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.proofs.record import keep
from tests.support.child import Child, service
from tests.support.load import Load

Figures = dict[str, Any]

PATIENCE_SECONDS = 1
OF_THE_GOODPUT = 0.8
"""What the urgent class offers, of what the service answers without classes at the same load."""

OVERLOAD = 3
"""Times that goodput, from one greedy client and seven others. These offer a third of the goodput: all of
them can be served, if only the greedy one leaves them the places."""

GREEDY = 0.9
SHARE = ("--client-share", "0.25")
TRUST = ("--trust-priority", "127.0.0.0/8")
ANSWERED, SUCCESS = 0.999, 0.99


class Clients(NamedTuple):
    """A generator: its requests per second, and its other flags."""

    rate: float
    flags: tuple[str, ...]


def urgent(rate: float) -> Clients:
    return Clients(rate, ("--source", "127.0.0.2", "--header", "Priority: u=0"))


def usual(rate: float) -> Clients:
    return Clients(rate, ("--source", "127.0.0.3"))


def greedy(rate: float) -> Clients:
    return Clients(rate, ("--source", "127.0.0.2"))


def others(rate: float) -> Clients:
    return Clients(rate, ("--source", "127.0.0.3-127.0.0.9"))


def under(folder: Path, flags: tuple[str, ...], seconds: float, loads: dict[str, Clients]) -> Figures:
    """A service with these flags under all these loads: what each of them got, and the goodput of all."""
    folder.mkdir()
    with service(folder / "log", *flags) as child:
        address, _ = child.ready()
        started = {
            name: Load(
                address, seconds, one.rate, folder / name, "--timeout", str(PATIENCE_SECONDS), *one.flags
            )
            for name, one in loads.items()
        }
        summaries = {name: one.summary() for name, one in started.items()}
        by_urgency = _by_urgency(child)
        assert child.end() == 0
    found: Figures = {name: _got(summary) for name, summary in summaries.items()}
    ok = sum(figures["answered"] for figures in found.values())
    return {**found, "goodput per second": round(ok / seconds, 1), "the service counts": by_urgency}


def _got(summary: dict[str, Any]) -> Figures:
    planned, answered = summary["ledger"]["planned"], summary["outcomes"].get("ok", 0)
    late, took = summary["lateness_seconds"], summary["answered_latency_seconds"]
    return {
        "planned": planned,
        "answered": answered,
        "share": round(answered / planned, 5),
        "p99 ms of answers": None if took["p99"] is None else round(took["p99"] * 1e3, 1),
        "p99 ms late": None if late["p99"] is None else round(late["p99"] * 1e3, 1),
        "outcomes": summary["outcomes"],
    }


def _by_urgency(child: Child) -> dict[str, int]:
    prefix = "offload_tasks_by_urgency_total"
    return {
        name.removeprefix(prefix): int(value)
        for name, value in child.scrape().items()
        if name.startswith(prefix)
    }


def urgent_first(folder: Path, seconds: float, total: float, flags: tuple[str, ...]) -> Figures:
    """The urgent class is answered whatever the others send; without the feature it is not."""
    folder.mkdir()
    half = {"urgent": urgent(total / 2), "others": usual(total / 2)}
    alike = under(folder / "alike", flags, seconds, half)
    rate = OF_THE_GOODPUT * alike["goodput per second"]
    loads = {"urgent": urgent(rate), "others": usual(total - rate)}
    figures = {
        "all alike": alike,
        "without": under(folder / "without", flags, seconds, loads),
        "with": under(folder / "with", (*flags, *TRUST), seconds, loads),
    }
    assert figures["with"]["urgent"]["share"] >= ANSWERED, figures
    assert figures["without"]["urgent"]["share"] < ANSWERED, figures
    return figures


def shared(folder: Path, seconds: float, goodput: float, flags: tuple[str, ...]) -> Figures:
    """One client that sends nine of ten requests costs the others nothing; without a share it does."""
    folder.mkdir()
    total = OVERLOAD * goodput
    loads = {"greedy": greedy(GREEDY * total), "others": others((1 - GREEDY) * total)}
    figures = {
        "without": under(folder / "without", flags, seconds, loads),
        "with": under(folder / "with", (*flags, *SHARE), seconds, loads),
    }
    assert figures["with"]["others"]["share"] >= SUCCESS, figures
    assert figures["without"]["others"]["share"] < SUCCESS, figures
    return figures


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.priorities", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each load (default: 20)")
    parser.add_argument(
        "--rate", type=float, default=2000, help="of both classes, per second (default: 2000)"
    )
    arguments = parser.parse_args()
    flags = ("--work-ms", "10")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = urgent_first(folder / "urgent", arguments.seconds, arguments.rate, flags)
        print(json.dumps(first), file=sys.stderr, flush=True)
        goodput = first["all alike"]["goodput per second"]
        second = shared(folder / "share", arguments.seconds, goodput, flags)
    figures = {"seconds": arguments.seconds, "urgent first": first, "one greedy client": second}
    print(json.dumps(figures, indent=1))
    if arguments.seconds >= 20:
        keep("priorities", "make priorities", figures)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
