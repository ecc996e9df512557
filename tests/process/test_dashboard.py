"""The dashboard and the rules, asked of a real Prometheus that scraped a real service under load."""

from __future__ import annotations

import json
import math
import re
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from metrics.catalogue import BY_NAME
from tests.support import ROOT
from tests.support.child import Child, service
from tests.support.processes import descriptors
from tests.support.prometheus import PROMETHEUS, Prometheus, prometheus
from tests.support.tools import need, run
from tests.support.waiting import until

GRAFANA = ROOT / "metrics/grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards/offloop.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
RATE_INTERVAL = "5s"
"""What Grafana puts in for $__rate_interval: at least four scrapes, here of one second each."""

FOREIGN = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}
"""prometheus_client's own collector; the design's contract names it."""

NOT_DRAWN = {
    "offload_queue_limit",  # +Inf as long as the queue is unbounded, and infinity cannot be drawn
    "offload_queue_bytes",  # next to nothing unless arguments are large, and bounded then
    "http_connections_limit",  # thousands above what is held: an alert watches the distance
    "tls_handshakes_total",  # without TLS, which is most often a balancer's, a panel would stay empty
    "tls_handshake_seconds",
    "log_lines_dropped_total",  # 0, unless what reads the log is broken
}


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics in an expression: what is followed by a selector, a range or nothing."""
    bare = re.sub(r'"[^"]*"|\b(?:by|on)\s*\([^)]*\)|\{[^}]*\}|\[[^]]*\]', " ", expression)
    return set(re.findall(r"\b[a-z]\w*_\w+\b(?!\s*\()", bare))


def family(name: str) -> str:
    """The catalogue's name of a histogram's series."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in BY_NAME else name


def is_data(values: list[float]) -> bool:
    """Whether there is a number among them: 0 / 0 is none, and an infinity cannot be drawn."""
    return any(math.isfinite(value) for value in values)


def test_the_dashboard_uses_the_metrics_of_the_catalogue_and_leaves_none_out() -> None:
    used = {family(name) for expression in EXPRESSIONS.values() for name in metrics_of(expression)}
    assert used - FOREIGN == BY_NAME.keys() - NOT_DRAWN


def test_every_panel_asks_a_question_in_a_unit_of_the_provisioned_source() -> None:
    source = (GRAFANA / "provisioning/datasources/prometheus.yml").read_text()
    (uid,) = re.findall(r"uid: (\S+)", source)
    assert DASHBOARD["uid"] == "offloop"
    assert DASHBOARD["schemaVersion"] >= 39
    assert "http" not in re.sub(r"http_\w+|\bHTTP\b", "", json.dumps(DASHBOARD)), "nothing from the network"
    for panel in PANELS:
        assert panel["title"].endswith("?")
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))


def test_no_two_panels_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24, "Grafana's grid has 24 columns"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, said = run([need("promtool", "prometheus"), *arguments], tmp_path, cwd=PROMETHEUS)
    assert code == 0, said


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    alerts = re.findall(r"- alert: (\w+)", (PROMETHEUS / "rules.yml").read_text())
    cases = (PROMETHEUS / "rules_test.yml").read_text()
    assert alerts
    assert {name for name in alerts if f'{{alertname="{name}"}}' not in cases} == set()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, Prometheus]]:
    """A service under light load for as long as it takes Prometheus to know something."""
    folder = tmp_path_factory.mktemp("stack")
    need("prometheus", "prometheus")
    with service(folder / "service.log", "--work-units", "2000") as child:
        address, admin = child.ready()
        one_shortage(child, address)
        with prometheus(folder / "prometheus", admin.removeprefix("http://")) as server:
            yield child, server
        assert child.end() == 0
    shutil.rmtree(folder)


def one_shortage(child: Child, address: str) -> None:
    """Let the service run out of descriptors once: no other way leads to a failed accept."""
    pid = child.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    host, port = address.removeprefix("http://").split(":")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid), before[1]))
    try:
        with socket.create_connection((host, int(port))):
            child.wait_until(lambda: child.events("accept paused"))
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    child.wait_until(lambda: child.scrape()["listener_accept_paused"] == 0)


def load_until_known(stack: tuple[Child, Prometheus], expressions: dict[str, str]) -> dict[str, str]:
    """Send requests, a few at a time, until every expression has a value; those that never get one."""
    child, server = stack
    pending = dict(expressions)

    def nothing_pending() -> bool:
        for _ in range(5):
            with urlopen(f"{child.ready()[0]}/data", timeout=30) as answer:
                assert answer.status == 200
        for name, expression in list(pending.items()):
            if is_data(server.values(expression.replace("$__rate_interval", RATE_INTERVAL))):
                del pending[name]
        return not pending

    try:
        until(nothing_pending, "every expression has data", 60)
    except AssertionError:
        return pending
    return {}


def test_every_expression_of_the_dashboard_returns_data(stack: tuple[Child, Prometheus]) -> None:
    assert load_until_known(stack, EXPRESSIONS) == {}


def test_every_recording_rule_returns_data(stack: tuple[Child, Prometheus]) -> None:
    _, server = stack
    rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    recording = {rule["name"]: rule["name"] for rule in rules if rule["type"] == "recording"}
    assert len(recording) == (PROMETHEUS / "rules.yml").read_text().count("- record: ")
    assert load_until_known(stack, recording) == {}


def test_every_alert_says_what_is_the_case_and_what_to_do(stack: tuple[Child, Prometheus]) -> None:
    _, server = stack
    rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    assert alerts
    for alert in alerts:
        assert set(alert["annotations"]) == {"summary", "action", "runbook"}, alert["name"]
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["health"] != "err", alert


@pytest.mark.parametrize("name", ["http_connections_accepted_total", "offload_task_cpu_seconds_count"])
def test_what_prometheus_counted_is_what_the_service_says(name: str, stack: tuple[Child, Prometheus]) -> None:
    child, server = stack
    wanted = child.scrape()[name]
    assert wanted > 0
    until(lambda: server.values(name)[-1:] == [wanted], f"Prometheus has {name} = {wanted}")
