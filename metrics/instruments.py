"""The `Metrics` object: every instrument of the catalogue, made once and passed to the parts of a service.

Knows prometheus_client and the catalogue. Has its own registry, so two services in one process (or two
tests) never share a number. Never opens a socket, and reads no clock but the one it is given.
"""

from __future__ import annotations

import enum
import functools
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from metrics.catalogue import BY_NAME
from metrics.peaks import CELLS, Cells, fell, highest
from metrics.read_counter import Read, ReadCounter

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
# A `_created` series for every counter would nearly double the scrape, and nothing here uses it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ConnectionEnd(enum.StrEnum):
    """Why a connection ended; the value is the label `reason`."""

    CLOSED = "closed"
    ERROR = "error"
    DEADLINE = "deadline"
    EVICTED = "evicted"
    ABANDONED = "abandoned"
    HANDOVER = "handover"
    TLS = "tls"
    CLIENT_LIMIT = "client_limit"


class TaskOutcome(enum.StrEnum):
    """How a task ended; the value is the label `outcome`."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    KILLED = "killed"
    QUARANTINED = "quarantined"


class RestartReason(enum.StrEnum):
    """Why a worker was replaced; the value is the label `reason`."""

    CRASHED = "crashed"
    DEADLINE = "deadline"
    RECYCLED = "recycled"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Connections at one instant: `accepted == sum(completed.values()) + active`, always.

    `peak`: peak in flight, the most that were active in the last seconds (peaks.py); never less than
    `active`.
    """

    accepted: int
    completed: dict[str, int]
    active: int
    peak: int


