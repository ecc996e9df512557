"""Every metric in one table: name, type, help, labels, buckets and the question it answers.

The metrics table of the docs is generated from it, and a test compares them. Pure data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets from half a millisecond (an idle answer) to ten seconds (a queue that is far too long)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. `question`: what an operator wants to know from it."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    question: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Literal["sum", "max"] = "sum"
    """How the gauges of several processes combine; counters and histograms are always added."""


CATALOGUE = (
    Row(
        "http_connections_accepted_total",
        "counter",
        "Connections taken from the kernel's accept queue, counted at accept.",
        "How many connections were accepted?",
    ),
    Row(
        "http_connections_completed_total",
        "counter",
        "Connections that ended, by reason: closed, error, deadline (too slow), evicted (idle or slow at "
        "the limit), abandoned (by a drain), handover, tls (no handshake), client_limit (one client had too "
        "many); with several IO processes also killed.",
        "How many of them have ended, and did they end well?",
        ("reason",),
    ),
    Row(
        "http_connections_active",
        "gauge",
        "Live connection records; accepted = completed + active in every scrape.",
        "How many connections are open now?",
    ),
    Row(
        "http_connections_active_peak",
        "gauge",
        "Most live connection records at the same time in the last 10 seconds, never less than active. With "
        "several IO processes: the sum of the peaks of those that run, an upper bound of the true peak.",
        "How many were open at most, between two scrapes too?",
    ),
    Row(
        "http_connections_limit",
        "gauge",
        "Most connections held at the same time; more wait in the kernel's accept queue.",
        "How close is the service to its connection limit?",
    ),
    Row(
        "tls_handshakes_total",
        "counter",
        "TLS handshakes by outcome: ok, failed.",
        "Do TLS handshakes succeed?",
        ("outcome",),
    ),
    Row(
        "tls_handshake_seconds",
        "histogram",
        "From accept to the end of the handshake, whether it succeeded or failed.",
        "What does encryption cost a new connection?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "listener_accept_errors_total",
        "counter",
        "Failed accepts by class (connection, shortage, unknown, broken) and errno name.",
        "Is a failed accept due to the connection or to this machine?",
        ("class", "errno"),
    ),
    Row(
        "listener_accept_pauses_total",
        "counter",
        "Times the listener paused because of a shortage.",
        "How often did descriptors or memory run out?",
    ),
    Row(
        "listener_accept_paused",
        "gauge",
        "1 while the listener is paused because of a shortage.",
        "Is accepting paused now?",
        across="max",  # they share one listener
    ),
    Row(
        "listener_backlog_connections",
        "gauge",
        "Connections waiting in the kernel's accept queue (TCP_INFO, Linux).",
        "Is there a queue in front of the service?",
        across="max",  # they share one listener
    ),
    Row(
        "listener_backlog_limit",
        "gauge",
        "Size of the kernel's accept queue (TCP_INFO, Linux).",
        "From how many on does the kernel drop handshakes?",
        across="max",  # they share one listener
    ),
    Row(
        "listener_accept_wait_seconds",
        "histogram",
        "How long the bytes of a new connection, or without any the connection itself, waited in the "
        "kernel's accept queue (TCP_INFO, Linux; in ticks of its clock, 4 ms at 250 Hz).",
        "How long do clients wait to be accepted?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "http_requests_total",
        "counter",
        "Responses written, by method, route and status; unknown methods and routes are OTHER.",
        "Which responses do clients get?",
        ("method", "route", "status"),
    ),
    Row(
        "http_request_duration_seconds",
        "histogram",
        "From the arrival of the request to its response written, by route and class of the status (2xx). It "
        "arrived when its first byte was read, or before that, if the kernel says that the first request of "
        "a connection lay there for more than 10 ms. Without those that were refused before HTTP was parsed: "
        "http_requests_total has them.",
        "How long does a request take from its arrival?",
        ("route", "status_class"),
        FAST_SECONDS,
    ),
    Row(
        "http_requests_in_flight",
        "gauge",
        "Requests that a handler works on.",
        "How many requests are being answered?",
    ),
    Row(
        "offload_queue_depth",
        "gauge",
        "Tasks waiting for a worker.",
        "Is there a queue inside the service?",
    ),
    Row(
        "offload_waiting",
        "gauge",
        "Tasks that no worker has yet, by urgency: 0 is served first, 7 last, 3 is the usual one.",
        "Who waits: those that matter most, or the others?",
        ("urgency",),
    ),
    Row(
        "offload_queue_limit",
        "gauge",
        "Most tasks that may wait, at the service time measured last; +Inf: unbounded.",
        "From how many on are requests refused?",
    ),
    Row(
        "offload_predicted_wait_seconds",
        "gauge",
        "How long a task that came now would wait for a worker, as admission predicts it.",
        "How close is the service to --queue-wait?",
        across="max",
    ),
    Row(
        "offload_queue_bytes",
        "gauge",
        "Bytes of arguments and large results of tasks that have no answer yet, as they travel.",
        "How close is the service to --max-queue-bytes?",
    ),
    Row("offload_running", "gauge", "Tasks that workers are running.", "Are all workers busy?"),
    Row(
        "offload_overdue",
        "gauge",
        "Tasks past their deadline that keep their place until they end, because neither threads nor "
        "what an executor runs can be killed.",
        "How much of the capacity is lost to tasks that nobody waits for?",
    ),
    Row(
        "offload_workers",
        "gauge",
        "Workers that can run a task at the same time.",
        "What is the limit (workers / S)?",
    ),
    Row(
        "offload_queue_wait_seconds",
        "histogram",
        "From submission to start on a worker, measured by the worker.",
        "How long do tasks wait for a worker?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "offload_task_cpu_seconds",
        "histogram",
        "CPU seconds of one task, measured by the worker; sum / count is S, the service demand.",
        "How much CPU does one task take?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "offload_tasks_total",
        "counter",
        "Tasks by outcome: completed, rejected, expired, cancelled, failed, killed (its workers died), "
        "quarantined (not run, because the same call has killed workers).",
        "How do tasks end?",
        ("outcome",),
    ),
    Row(
        "offload_tasks_by_urgency_total",
        "counter",
        "The tasks of offload_tasks_total by urgency, too: 0 is served first, 7 last, 3 is the usual one.",
        "Whose requests are answered, and whose are refused?",
        ("urgency", "outcome"),
    ),
    Row(
        "offload_worker_restarts_total",
        "counter",
        "Workers replaced, by reason: crashed, deadline (killed at a task's deadline), recycled.",
        "Do workers die?",
        ("reason",),
    ),
    Row(
        "event_loop_lag_seconds",
        "histogram",
        "How late a timer due every 100 ms fired (1 ms resolution under uvloop).",
        "Is the event loop blocked?",
        (),
        FAST_SECONDS,
    ),
    Row(
        "log_lines_dropped_total",
        "counter",
        "Log lines that were dropped because stderr took none: its reader has stopped or gone.",
        "Is the log complete?",
    ),
    Row(
        "service_info",
        "info",
        "Always 1; the labels say what runs.",
        "Which version runs, with which offload and loop?",
        ("version", "offload", "loop"),
        across="max",
    ),
)

BY_NAME = {row.name: row for row in CATALOGUE}
