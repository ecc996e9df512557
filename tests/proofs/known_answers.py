"""Proof that the generator tells the truth, long form: `make known-answers`.

A server does exactly what its script says and writes down when, by the clock that the generator reads too
(tests/support/recording_server.py). Outcomes, ledger and thresholds must be exact. Each quantile must lie in
a bracket: not below the server's own, for no answer comes before it is sent, and not above that plus the
lateness that the generator admits for each answer. What no account of the generator holds (a core of a
virtual machine that sleeps, and the way out of the system call) is measured with a client that does nothing
but read. The tests call the same functions for less time.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from loadtests.load import histogram as reported
from loadtests.load.generator import Generator, read_samples
from loadtests.load.phase import Phase
from loadtests.load.results import ClientLedger, RunSummary
from loadtests.load.sample import OK, Sample, requests
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold
from tests.proofs.record import keep
from tests.support.recording_server import Entry, RecordingServer, Script, Scripts
from tests.support.servers import OK_ANSWER

RUNS = 5
SHARE: Final = 0.005  # of a quantile: how far it may be off
ROUNDING_SECONDS: Final = 2e-6  # the three times of a sample are kept to the microsecond
PERCENT: Final = {"p50": 50, "p90": 90, "p99": 99, "max": 100}

HEAD, BODY = OK_ANSWER[:-2], OK_ANSWER[-2:]
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BACKLOG = 4
IN_THE_QUEUE = BACKLOG + 1  # the kernel refuses the one that finds more than `backlog` there (listen(2))

Quantiles = dict[str, float]
AT_ONCE: Final[Quantiles] = dict.fromkeys(PERCENT, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the cases are."""

    rate: float
    seconds: float
    stall_seconds: float
    timeout_seconds: float  # of those that time out
    freezes: int

    @property
    def requests(self) -> int:
        """Of each case."""
        return round(self.rate * self.seconds)