class Connections:
    """Counts connections: accepted, completed by reason, active.

    `active` is the size of the set of live records and not accepted - completed: if the code ever loses a
    connection, the invariant breaks and a test sees it. Ending a record twice changes nothing: the first
    reason stays, and each connection is counted once.

    A lock makes the numbers of a snapshot consistent; the loop's thread holds it for well under a
    microsecond, the admin thread for the time of one copy.

    Args:
        peaks: where the peaks are kept.
        clock: monotonic, in seconds; processes that share the peaks must share the clock.
    """

    def __init__(self, peaks: Cells | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._peaks: Cells = [0] * CELLS if peaks is None else peaks
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted = 0
        self._completed = Tally[str](dict.fromkeys(ConnectionEnd, 0))
        self._live: set[object] = set()

    def opened(self, record: object) -> None:
        """Count `record` (any hashable object) as accepted and live."""
        with self._lock:
            self._accepted += 1
            self._live.add(record)

    def passed(self, reason: ConnectionEnd) -> None:
        """Count a connection that has been accepted and has ended in the same instant."""
        with self._lock:
            self._accepted += 1
            fell(self._peaks, len(self._live) + 1, self._clock())
            self._completed[reason] += 1

    def ended(self, record: object, reason: ConnectionEnd) -> bool:
        """Count `record` as completed for `reason`; False if it had ended before."""
        with self._lock:
            if record not in self._live:
                return False
            fell(self._peaks, len(self._live), self._clock())
            self._live.remove(record)
            self._completed[reason] += 1
            return True

    def snapshot(self) -> Snapshot:
        """The numbers of one instant; may be called from any thread."""
        with self._lock:
            active = len(self._live)
            peak = highest(self._peaks, active, self._clock())
            return Snapshot(self._accepted, dict(self._completed), active, peak)


class _ConnectionsCollector(Collector):
    """Publishes the counts from one snapshot, so that they agree in every scrape."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def describe(self) -> Iterable[Metric]:
        """The names alone, by which a scrape can ask for some of them (`?name[]=`)."""
        return families(Snapshot(0, {}, 0, 0))

    def collect(self) -> Iterable[Metric]:
        """The families of one snapshot."""
        return families(self._connections.snapshot())


def families(now: Snapshot) -> Iterable[Metric]:
    """The metric families of a snapshot."""
    row = BY_NAME["http_connections_accepted_total"]
    yield CounterMetricFamily(row.name, row.help, value=now.accepted)
    row = BY_NAME["http_connections_completed_total"]
    completed = CounterMetricFamily(row.name, row.help, labels=row.labels)
    for reason, count in now.completed.items():
        completed.add_metric([reason], count)
    yield completed
    row = BY_NAME["http_connections_active"]
    yield GaugeMetricFamily(row.name, row.help, value=now.active)
    row = BY_NAME["http_connections_active_peak"]
    yield GaugeMetricFamily(row.name, row.help, value=now.peak)


def status_class(status: int) -> str:
    """`2xx` and the like; OTHER for what is no status of HTTP (RFC 9110, 15)."""
    return f"{status // 100}xx" if 100 <= status < 600 else "OTHER"


class Metrics:
    """Every instrument under a short name. The admin endpoint renders `registry`."""

    def __init__(self, connections: Connections | None = None) -> None:
        # auto_describe, because the standard collectors do not describe themselves: a scrape that asks for
        # some names only (`?name[]=`) would leave theirs out without a word.
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        self.connections = connections or Connections()
        self.registry.register(_ConnectionsCollector(self.connections))

        self.connections_limit = self._gauge("http_connections_limit")
        self.accept_errors = self._counter("listener_accept_errors_total")
        self.accept_pauses = self._counter("listener_accept_pauses_total")
        self.accept_paused = self._gauge("listener_accept_paused")
        self.backlog_connections = self._gauge("listener_backlog_connections")
        self.backlog_limit = self._gauge("listener_backlog_limit")
        self.accept_wait = self._histogram("listener_accept_wait_seconds")
        self.log_dropped = self._read_counter("log_lines_dropped_total")
        self.loop_lag = self._histogram("event_loop_lag_seconds")

        self._handshakes = self._counter("tls_handshakes_total")
        self._handshake_seconds = self._histogram("tls_handshake_seconds")
        requests = self._counter("http_requests_total")
        request_durations = self._histogram("http_request_duration_seconds")

        @functools.cache  # looking up children by labels costs more than counting; labels are bounded
        def answers(method: str, route: str, status: int) -> Counter:
            return requests.labels(method, route, str(status))

        @functools.cache
        def durations(route: str, status: int) -> Histogram:
            return request_durations.labels(route, status_class(status))

        self._answers, self._durations = answers, durations
        self.requests_in_flight = 0
        """Written by the event loop alone."""
        self._gauge("http_requests_in_flight").set_function(lambda: self.requests_in_flight)

        self.offload_depth = self._gauge("offload_queue_depth")
        self.offload_limit = self._gauge("offload_queue_limit")
        self.offload_predicted_wait = self._gauge("offload_predicted_wait_seconds")
        self.offload_bytes = self._gauge("offload_queue_bytes")
        self.offload_running = self._gauge("offload_running")
        self.offload_overdue = self._gauge("offload_overdue")
        self.offload_workers = self._gauge("offload_workers")
        self.queue_wait = self._histogram("offload_queue_wait_seconds")
        self.task_cpu = self._histogram("offload_task_cpu_seconds")
        tasks = self._counter("offload_tasks_total")
        self.tasks = {outcome: tasks.labels(outcome) for outcome in TaskOutcome}
        by_urgency = self._counter("offload_tasks_by_urgency_total")

        @functools.cache
        def tasks_of(urgency: int, outcome: TaskOutcome) -> Counter:
            return by_urgency.labels(str(urgency), outcome)

        self._tasks_of = tasks_of
        self._waiting = self._gauge("offload_waiting")
        restarts = self._counter("offload_worker_restarts_total")
        self.restarts = {reason: restarts.labels(reason) for reason in RestartReason}

    def request(self, method: str, route: str | None, status: int, seconds: float | None) -> None:
        """Count one response. Unknown methods and routes share the label OTHER, so labels stay bounded.

        Args:
            seconds: that it took; None: nobody knows, and the histogram is told nothing.
        """
        self._answers(method if method in METHODS else "OTHER", route or "OTHER", status).inc()
        if seconds is not None:
            self._durations(route or "OTHER", status).observe(seconds)

    def task(self, outcome: TaskOutcome, urgency: int) -> None:
        """Count one task, of an urgency from 0 to 7."""
        self.tasks[outcome].inc()
        self._tasks_of(urgency, outcome).inc()

    def watch_waiting(self, urgency: int, count: Callable[[], int]) -> Gauge:
        """Read at every scrape how many tasks of this urgency wait; `count` may be called from any thread."""
        gauge = self._waiting.labels(str(urgency))
        gauge.set_function(count)
        return gauge

    def handshake(self, outcome: str, seconds: float) -> None:
        """Count one TLS handshake, `ok` or `failed`."""
        self._handshakes.labels(outcome).inc()
        self._handshake_seconds.observe(seconds)

    def info(self, *, version: str, offload: str, loop: str) -> None:
        """Publish `service_info`."""
        row = BY_NAME["service_info"]
        info = Info(row.name.removesuffix("_info"), row.help, registry=self.registry)
        info.info({"version": version, "offload": offload, "loop": loop})

    def watch_backlog(self, backlog: Callable[[], tuple[int, int]]) -> None:
        """Read the accept queue at every scrape; `backlog` returns (connections that wait, limit)."""
        self.backlog_connections.set_function(lambda: backlog()[0])
        self.backlog_limit.set_function(lambda: backlog()[1])

    def _counter(self, name: str) -> Counter:
        row = BY_NAME[name]
        return Counter(row.name, row.help, row.labels, registry=self.registry)

    def _read_counter(self, name: str) -> Read:
        row = BY_NAME[name]
        counter = ReadCounter(row.name, row.help)
        self.registry.register(counter)
        return counter

    def _gauge(self, name: str) -> Gauge:
        row = BY_NAME[name]
        return Gauge(row.name, row.help, row.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        row = BY_NAME[name]
        return Histogram(row.name, row.help, row.labels, buckets=row.buckets, registry=self.registry)
