"""Proofs that overload hurts nobody who matters, long form: `make priorities`.

Two generators load one service at the same time. Each is a class of its own: the urgent one says `Priority:
u=0`, the other one nothing. Or one is a single client that sends nine of ten requests, and the other one is
seven clients that send the rest. Each with the feature, and beside it without. A request counts as answered
if its answer is whole within a second.

What the urgent class offers follows from the goodput just before. A round is void if the machine is slower
or faster than it was then, by the CPU time of a task, or if others take its cores: then the urgent may offer
too much, or too little. So is one in which the generators did not load the service together, or stood still.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.neighbours import Neighbours, effective_cores, shares
from service.work import calibrate, data
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

MOST_APART = 0.1
"""Of the seconds of a load, between the beginnings of the two."""

MOST_SLOWER = 1.1
"""What a task may cost in a round, of what it cost when the goodput was measured; and no less than one by
that: on a machine that has become faster 0.8x would be less."""

WORK_SECONDS = 0.01
GREEDY = 0.9
SHARE = ("--client-share", "0.25")
TRUST = ("--trust-priority", "127.0.0.0/8")
KINDS = ("with", "without")
MOST_VOID = 3
"""Rounds for each that counts."""

MOST_LATE_SECONDS = 0.1
"""A generator that sends or looks later than this stood still. Then it sends at once what was due meanwhile,
a burst that nobody asked for, and a part of its clients' patience is gone before it looks."""

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
        neighbours = Neighbours()  # all of our processes have started
        usage = neighbours.read()
        summaries = {name: one.summary() for name, one in started.items()}
        faults = [*shares(usage, neighbours.read(), effective_cores()).faults()]
        by_urgency, counted = _by_urgency(child), child.scrape()
        assert child.end() == 0
    found: Figures = {name: _got(summary) for name, summary in summaries.items()}
    began = [summary["started"] for summary in summaries.values()]
    apart = max(began) - min(began)
    if apart > MOST_APART * seconds:
        faults.append(f"one generator began {apart:.1f} s after the other")
    ok = sum(figures["answered"] for figures in found.values())
    cost = counted["offload_task_cpu_seconds_sum"] / counted["offload_task_cpu_seconds_count"]
    return {
        **found,
        "goodput per second": round(ok / (seconds + apart), 1),
        "CPU ms of a task": round(cost * 1e3, 2),
        "faults": faults,
        "standstills": [*_standstills(summaries)],
        "the service counts": by_urgency,
    }