SHORT = Size(rate=400, seconds=0.5, stall_seconds=0.2, timeout_seconds=0.3, freezes=2)
FULL = Size(rate=1000, seconds=2, stall_seconds=1, timeout_seconds=2, freezes=4)
FREEZE_SECONDS: Final = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A behaviour of the server, and what the generator must make of it."""

    scripts: Scripts
    outcomes: dict[str, int]
    ledger: ClientLedger
    closed: dict[str, int]  # connections by who closed them, in the server's book
    phase: dict[str, Any] = field(default_factory=dict)
    backlog: int = 4096
    accepts: Literal["at once", "when all are sent", "when it is over"] = "at once"
    not_closed: int = 0
    cautions: tuple[str, ...] = ()  # how sentences must begin
    missed: tuple[str, ...] = ()  # thresholds
    attempts: dict[str, int] | None = (
        None  # by outcome; None: clients do not retry, so these are the outcomes
    )
    freezes: int = 0  # of the generator


def always(script: Script) -> Scripts:
    """The same for each request."""
    return lambda _: script


def cases(size: Size) -> dict[str, Case]:
    """The table: what the server does, and what must come of it."""
    n = size.requests
    hundredth, good = n // 100, Script()
    refused = Script(parts=((0.001, REFUSED),), good=False)
    slow = Script(parts=((0.002, HEAD), (0.05, BODY)))

    def books(
        answered: int, unanswered: int = 0, connect_timeout: int = 0, attempts: int = n
    ) -> ClientLedger:
        connected = answered + unanswered
        assert connected + connect_timeout == attempts
        return ClientLedger(
            planned=n, sent=n, not_sent=0, attempts=attempts, connected=connected, connections=connected,
            connect_failed=0, connect_timeout=connect_timeout, connect_aborted=0, answered=answered,
            unanswered=unanswered,
        )  # fmt: skip

    def answered(scripts: Scripts, label: str = "ok", **more: Any) -> Case:
        return Case(
            scripts=scripts, outcomes={label: n}, ledger=books(n), **{"closed": {"server": n}, **more}
        )

    def failing(script: Script, label: str, by: str) -> Case:
        return Case(scripts=always(script), outcomes={label: n}, ledger=books(0, n), closed={by: n})

    def dropping(end: Literal["close", "reset"], label: str, by: str) -> Case:
        dropped = Script(parts=(), end=end, good=False)
        return Case(
            scripts=lambda number: dropped if number % 100 == 99 else good,
            outcomes={"ok": n - hundredth, label: hundredth},
            ledger=books(n - hundredth, hundredth),
            closed=dict(Counter({"server": n - hundredth}) + Counter({by: hundredth})),
        )

    def retrying(
        scripts: Scripts, outcome: str, attempts: dict[str, int], closed: dict[str, int], **phase: Any
    ) -> Case:
        answered = sum(count for label, count in attempts.items() if label in ("ok", "status_503"))
        total = sum(attempts.values())
        return Case(
            scripts=scripts,
            outcomes={outcome: n},
            attempts=attempts,
            ledger=books(answered, total - answered, attempts=total),
            closed=closed,
            phase={"retry": "immediate", "retries": 100, **phase},
        )

    created = Script(parts=((0.0, CREATED),))
    return {
        "stands still in the middle": answered(
            lambda number: Script(stall_seconds=size.stall_seconds) if number == n // 4 else good
        ),
        "answers after 5 ms": answered(always(Script(parts=((0.005, OK_ANSWER),)))),
        "closes every 100th without an answer": dropping("close", "short", "server"),
        "resets every 100th": dropping("reset", "reset", "reset"),
        "accepts nothing, backlog 4": Case(
            scripts=always(Script(parts=(), end="hold", good=False)),
            outcomes={"timeout": n},
            ledger=books(0, IN_THE_QUEUE, n - IN_THE_QUEUE),
            closed={"client": IN_THE_QUEUE},
            phase={"timeout_seconds": size.timeout_seconds},
            backlog=BACKLOG,
            accepts="when it is over",
        ),
        "accepts late, backlog 4": answered(
            always(good),
            phase={"timeout_seconds": 60},
            backlog=BACKLOG,
            accepts="when all are sent",
            cautions=(f"{n - IN_THE_QUEUE} connections took 1 s or more: SYN retransmissions",),
        ),
        "resets after the head": failing(
            Script(parts=((0.0, HEAD),), end="reset", good=False), "reset", "reset"
        ),
        "closes after half an answer": failing(
            Script(parts=((0.0, OK_ANSWER[:-1]),), good=False), "short", "server"
        ),
        "answers after 2 ms, one in ten after 50": answered(
            lambda number: slow if number % 10 == 9 else Script(parts=((0.002, OK_ANSWER),))
        ),
        "says 201 where 200 is expected": answered(
            always(Script(parts=((0.0, CREATED),), good=False)), "status_201"
        ),
        "says 201 as expected": answered(always(created), "ok_201", phase={"expect": "201"}),
        "says 201 where 2xx is expected": answered(always(created), "ok_201", phase={"expect": "2xx"}),
        "never closes": answered(
            always(Script(end="hold")),
            closed={"client": n},
            not_closed=n,
            cautions=(f"{n} connections were left open by the server after its answer",),
        ),
        "refuses 60 % with a fast 503": Case(
            scripts=lambda number: refused if number % 5 < 3 else Script(parts=((0.001, OK_ANSWER),)),
            outcomes={"status_503": n * 3 // 5, "ok": n * 2 // 5},
            ledger=books(n),
            closed={"server": n},
            missed=("p50<100ms", "p99<100ms"),
            cautions=("60.00% of the requests failed",),
        ),
        # Of every five requests that reach the server it refuses three, whosever they are. The last one is
        # answered, for clients do not stop before: so it sees five for every two that clients want.
        "refuses 60 %, and clients retry until it answers": retrying(
            lambda number: refused if number % 5 < 3 else Script(parts=((0.001, OK_ANSWER),)),
            "ok",
            {"ok": n, "status_503": n * 3 // 2},
            {"server": n * 5 // 2},
        ),
        "resets every second, and clients retry until it answers": retrying(
            lambda number: good if number % 2 else Script(parts=(), end="reset", good=False),
            "ok",
            {"ok": n, "reset": n},
            {"server": n, "reset": n},
        ),
        "refuses all, and clients give up after two retries": retrying(
            always(refused), "status_503", {"status_503": 3 * n}, {"server": 3 * n}, retries=2
        ),
        "answers nothing, and clients retry once": retrying(
            always(Script(parts=(), end="hold", good=False)),
            "timeout",
            {"timeout": 2 * n},
            {"client": 2 * n},
            retries=1,
            timeout_seconds=size.timeout_seconds,
        ),
        "refuses all, and clients have a budget": retrying(
            always(refused),
            "status_503",
            {"status_503": n + n // 10},
            {"server": n + n // 10},
            retry="budget",
        ),
        "answers while the generator is stopped": answered(
            always(Script(parts=((0.05, OK_ANSWER),))), freezes=size.freezes
        ),
    }


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to, for both sides. Quantiles are in seconds, infinite where they are never."""

    summary: RunSummary
    server: Quantiles  # from the intended time to the send of the last byte
    found: Quantiles
    most: Quantiles  # the upper end of the bracket, without what a client that only reads takes
    lapses: tuple[str, ...]  # what else a machine that is busy enough could bring about

    def faults(self, delivery: Mapping[str, float]) -> list[str]:
        """What lies above its bracket, and what else need not be the generator's fault once."""
        over = {
            name: self.found[name] - (self.most[name] * (1 + SHARE) + delivery[name] + ROUNDING_SECONDS)
            for name in PERCENT
            if math.isfinite(self.most[name])
        }
        found = [f"{name} {seconds * 1e6:.0f} us too high" for name, seconds in over.items() if seconds > 0]
        return [*found, *self.lapses]


