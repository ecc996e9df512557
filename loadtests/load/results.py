"""The result of one phase of load, as types: the summary and its parts.

Knows the names, which are a contract: scripts read them from `run --json` and from summary.json. The JSON
Schema beside this file is generated from it. Touches nothing. Computes nothing.

All times are in seconds, rates per second, shares of 1.
"""

import dataclasses
from typing import Any, Final, Literal

from loadtests.load.histogram import Quantiles
from loadtests.load.ports import PortUse
from loadtests.load.surroundings import Surroundings

State = Literal["ok", "missed", "invalid"]
ThresholdState = Literal["passed", "missed", "too few samples"]

PASSED: Final = "passed"
MISSED: Final = "missed"
TOO_FEW: Final = "too few samples"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientLedger:
    """The client's ledger, to be compared with the server's; counts of requests and of their attempts.

    Requests: planned = sent + not_sent. Attempts, as many as requests were sent unless clients retry:
    attempts = connected + connect_failed + connect_timeout + connect_aborted; connected = answered +
    unanswered. `connected` counts attempts that had a connection, `connections` those connections: as many,
    unless attempts reused them (`keep_alive`). A connection is a TCP handshake, which the *kernel* of the
    server completes: connections minus the server's accepted ones wait in its accept queue.
    """

    planned: int
    sent: int
    not_sent: int
    attempts: int
    connected: int
    connections: int
    connect_failed: int
    connect_timeout: int
    connect_aborted: int
    answered: int
    unanswered: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorShare:
    """How hard the generator worked; shares of one core, while requests came due."""

    cpu_share: float
    busiest_second_cpu_share: float
    gc_pauses: int
    gc_max_pause_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdResult:
    """One threshold, judged. `observed` is None if the value is infinite (never), or nothing was measured."""

    threshold: str
    observed: float | None
    state: ThresholdState
    passed: bool
    samples: int
    samples_needed: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One phase, summed up; `summarise` says how.

    In `latency_seconds` a request without the expected answer is infinitely late; a quantile that falls among
    these is null: never. There are `infinitely_late` of them. `answered_latency_seconds` includes the other
    requests alone, and therefore says little: it leaves out the ones that failed. If clients retry, latency
    and `outcomes` are those of requests, whatever their attempts came to; `service_seconds` and the times
    below it are those of attempts.
    """

    state: State
    interrupted: bool
    unreachable: str | None  # one sentence if no connection was ever established
    url: str
    address: str
    workload: str  # "100/s poisson", "closed loop, 8 clients"
    clients: int | None  # of a closed loop
    keep_alive: bool  # requests reused idle connections
    expect: str  # statuses that count as success
    retry: str  # when clients send again what failed: none, immediate, backoff, budget, retry-after
    retries: int  # for each request at most
    started: float  # seconds since 1970
    window_seconds: float
    offered_per_second: float | None  # None: a closed loop offers no rate
    achieved_per_second: float
    goodput_per_second: float
    slo_seconds: float | None
    error_share: float | None
    infinitely_late: int
    latency_seconds: Quantiles  # from the intended time
    answered_latency_seconds: Quantiles
    service_seconds: Quantiles  # from the actual start of each attempt
    connect_seconds: Quantiles  # of new connections only
    tls_seconds: Quantiles  # the handshake, of new connections; empty without TLS
    first_byte_seconds: Quantiles  # from when the request could be sent
    rest_seconds: Quantiles  # from the first byte of the answer to its last
    lateness_seconds: Quantiles  # of sending requests for the first time; empty for a closed loop
    receive_lateness_seconds: Quantiles  # upper bound: how late the generator looked at a complete answer
    not_closed_by_server: int
    ports: PortUse
    outcomes: dict[str, int]  # of requests
    attempt_outcomes: dict[str, int]
    amplification: float | None  # attempts / requests that were sent; None: none was
    ledger: ClientLedger
    generator: GeneratorShare
    surroundings: Surroundings | None  # None: not observed
    invalid_because: tuple[str, ...]
    cautions: tuple[str, ...]
    thresholds: tuple[ThresholdResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One of several phases. `name`: of its folder in the run folder; `rate`: requests per second."""

    name: str
    rate: float
    summary: RunSummary


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepsSummary:
    """Phases with one rate each, one after another, each judged by itself; at least one.

    `interrupted`: the run was stopped before the last of the `planned` steps ended.
    """

    state: State
    interrupted: bool
    planned: int
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)
