"""Does `capacity` find what is there, and the same each time? `make capacity`.

A server that can do exactly 200/s: one request after the other, 5 ms each, by the clock, twice. And our own
service, five times, whose brackets must overlap as shares of its limit.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from tests.proofs.record import prove
from tests.support.child import service

EXACT = 200.0
EXACT_REPEATS = 2
REPEATS = 5
MOST_SECONDS = 240.0
MOST_WIDTH = 0.05
MOST_OFF = 0.02
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class OneAtATime:
    """A server of one clerk: a request is answered 5 ms after the one before it, or after it came."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        poll = select.epoll()
        poll.register(self._listener, select.EPOLLIN)
        clients: dict[int, socket.socket] = {}
        due: list[tuple[float, int]] = []
        free = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            while due and due[0][0] <= now:
                connection = clients.pop(heapq.heappop(due)[1])
                try:
                    connection.recv(65_536)
                    connection.send(ANSWER)
                except OSError:  # the client has given up
                    pass
                connection.close()
            # select(2) waits to the microsecond, epoll_wait(2) to the millisecond.
            wait = min(0.1, due[0][0] - time.monotonic()) if due else 0.1
            if not select.select([poll], [], [], max(0.0, wait))[0]:
                continue
            for descriptor, _ in poll.poll(0):
                if descriptor == self._listener.fileno():
                    connection, _ = self._listener.accept()
                    connection.setblocking(False)
                    clients[connection.fileno()] = connection
                    poll.register(connection, select.EPOLLIN)
                else:  # its request is there, or its end
                    poll.unregister(descriptor)
                    free = max(free, time.monotonic()) + 1 / EXACT
                    heapq.heappush(due, (free, descriptor))
        for connection in clients.values():
            connection.close()
        poll.close()


def searched(url: str, out: Path, *flags: str) -> dict[str, Any]:
    """The result of one search."""
    command = [sys.executable, "-m", "loadtests", "capacity", url, "--out", str(out), *flags]
    began = time.monotonic()
    subprocess.run(command, timeout=600, check=False, stdout=sys.stderr)
    found: dict[str, Any] = json.loads((out / "capacity.json").read_text())
    return {**found, "took": time.monotonic() - began}


def row(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a search."""
    bracket = found["bracket"]
    return {
        "state": found["state"],
        "low": round(bracket["low"], 4),
        "high": round(bracket["high"], 4),
        "width": round(bracket["high"] / bracket["low"] - 1, 4),
        "trials": len(found["trials"]),
        "seconds": round(found["took"]),
        "why": found["upper_end"],
        **({"invalid": found["invalid_because"]} if found["invalid_because"] else {}),
    }


def exact(folder: Path) -> dict[str, Any]:
    """A capacity that is known."""
    with OneAtATime() as server:
        rows = [row(searched(server.url, folder / str(n))) for n in range(EXACT_REPEATS)]
    within = [max(EXACT / found["low"], found["high"] / EXACT) - 1 for found in rows]
    holds = [
        found["low"] <= EXACT <= found["high"] and off <= MOST_OFF
        for found, off in zip(rows, within, strict=True)
    ]
    return {
        "per second": EXACT,
        "searches": rows,
        "ends off by at most": round(max(within), 4),
        "holds": all(holds),
    }


def ours(folder: Path) -> dict[str, Any]:
    """Our own service, with a core left to the generator; loads are shares of workers / S."""
    rows = []
    with service(folder / "log", "--workers", str(max(1, (os.cpu_count() or 2) - 1))) as child:
        address, admin = child.ready()
        for n in range(REPEATS):
            rows.append(row(searched(f"{address}/data", folder / str(n), "--admin-url", admin)))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        assert child.end() == 0
    overlap = max(found["low"] for found in rows) <= min(found["high"] for found in rows)
    narrow = all(found["width"] <= MOST_WIDTH and found["seconds"] <= MOST_SECONDS for found in rows)
    return {"searches": rows, "overlap": overlap, "narrow and in time": narrow}


def main() -> int:
    """Run both."""
    return prove("capacity", {"a server of exactly 200/s": exact, "our service": ours})


if __name__ == "__main__":
    sys.exit(main())
