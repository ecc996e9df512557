"""A real HAProxy in front of real services, by the configuration of the project."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from metrics.exposition import parse
from tests.support import ROOT
from tests.support.child import Child
from tests.support.tools import need
from tests.support.waiting import until

CONFIGURATION = ROOT / "deploy/haproxy.cfg"
TEMPLATE = "    server-template replica 10 "
"""Where the configuration finds replicas by their name: replaced by one line for each."""


def with_servers(configuration: str, replicas: Sequence[Child]) -> str:
    """The configuration with these replicas, which are called 1, 2, 3."""
    lines = configuration.splitlines(keepends=True)
    (at,) = [number for number, line in enumerate(lines) if line.startswith(TEMPLATE)]
    places = [[url.removeprefix("http://") for url in replica.ready()] for replica in replicas]
    lines[at] = "".join(
        f"    server {number} {address} port {admin.rpartition(':')[2]}\n"
        for number, (address, admin) in enumerate(places, 1)
    )
    return "".join(lines)


class HAProxy:
    """A real one, on ports of the kernel's choice. `address`: where it serves."""

    def __init__(self, folder: Path, replicas: Sequence[Child], *changes: tuple[str, str]) -> None:
        folder.mkdir()
        self._log = folder / "log"
        configuration = with_servers(CONFIGURATION.read_text(), replicas)
        for before, after in changes:
            assert before in configuration
            configuration = configuration.replace(before, after)
        (folder / "haproxy.cfg").write_text(configuration)
        with (
            socket.create_server(("127.0.0.1", 0)) as served,
            socket.create_server(("127.0.0.1", 0)) as figures,
        ):
            self.address = f"http://127.0.0.1:{served.getsockname()[1]}"
            self._figures = f"http://127.0.0.1:{figures.getsockname()[1]}/metrics"
            with self._log.open("wb") as output:
                self.process = subprocess.Popen(
                    [need("haproxy", "haproxy"), "-db", "-f", folder / "haproxy.cfg"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=os.environ
                    | {"OFFLOOP_BIND": f"fd@{served.fileno()}", "OFFLOOP_FIGURES": f"fd@{figures.fileno()}"},
                    pass_fds=[served.fileno(), figures.fileno()],
                )

    def scrape(self) -> dict[str, float]:
        """Its figures, by its exporter."""
        assert self.process.poll() is None, self._log.read_text()
        with urlopen(self._figures, timeout=10) as answer:
            return parse(answer.read().decode())

    def server(self, number: int, name: str, **labels: str) -> int:
        """One figure of one replica: what follows `haproxy_server_`."""
        named = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        separator = "," if named else ""
        ordered = sorted(f"proxy=replicas,server={number}{separator}{named}".split(","))
        return int(self.scrape()[f"haproxy_server_{name}{{{','.join(ordered)}}}"])

    def until_down(self, number: int) -> None:
        """Wait until it sends this replica nothing more."""
        until(lambda: self.server(number, "status", state="UP") == 0, f"replica {number} is down", 20)


@contextmanager
def haproxy(folder: Path, replicas: Sequence[Child], *changes: tuple[str, str]) -> Iterator[HAProxy]:
    """HAProxy in front of these replicas, ended whatever the test does; `changes`: old text, new text."""
    proxy = HAProxy(folder, replicas, *changes)
    try:
        yield proxy
    finally:
        proxy.process.terminate()  # at once: SIGUSR1 would wait for clients
        try:
            proxy.process.wait(10)
        except subprocess.TimeoutExpired:
            proxy.process.kill()
            proxy.process.wait(10)
