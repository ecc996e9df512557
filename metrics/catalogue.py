"""Every metric in one table: name, type, help, labels, buckets and the question it answers.

docs/metrics.md is drawn from this one and a test compares them. Nothing here runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets from half a millisecond (an idle answer) to ten seconds (a queue nobody should stand in)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. `question` is what an operator asks when they look at it."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    question: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Literal["sum", "max"] = "sum"
    """What the gauges of several processes make together; counters and histograms are always added."""


CATALOGUE = (
    Row(
        "http_connections_accepted_total",
        "counter",
        "Connections taken from the kernel's accept queue, counted at accept.",
        "How many clients got in?",
    ),
    Row(
        "http_connections_completed_total",
        "counter",
        "Connections that ended, by reason: closed, error, deadline (too slow), evicted (idle at the limit), "
        "abandoned (by a drain), handover, tls (no handshake); of several IO processes also killed.",
        "How many of them are done, and did they end well?",
        ("reason",),
    ),
    Row(
        "http_connections_active",
        "gauge",
        "Live connection records; accepted = completed + active in every scrape.",
        "How many clients are we holding right now?",
    ),
    Row(
        "http_connections_active_peak",
        "gauge",
        "Most connection records that lived at the same time in the last 10 seconds, never less than "
        "active. Several IO processes: the sum of the living ones' peaks, an upper bound of the whole.",
        "How many did we hold between two scrapes?",
    ),
    Row(
        "http_connections_limit",
        "gauge",
        "Most connections held at the same time; more wait in the kernel's accept queue.",
        "How near are we to being full?",
    ),
    Row(
        "tls_handshakes_total",
        "counter",
        "TLS handshakes by outcome: ok, failed.",
        "Do clients get through the handshake?",
        ("outcome",),
    ),
    Row(
        "tls_handshake_seconds",
        "histogram",
        "From accept to the end of the handshake, however it ended.",
        "What does encryption cost a new client?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "listener_accept_errors_total",
        "counter",
        "Failed accepts by class (connection, shortage, unknown, broken) and errno name.",
        "Is it their connection or our machine?",
        ("class", "errno"),
    ),
    Row(
        "listener_accept_pauses_total",
        "counter",
        "Times the listener paused for a shortage.",
        "How often did we run out of descriptors or memory?",
    ),
    Row(
        "listener_accept_paused",
        "gauge",
        "1 while the listener is paused for a shortage.",
        "Are we refusing to look at the queue right now?",
        across="max",  # they share one listener
    ),
    Row(
        "listener_backlog_connections",
        "gauge",
        "Connections waiting in the kernel's accept queue (TCP_INFO, Linux).",
        "Does the queue stand before the service?",
        across="max",  # they share one listener
    ),
    Row(
        "listener_backlog_limit",
        "gauge",
        "Size of the kernel's accept queue (TCP_INFO, Linux).",
        "When will the kernel start to drop handshakes?",
        across="max",  # they share one listener
    ),
    Row(
        "http_requests_total",
        "counter",
        "Answers written, by method, route and status; unknown ones are OTHER.",
        "What do clients get?",
        ("method", "route", "status"),
    ),
    Row(
        "http_request_duration_seconds",
        "histogram",
        "From the request's first byte read to its answer written.",
        "How long do clients wait once we have read them?",
        ("route",),
        FAST_SECONDS,
    ),
    Row(
        "offload_queue_depth",
        "gauge",
        "Tasks waiting for a worker.",
        "Does the queue stand inside the service?",
    ),
    Row(
        "offload_queue_limit",
        "gauge",
        "Most tasks that may wait, at the service time just measured; +Inf is unbounded.",
        "When do we say no?",
    ),
    Row("offload_running", "gauge", "Tasks that a worker is running.", "Are all workers busy?"),
    Row(
        "offload_workers",
        "gauge",
        "Workers that can run a task at the same time.",
        "What is the limit (workers / S)?",
    ),
    Row(
        "offload_queue_wait_seconds",
        "histogram",
        "From submitted to started on a worker, measured by the worker.",
        "How long does work wait for a worker?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "offload_task_cpu_seconds",
        "histogram",
        "CPU seconds of one task, measured by the worker; sum / count is S.",
        "What does one unit of work cost?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "offload_tasks_total",
        "counter",
        "Tasks by outcome: completed, rejected, expired, cancelled, failed, killed.",
        "What became of the work?",
        ("outcome",),
    ),
    Row(
        "offload_worker_restarts_total",
        "counter",
        "Workers replaced, by reason: crashed, deadline (killed for it), recycled.",
        "Do workers die?",
        ("reason",),
    ),
    Row(
        "event_loop_lag_seconds",
        "histogram",
        "How late a timer due every 100 ms fired (1 ms resolution under uvloop).",
        "Is something blocking the loop?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "service_info",
        "info",
        "Always 1; labels say what runs.",
        "Which version and strategy is this?",
        ("version", "offload", "loop"),
        across="max",
    ),
)

BY_NAME = {row.name: row for row in CATALOGUE}