def _standstills(summaries: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, summary in summaries.items():
        late = max(summary[kind]["max"] or 0.0 for kind in ("lateness_seconds", "receive_lateness_seconds"))
        if late > MOST_LATE_SECONDS:
            yield f"the generator of the {name} stood still for {late:.2f} s"


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


def urgent_first(
    folder: Path,
    seconds: float,
    total: float,
    flags: tuple[str, ...],
    rounds: int = 1,
    *,
    may_be_disturbed: bool = False,
) -> Figures:
    """The urgent class is answered whatever the others send; without the feature it is not.

    Args:
        rounds: that count; void ones do not.
        may_be_disturbed: only a generator that stood still makes one void.
    """
    folder.mkdir()
    valid: list[Figures] = []
    void = 0
    while len(valid) < rounds:
        found = _round(folder / str(len(valid) + void), seconds, total, flags)
        slower = found["with"]["CPU ms of a task"] / found["all alike"]["CPU ms of a task"]
        faults = [*found["all alike"]["faults"], *found["with"]["faults"]]
        standstills = [fault for one in found.values() for fault in one["standstills"]]
        if not 1 / MOST_SLOWER <= slower <= MOST_SLOWER:
            faults.append(f"a task cost {slower:.2f} times what it did before")
        reasons = standstills if may_be_disturbed else [*faults, *standstills]
        if not reasons:
            valid.append(found)
            continue
        void += 1
        print(f"void: {reasons[0]}", file=sys.stderr, flush=True)
        assert void <= MOST_VOID * rounds, f"the machine never kept its speed: {reasons}"
    answered = {
        kind: sum(found[kind]["urgent"]["answered"] for found in valid)
        / sum(found[kind]["urgent"]["planned"] for found in valid)
        for kind in KINDS
    }
    figures = {
        "urgent answered in the worst round": min(found["with"]["urgent"]["share"] for found in valid),
        "urgent answered": {kind: round(share, 5) for kind, share in answered.items()},
        "void": void,
        "rounds": valid,
    }
    assert answered["with"] >= ANSWERED, figures
    assert answered["without"] < ANSWERED, figures
    return figures


def _round(folder: Path, seconds: float, total: float, flags: tuple[str, ...]) -> Figures:
    folder.mkdir()
    half = {"urgent": urgent(total / 2), "others": usual(total / 2)}
    alike = under(folder / "alike", flags, seconds, half)
    rate = OF_THE_GOODPUT * alike["goodput per second"]
    loads = {"urgent": urgent(rate), "others": usual(total - rate)}
    return {
        "all alike": alike,
        "with": under(folder / "with", (*flags, *TRUST), seconds, loads),
        "without": under(folder / "without", flags, seconds, loads),
    }


def shared(folder: Path, seconds: float, goodput: float, flags: tuple[str, ...]) -> Figures:
    """One client that sends nine of ten requests costs the others nothing; without a share it does."""
    folder.mkdir()
    total = OVERLOAD * goodput
    loads = {"greedy": greedy(GREEDY * total), "others": others((1 - GREEDY) * total)}
    for void in range(MOST_VOID + 1):
        made = folder / str(void)
        made.mkdir()
        figures = {
            "without": under(made / "without", flags, seconds, loads),
            "with": under(made / "with", (*flags, *SHARE), seconds, loads),
        }
        standstills = [fault for one in figures.values() for fault in one["standstills"]]
        if not standstills:
            break
        print(f"void: {standstills[0]}", file=sys.stderr, flush=True)
    assert not standstills, f"the generators never kept their time: {standstills}"
    assert figures["with"]["others"]["share"] >= SUCCESS, figures
    assert figures["without"]["others"]["share"] < SUCCESS, figures
    return figures


def in_short(found: Figures) -> Figures:
    """What is kept of both proofs."""
    first, second = found["urgent first"], found["one greedy client"]
    rounds = {
        f"round {number}": {
            "goodput per second, all alike": one["all alike"]["goodput per second"],
            "CPU ms of a task, all alike and with": [
                one[kind]["CPU ms of a task"] for kind in ("all alike", "with")
            ],
            "urgent requests": one["with"]["urgent"]["planned"],
            "of these answered, with and without": [one[kind]["urgent"]["answered"] for kind in KINDS],
        }
        for number, one in enumerate(first["rounds"], 1)
    }
    greedy_client = {
        f"{who}: requests, and answered with and without": [
            second["with"][who]["planned"],
            *(second[kind][who]["answered"] for kind in KINDS),
        ]
        for who in ("others", "greedy")
    }
    return {
        "seconds": found["seconds"],
        "urgent first": {**first, "rounds": rounds},
        "one greedy client": greedy_client,
    }


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.priorities", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each load (default: 5)")
    parser.add_argument("--rounds", type=int, default=6, help="that count (default: 6)")
    parser.add_argument(
        "--rate", type=float, default=2000, help="of both classes, per second (default: 2000)"
    )
    arguments = parser.parse_args()
    # Once, and not by each service at its start: then all of them have the same work.
    units, _ = calibrate(data, WORK_SECONDS)
    flags = ("--work-units", str(units), "--workers", "2")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = urgent_first(folder / "urgent", arguments.seconds, arguments.rate, flags, arguments.rounds)
        print(json.dumps(first), file=sys.stderr, flush=True)
        goodput = first["rounds"][-1]["all alike"]["goodput per second"]
        # A tenth of that load are the others: for a hundredth of them it takes longer.
        second = shared(folder / "share", 4 * arguments.seconds, goodput, flags)
    figures = {"seconds": arguments.seconds, "urgent first": first, "one greedy client": second}
    print(json.dumps(figures, indent=1))
    if arguments.rounds >= 6 and arguments.seconds >= 5:
        keep("priorities", "make priorities", in_short(figures))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
