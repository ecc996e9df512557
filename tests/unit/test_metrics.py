"""The book of connections, bounded labels, and a catalogue that is complete."""

from __future__ import annotations

import math

import pytest
from prometheus_client import generate_latest

from metrics.catalogue import BY_NAME, CATALOGUE
from metrics.exposition import parse, total
from metrics.instruments import ConnectionEnd, Metrics, TaskOutcome


def scrape(metrics: Metrics) -> dict[str, float]:
    return parse(generate_latest(metrics.registry).decode())


def test_a_connection_is_completed_once_and_the_first_reason_wins() -> None:
    metrics = Metrics()
    first, second = object(), object()
    metrics.connections.opened(first)
    metrics.connections.opened(second)
    assert metrics.connections.ended(first, ConnectionEnd.ERROR)
    assert not metrics.connections.ended(first, ConnectionEnd.CLOSED)
    values = scrape(metrics)
    assert values["http_connections_accepted_total"] == 2
    assert values["http_connections_completed_total{reason=error}"] == 1
    assert values["http_connections_completed_total{reason=closed}"] == 0
    assert values["http_connections_active"] == 1


def test_a_connection_that_ends_at_once_is_counted_in_all_the_books_but_was_never_left_active() -> None:
    metrics = Metrics()
    metrics.connections.opened(object())
    metrics.connections.passed(ConnectionEnd.CLOSED)
    values = scrape(metrics)
    assert values["http_connections_accepted_total"] == 2
    assert values["http_connections_completed_total{reason=closed}"] == 1
    assert values["http_connections_active"] == 1
    assert values["http_connections_active_peak"] == 2, "both were there in that instant"


def test_one_scrape_can_ask_for_the_three_numbers_alone() -> None:
    metrics = Metrics()
    restricted = metrics.registry.restricted_registry(["http_connections_active"])
    assert parse(generate_latest(restricted).decode()) == {"http_connections_active": 0}


def test_a_scrape_for_some_names_has_the_standard_ones_too() -> None:
    name = "process_cpu_seconds_total"
    restricted = Metrics().registry.restricted_registry([name])
    assert parse(generate_latest(restricted).decode())[name] > 0


def test_labels_that_a_client_chooses_are_bounded() -> None:
    metrics = Metrics()
    for n in range(50):
        metrics.request(f"BREW{n}", None, 404, 0.001)
    values = scrape(metrics)
    assert values["http_requests_total{method=OTHER,route=OTHER,status=404}"] == 50
    assert sum(key.startswith("http_requests_total") for key in values) == 1


@pytest.mark.parametrize(
    ("status", "label"),
    [(101, "1xx"), (204, "2xx"), (499, "4xx"), (599, "5xx"), (600, "OTHER"), (99, "OTHER")],
)
def test_durations_are_kept_by_class_of_the_status(status: int, label: str) -> None:
    metrics = Metrics()
    metrics.request("GET", "/data", status, 0.25)
    values = scrape(metrics)
    assert values[f"http_request_duration_seconds_sum{{route=/data,status_class={label}}}"] == 0.25
    assert total(values, "http_request_duration_seconds_count") == 1


def test_a_request_whose_duration_nobody_knows_is_counted_and_has_none() -> None:
    metrics = Metrics()
    metrics.request("GET", "/data", 503, None)
    values = scrape(metrics)
    assert values["http_requests_total{method=GET,route=/data,status=503}"] == 1
    assert total(values, "http_request_duration_seconds_count") == 0


def test_a_task_is_counted_by_its_outcome_and_by_its_urgency_as_well() -> None:
    metrics = Metrics()
    metrics.task(TaskOutcome.REJECTED, 7)
    metrics.task(TaskOutcome.REJECTED, 0)
    metrics.watch_waiting(7, lambda: 5)
    values = scrape(metrics)
    assert values["offload_tasks_total{outcome=rejected}"] == 2
    by = "offload_tasks_by_urgency_total{outcome=rejected,urgency="
    assert {name: value for name, value in values.items() if "urgency=" in name} == {
        by + "0}": 1,
        by + "7}": 1,
        "offload_waiting{urgency=7}": 5,
    }


def test_the_whole_catalogue_is_published() -> None:
    metrics = Metrics()
    metrics.info(version="0", offload="inline", loop="uvloop")
    text = generate_latest(metrics.registry).decode()
    for row in CATALOGUE:
        kind = "gauge" if row.type == "info" else row.type
        assert f"# HELP {row.name} {row.help}" in text
        assert f"# TYPE {row.name} {kind}" in text


def test_the_catalogue_names_each_metric_once() -> None:
    assert len(BY_NAME) == len(CATALOGUE)


def test_an_exposition_is_read_back() -> None:
    values = parse('a_total{y="2",x="1"} 3\na_total{x="9"} 4\nb +Inf\n')
    assert values == {"a_total{x=1,y=2}": 3.0, "a_total{x=9}": 4.0, "b": math.inf}
    assert total(values, "a_total") == 7.0
    assert total(values, "absent") == 0.0