def run(case: Case, size: Size, generator: Generator, folder: Path) -> Run:
    """Run a case and assert all that must hold whatever the machine does meanwhile."""
    phase_fields = {"rate": size.rate, "duration_seconds": size.seconds, "timeout_seconds": 20, **case.phase}
    freezes = case.freezes
    with RecordingServer(case.scripts, backlog=case.backlog, accepting=case.accepts == "at once") as server:
        phase = Phase(url=server.url, **phase_fields)
        for progress in generator.run(phase, folder / "samples.json"):
            if case.accepts == "when all are sent" and progress.fired == progress.planned:
                server.accept_from_now_on()
            if freezes and progress.in_flight:
                freezes -= 1
                freeze(generator.pid)
    samples, facts = read_samples(folder / "samples.json")
    thresholds = [Threshold.parse(text) for text in case.missed]
    summary = summarise(samples, facts, phase, thresholds=thresholds)
    assert summary.outcomes == case.outcomes, summary.outcomes
    assert summary.attempt_outcomes == (case.attempts or case.outcomes), summary.attempt_outcomes
    assert summary.ledger == case.ledger, summary.ledger
    assert len(server.book) == summary.ledger.connected
    assert Counter(entry.closed for entry in server.book) == case.closed
    assert summary.not_closed_by_server == case.not_closed
    for sentence in case.cautions:
        assert any(caution.startswith(sentence) for caution in summary.cautions), summary.cautions
    for result in summary.thresholds:
        assert (result.state, result.observed) == ("missed", None), result
    pairs = matched(samples, server.book)
    for sample, entry in pairs:
        check_moments(sample, entry)
    check_schedule(samples, facts.started_monotonic, phase_fields["rate"])
    lapses = [text for stall in server.stalls for text in check_stall(pairs, *stall, phase_fields["rate"])]
    late = any("for the generator to look at them" in because for because in summary.invalid_because)
    if case.freezes and (freezes or not late):
        lapses.append(f"{case.freezes - freezes} of {case.freezes} stops; told as late: {late}")
    good = [(sample, span(entry)) for sample, entry in pairs if entry.good]
    served = [before - moment(sample.started) for sample, (before, _) in good]
    check_below(summary.service_seconds, quantiles(served + [math.inf] * (len(samples) - len(good))))
    failed = [math.inf] * (len(requests(samples)) - len(good))
    least = quantiles([before - sample.intended for sample, (before, _) in good] + failed)
    check_below(summary.latency_seconds, least)
    admitted = [
        after - sample.intended + moment(sample.receive_lateness_seconds) for sample, (_, after) in good
    ]
    found = {name: figure(summary.latency_seconds, name) for name in PERCENT}
    return Run(summary, least, found, quantiles(admitted + failed), tuple(lapses))


