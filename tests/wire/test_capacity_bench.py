"""The bench sends what it is told to and reads what a service tells."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from loadtests.capacity import bench, trial
from loadtests.capacity.bench import Bench, Order, admin_url_of
from loadtests.load.order import Machine
from loadtests.load.phase import Phase
from loadtests.load.thresholds import Threshold
from tests.support.servers import OK_ANSWER, ScriptedServer, answer_with


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(bench, "SATURATION_SECONDS", 1.5)


@pytest.fixture
def admin() -> Iterator[str]:
    """An admin port of two workers, who have always spent 4 ms for each of ten more tasks."""
    tasks = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tasks[0] += 10
            text = (
                "offload_workers 2\n"
                f"offload_task_cpu_seconds_count {tasks[0]}\n"
                f"offload_task_cpu_seconds_sum {tasks[0] * 0.004}\n"
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def order(url: str, admin_url: str | None = None) -> Order:
    return Order(
        phase=Phase(url=url, rate=1, duration_seconds=1),
        thresholds=(Threshold.parse("errors<=99%"),),
        clients=4,
        budget_seconds=1,
        admin_url=admin_url,
        machine=Machine(shared=True),
    )


def test_a_foreign_service_gets_rates_and_no_s() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Bench(order(server.url)) as loads:
        found = loads.trial(100, hold=False)
        assert loads.workers is None
        assert (found.load, found.demand_seconds) == (100, None)
        assert len(server.requests) == found.seconds * 100
        assert loads.saturate().throughput_per_second > 0


def test_a_service_of_ours_gets_shares_of_its_limit(admin: str) -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server, Bench(order(server.url, admin)) as loads:
        found = loads.trial(100, hold=False)
        assert loads.workers == 2
        assert found.demand_seconds == pytest.approx(0.004)
        assert found.load == pytest.approx(100 * 0.004 / 2)
        assert loads.saturate().demand_seconds == pytest.approx(0.004)


def test_a_neighbour_of_the_port_that_is_no_service_of_ours_is_none() -> None:
    with ScriptedServer(answer_with(OK_ANSWER)) as server:
        assert admin_url_of(f"http://127.0.0.1:{server.port - 1}/") is None
    assert admin_url_of("http://127.0.0.1:1/") is None
