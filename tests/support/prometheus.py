"""A real Prometheus that scrapes a real service, and a real Alertmanager, by the project's configuration."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil

from tests.support import ROOT
from tests.support.tools import need
from tests.support.waiting import until

PROMETHEUS = ROOT / "metrics/prometheus"
TARGET = "service:8081"
BY_NAME = "dns_sd_configs: [{names: [alertmanager], type: A, port: 9093}]"
ALERTMANAGER = ROOT / "deploy/alertmanager.yml"
WEBHOOK = "http://127.0.0.1:9095/"


UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def hastened(text: str, factor: int) -> str:
    """A configuration or rules in which everything takes a part of the time, and nothing else is another.

    Divided: ranges of expressions, and what follows `for` and words that end with interval, timeout, wait.
    """

    def divide(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * UNITS_MS[found[3]] // factor}ms"

    return re.sub(r"(\[|\b(?:for|\w+_(?:interval|timeout|wait)): )(\d+)(ms|s|m|h)\b", divide, text)


class Daemon:
    """Prometheus or Alertmanager as a child, from when it is ready. `url`: on a port of its choice."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = f"http://127.0.0.1:{until(self._port, 'it listens')}"
        until(self._ready, "it is ready")

    def _alive(self) -> None:
        assert self.process.poll() is None, self._log.read_text()

    def _port(self) -> int | None:
        """The port that the kernel chose: a free one asked for beforehand could be gone by now."""
        self._alive()
        sockets = psutil.Process(self.process.pid).net_connections("tcp")
        return next((one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN), None)

    def _ready(self) -> bool:
        self._alive()
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # 503 as long as it reads its log
            return False


class Prometheus(Daemon):
    """A real one. `ask` speaks its HTTP API; `started` is the wall-clock time of its start."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.started = time.time()
        super().__init__(process, log)

    def ask(self, path: str, **parameters: str | float) -> Any:
        """The `data` of one answer of the API."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def values(self, expression: str) -> list[float]:
        """Every value the expression has had since the start, over all its series, as a panel gets them."""
        data = self.ask("query_range", query=expression, start=self.started, end=time.time() + 1, step=1)
        return [float(value) for series in data["result"] for _, value in series["values"]]


@contextmanager
def prometheus(
    folder: Path, target: str, alertmanager: str | None = None, *, factor: int = 1
) -> Iterator[Prometheus]:
    """Prometheus with the project's own configuration, of which only what it talks to is another.

    `alertmanager`: host and port of one; `factor`: of how many times as fast, see `hastened`.
    """
    config = (PROMETHEUS / "prometheus.yml").read_text()
    places = [(TARGET, target)]
    if alertmanager:
        places.append((BY_NAME, f"static_configs: [{{targets: ['{alertmanager}']}}]"))
    for ours, other in places:
        assert config.count(ours) == 1
        config = config.replace(ours, other)
    folder.mkdir()
    (folder / "prometheus.yml").write_text(hastened(config, factor))
    (folder / "rules.yml").write_text(hastened((PROMETHEUS / "rules.yml").read_text(), factor))
    command = [
        need("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        "--log.level=warn",
    ]
    with _daemon(command, folder) as process:
        yield Prometheus(process, folder / "log")


@contextmanager
def alertmanager(folder: Path, webhook: str, *, factor: int = 1) -> Iterator[Daemon]:
    """Alertmanager with the project's own configuration, of which only the receiver is another."""
    config = ALERTMANAGER.read_text()
    assert config.count(WEBHOOK) == 1
    folder.mkdir()
    (folder / "alertmanager.yml").write_text(hastened(config.replace(WEBHOOK, webhook), factor))
    command = [
        need("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",  # alone
        "--log.level=warn",
    ]
    with _daemon(command, folder) as process:
        yield Daemon(process, folder / "log")


@contextmanager
def _daemon(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start it in its folder, which goes with it."""
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        shutil.rmtree(folder)
