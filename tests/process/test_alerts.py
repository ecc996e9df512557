"""Alerts as they reach somebody: a real service, Prometheus and Alertmanager, and a receiver of ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tests.support.child import service
from tests.support.load import Load, load
from tests.support.prometheus import ALERTMANAGER, alertmanager, prometheus
from tests.support.tools import need, run
from tests.support.waiting import until

OVERLOAD = "WorkersBusyAndQueueStanding"
WORKERS, WORK_SECONDS = 2, 0.04
RULES_FACTOR = 4
"""Prometheus scrapes four times a second, and knows after a few seconds what it else knows after 25."""
ROUTE_FACTOR = 20
"""Alertmanager waits half a second for others of the same alert, and three seconds for news of it."""


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Where Alertmanager sends to, and all that it has sent so far."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what it has received."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", received
        finally:
            server.shutdown()
            thread.join()


def told(received: list[dict[str, Any]], status: str) -> list[dict[str, Any]]:
    """The messages about overload with this status."""
    return [
        message
        for message in received
        if message["status"] == status and message["groupLabels"] == {"alertname": OVERLOAD}
    ]


def test_amtool_finds_no_fault(tmp_path: Path) -> None:
    need("prometheus-alertmanager", "prometheus-alertmanager")
    code, said = run([need("amtool", "prometheus-alertmanager"), "check-config", ALERTMANAGER], tmp_path)
    assert code == 0, said


def test_overload_is_told_and_so_is_its_end(tmp_path: Path) -> None:
    flags = ("--work", "tests.work:sleeps_40_ms", "--work-units", "1", "--workers", str(WORKERS))
    with (
        receiver() as (webhook, received),
        service(tmp_path / "service.log", *flags) as child,
        alertmanager(tmp_path / "alertmanager", webhook, factor=ROUTE_FACTOR) as sender,
        prometheus(
            tmp_path / "prometheus",
            child.ready()[1].removeprefix("http://"),
            sender.url.removeprefix("http://"),
            factor=RULES_FACTOR,
        ) as server,
    ):
        limit = WORKERS / WORK_SECONDS
        load(child.ready()[0], 5, 0.5 * limit, tmp_path / "half")
        assert server.values(f'ALERTS{{alertname="{OVERLOAD}",alertstate="firing"}}') == []
        under = Load(child.ready()[0], 100, 3 * limit, tmp_path / "triple")
        try:
            until(lambda: told(received, "firing"), "overload is told")
            assert under.is_running(), "it was told after the load"
            assert not told(received, "resolved")
        finally:
            under.stop()
        under.outcomes()
        until(lambda: told(received, "resolved"), "its end is told")
        (alert,) = told(received, "firing")[0]["alerts"]
        assert child.end() == 0
    assert alert["labels"]["severity"] == "warning"
    assert alert["labels"]["instance"] == child.ready()[1].removeprefix("http://")
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{OVERLOAD.lower()}"
