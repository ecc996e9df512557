"""A real Prometheus that scrapes a real service, by the configuration of the project."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
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


class Prometheus:
    """A real one. `ask` speaks its HTTP API; `started` is the wall-clock time of its start."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.started = time.time()
        self._log = log
        self.url = f"http://127.0.0.1:{until(self._port, 'Prometheus listens')}"
        until(self._ready, "Prometheus is ready")

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


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus with the project's own configuration, of which only the target is another."""
    binary = need("prometheus", "prometheus")
    config = (PROMETHEUS / "prometheus.yml").read_text()
    assert config.count(TARGET) == 1
    folder.mkdir()
    (folder / "prometheus.yml").write_text(config.replace(TARGET, target))
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.level=warn",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Prometheus(process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        shutil.rmtree(folder)