def freeze(pid: int | None) -> None:
    """Stop the generator for a while: nothing else makes it late on every machine."""
    assert pid is not None
    time.sleep(0.01)  # it has written a line of progress and now waits for answers
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FREEZE_SECONDS)
    os.kill(pid, signal.SIGCONT)


def matched(samples: Sequence[Sample], book: Sequence[Entry]) -> list[tuple[Sample, Entry]]:
    """Each connection in both books, by the client's port; a port that was used again, in order of time."""
    entries: dict[int | None, deque[Entry]] = defaultdict(deque)
    for entry in sorted(book, key=lambda entry: entry.accepted):
        entries[entry.port].append(entry)
    connected = sorted((s for s in samples if s.connected is not None), key=lambda s: moment(s.started))
    pairs = [(sample, entries[sample.local_port].popleft()) for sample in connected]
    assert not any(entries.values()), "the server has connections that the client has not"
    return pairs


def check_moments(sample: Sample, entry: Entry) -> None:
    """No sample knows of a thing before it happened."""
    assert entry.accepted >= moment(sample.started) - ROUNDING_SECONDS
    if sample.first_byte is not None:
        assert entry.first_byte is not None
        assert sample.first_byte >= entry.first_byte[0] - ROUNDING_SECONDS
    assert (sample.outcome == OK) == entry.good
    if entry.good:
        assert moment(sample.finished) >= span(entry)[0] - ROUNDING_SECONDS


def check_schedule(samples: Sequence[Sample], started: float, rate: float) -> None:
    """Each request was meant for its place in an even row, whatever became of it."""
    for number, intended in enumerate(sorted(sample.intended for sample in requests(samples))):
        assert abs(intended - (started + number / rate)) < ROUNDING_SECONDS


def check_stall(
    pairs: Sequence[tuple[Sample, Entry]], begun: float, ended: float, rate: float
) -> Iterator[str]:
    """Each request that was due in a stall waited for its end. Gives a sentence if it was not sent in it.

    Gil Tene, "How NOT to Measure Latency": a client that waits for one answer before it sends the next
    request sends nothing while the server stands still, so its percentiles never hear of the stall.
    """
    within = [sample for sample, _ in pairs if begun <= sample.intended < ended]
    assert all(moment(sample.finished) >= ended - ROUNDING_SECONDS for sample in within)
    early = [sample for sample in within if sample.intended < (begun + ended) / 2]
    if len(early) < int(rate * (ended - begun) / 2):
        yield f"only {len(early)} requests were due in the first half of a stall"
    if held_back := sum(moment(sample.started) >= ended for sample in early):
        yield f"{held_back} requests of a stall were held back"


def check_below(found: reported.Quantiles, server: Quantiles) -> None:
    """No quantile lies below the server's own, and each is never where that is."""
    for name, least in server.items():
        ours = figure(found, name)
        assert math.isfinite(ours) == math.isfinite(least), (name, ours, least)
        assert ours >= least - ROUNDING_SECONDS, (name, ours, least)


