"""Runs tools that are not ours: skips without them, bounds their time, ends what it started."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.process.support import ROOT

T = TypeVar("T")
PROMETHEUS = ROOT / "metrics/prometheus"
TARGET = "service:8081"


def need(tool: str, package: str) -> str:
    """The path of a tool; skips the test where it is missing (OFFLOOP_STRICT makes that a failure)."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed (Debian package {package})")
    return path


def run(
    command: Sequence[str | Path], folder: Path, seconds: float = 60, *, cwd: Path = ROOT
) -> tuple[int, str]:
    """Run a tool to its end; its exit code and everything it said, on stdout or stderr.

    HOME is a folder of the test: siege writes its configuration there when it finds none.
    """
    ended = subprocess.run(
        [str(part) for part in command],
        timeout=seconds,
        cwd=cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def poll(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return answer


class Prometheus:
    """A real one. `ask` speaks its HTTP API; `started` is the wall-clock time of its start."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.started = time.time()
        self._log = log
        self.url = f"http://127.0.0.1:{poll(self._port, 'Prometheus listens')}"
        poll(self._ready, "Prometheus is ready")

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
        sockets = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            try:
                sockets.add(str(entry.readlink()))
            except OSError:  # closed meanwhile
                continue
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:  # 0A: LISTEN
                return int(local.partition(":")[2], 16)
        return None

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
