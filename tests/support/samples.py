"""Samples of a load made by hand: steady ones, and one of every kind."""

from __future__ import annotations

from dataclasses import replace

from loadtests.load.facts import GeneratorFacts
from loadtests.load.phase import Phase
from loadtests.load.sample import Sample

PHASE = Phase(url="http://127.0.0.1:8080/data", rate=100, duration_seconds=10)
RETRYING = replace(PHASE, retries=2, retry="immediate")
FACTS = GeneratorFacts(
    address="127.0.0.1:8080",
    started_monotonic=1000.0,
    started_epoch=1_700_000_000.0,
    wall_seconds=10.0,
    cpu_seconds=1.0,
    sending_seconds=10.0,
    sending_cpu_seconds=1.0,
    busiest_second_cpu_share=0.1,
    gc_pauses=2,
    gc_max_pause_seconds=0.001,
    interrupted=False,
    unreachable=False,
)


def answered(intended: float, took: float = 0.004, late: float = 0.0, status: int = 200) -> Sample:
    started = intended + late
    outcome = "ok" if status == 200 else "status"
    return Sample(intended, started, started + 0.001, started + took, started + took, outcome, status, None)


def failed(intended: float, took: float, outcome: str, reason: str | None = None, *, stood: bool) -> Sample:
    connected = intended + 0.001 if stood else None
    return Sample(intended, intended, connected, None, intended + took, outcome, None, reason)


def unsent(intended: float, reason: str) -> Sample:
    return Sample(intended, None, None, None, None, "not_sent", None, reason)


def steady(count: int = 1000, took: float = 0.004, late: float = 0.0) -> list[Sample]:
    return [answered(1000 + n / 100, took, late) for n in range(count)]


def retried() -> list[Sample]:
    """A thousand requests: 900 answered at once, 60 after a time-out of a second, 40 refused three times."""
    found: list[Sample] = []
    for number, first in enumerate(steady(), 1):
        due = first.intended
        attempts = [first]
        if number % 25 == 0:
            attempts = [answered(due + n / 100, status=503) for n in range(3)]
        elif number % 50 in (1, 2, 3):
            attempts = [failed(due, 1, "timeout", stood=number % 50 == 1), answered(due + 1.1)]
        last = len(attempts)
        found += [
            sample._replace(intended=due, request=number, attempt=n, last=n == last)
            for n, sample in enumerate(attempts, 1)
        ]
    return found


EVERY_KIND = [
    answered(1000.0),
    answered(1000.1, status=503),
    failed(1000.2, 0.001, "connect_error", "ECONNREFUSED", stood=False),
    failed(1000.3, 5, "timeout", stood=False),
    failed(1000.4, 5, "timeout", stood=True),
    failed(1000.5, 0.2, "reset", "ECONNRESET", stood=True),
    failed(1000.6, 0.2, "short", stood=True),
    failed(1000.7, 0.2, "malformed", stood=True),
    failed(1000.8, 0.2, "tls_error", "WRONG_VERSION_NUMBER", stood=True),
    failed(1000.9, 0.3, "aborted", stood=True),
    failed(1001.0, 0.2, "aborted", stood=False),
    unsent(1001.1, "max_in_flight"),
    unsent(1001.2, "stopped"),
]