def quantiles(durations: Sequence[float]) -> Quantiles:
    """By nearest rank, in whole numbers: written anew, for the generator's own is what is tested."""
    ordered = sorted(durations)
    return {name: ordered[-(-len(ordered) * percent // 100) - 1] for name, percent in PERCENT.items()}


def figure(found: reported.Quantiles, name: str) -> float:
    """A quantile of the summary; what is null there never came."""
    value = getattr(found, name)
    return math.inf if value is None else float(value)


def moment(value: float | None) -> float:
    """One that must have come."""
    assert value is not None
    return value


def span(entry: Entry) -> tuple[float, float]:
    """Before and after the send of the last byte."""
    assert entry.last_byte is not None
    return entry.last_byte


# As the generator does it, less what it does besides: the wait for a core is in the kernel's account.
READER = """
import os, socket, sys, time
account = os.open("/proc/self/schedstat", os.O_RDONLY)
def core_wait():
    return int(os.pread(account, 100, 0).split()[1]) / 1e9
waited = core_wait()
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    while sock.recv(1):
        now = time.monotonic()
        before, waited = waited, core_wait()
        sock.sendall(repr(now - (waited - before)).encode())
"""


def delivery(exchanges: int = 300, pause: float = 0.003) -> Quantiles:
    """How long after a send a client that does nothing but read sees the byte, less what it had no core."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", READER, str(listener.getsockname()[1])]
        with subprocess.Popen(command) as reader, listener.accept()[0] as sock:
            took = []
            for _ in range(exchanges):
                time.sleep(pause)  # so that it waits, as a client of a slow server does
                sock.sendall(b"x")
                sent = time.monotonic()
                took.append(max(0.0, float(sock.recv(100)) - sent))
            sock.shutdown(socket.SHUT_RDWR)
            assert reader.wait(20) == 0
    return quantiles(took)


def prove(name: str, size: Size, generator: Generator, attempts: int = 3) -> None:
    """Run a case; fail on what is not exact, and on a quantile that lies above its bracket each time.

    A hypervisor may take the core away from the generator once, and no account of this machine says so.
    """
    for _ in range(attempts):
        with tempfile.TemporaryDirectory() as folder:
            one = run(cases(size)[name], size, generator, Path(folder))
        if not one.faults(AT_ONCE) or not (faults := one.faults(delivery())):
            return
    raise AssertionError(f"{name}: {', '.join(faults)}")


def main() -> int:
    """Run all cases several times and keep the figures; 1 if a quantile lay above its bracket."""
    found: dict[str, list[Run]] = defaultdict(list)
    faults: dict[str, list[str]] = defaultdict(list)
    deliveries = []
    with Generator() as generator, tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            deliveries.append(delivery(1000))
            for name, case in cases(FULL).items():
                one = run(case, FULL, generator, Path(folder))
                found[name].append(one)
                faults[name] += one.faults(deliveries[-1])
                print(number + 1, name, *one.faults(deliveries[-1]), sep=", ", file=sys.stderr, flush=True)
    figures = {
        "runs": RUNS,
        "delivery us, at most": {name: micro(max(one[name] for one in deliveries)) for name in PERCENT},
        "cases": {name: told(runs) | {"faults": faults[name]} for name, runs in found.items()},
    }
    keep("known-answers", "make known-answers", figures)
    return 1 if any(faults.values()) else 0


def told(runs: Sequence[Run]) -> dict[str, Any]:
    """What all runs of a case have in common, and the quantiles of the one whose p50 was the farthest off."""
    summary = runs[0].summary
    names = [name for name in PERCENT if math.isfinite(runs[0].found[name])]
    farthest = max(runs, key=lambda one: one.found["p50"] - one.server["p50"] if names else 0.0)
    return {
        "outcomes": summary.outcomes,
        "connected": summary.ledger.connected,
        "states": dict(Counter(one.summary.state for one in runs)),
        "us": {
            name: [micro(side[name]) for side in (farthest.server, farthest.found, farthest.most)]
            for name in names
        },
    }


def micro(seconds: float) -> int:
    """Whole microseconds."""
    return round(seconds * 1e6)


if __name__ == "__main__":
    sys.exit(main())
