"""Watches the server while a phase runs: its counters and the kernel's, ten times a second.

Knows the names of the metrics and /proc/net/netstat. Touches the admin port only, which is another
port than the one under load, so watching adds nothing to what is accepted.
"""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from loadtests.experiment.child import ServiceError
from metrics.exposition import parse, total

INTERVAL_SECONDS: Final = 0.1
SETTLE_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 1.0
HALF_OPEN_SECONDS: Final = 7.0
"""A half-open connection may still come in when its client retransmits: 0.2, 0.6, 1.4, 3.0 and 6.2 s after
the first try (RFC 6298 with Linux's minimum of 200 ms), so gaps of up to 3.2 s belong to clients that are
at most five seconds old, and 6.4 s to the last one. Without a dropped handshake there is none to wait for."""

METRICS: Final = {
    "accepted": "http_connections_accepted_total",
    "completed": "http_connections_completed_total",
    "active": "http_connections_active",
    "kernel_queue": "listener_backlog_connections",
    "kernel_queue_limit": "listener_backlog_limit",
    "offload_queue": "offload_queue_depth",
    "running": "offload_running",
    "tasks": "offload_task_cpu_seconds_count",
    "task_cpu_seconds": "offload_task_cpu_seconds_sum",
    "io_cpu_seconds": "process_cpu_seconds_total",
}
COLUMNS: Final = ("time", *METRICS)

Row = dict[str, float]


def scrape(admin_url: str) -> Row:
    """One row of what the server says of itself; `time` is the monotonic clock's.

    Raises:
        ServiceError: it does not answer.
    """
    address = urlsplit(admin_url)
    names = [("name[]", name) for name in METRICS.values()]
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    try:
        connection.request("GET", f"/metrics?{urlencode(names)}")
        values = parse(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"the service's admin port does not answer any more: {error!r}") from error
    finally:
        connection.close()
    return {"time": time.monotonic()} | {short: total(values, name) for short, name in METRICS.items()}


def listen_overflows() -> int:
    """Handshakes that the kernel dropped because an accept queue was full, since boot; 0 off Linux."""
    try:
        lines = Path("/proc/net/netstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for names, numbers in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("TcpExt:"):
            return int(dict(zip(names.split(), numbers.split(), strict=True))["ListenOverflows"])
    return 0


class Watch:
    """A thread that scrapes while the `with` block runs; `rows` in the order of time."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._failure: ServiceError | None = None
        self.rows: list[Row] = []
        self.overflows_before = listen_overflows()
        self.overflows_after = self.overflows_before

    def __enter__(self) -> Self:
        """Take the first row and start."""
        self.rows.append(scrape(self._admin_url))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread; `settle` may have taken the last row already."""
        self._stop.set()
        self._thread.join()

    def settle(self, connected: int) -> None:
        """Wait until the server is done with what the client connected, then take the last row.

        Done: nothing is active or queued, and as many were accepted as the client saw connected; or
        nothing has moved for a while, and the ledger names what is missing.

        Raises:
            ServiceError: the admin port stopped answering, now or while the phase ran.
        """
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        base = self.rows[0]["accepted"]
        started = changed = time.monotonic()
        last = self.rows[-1]
        while True:
            row = scrape(self._admin_url)
            if (row["accepted"], row["completed"]) != (last["accepted"], last["completed"]):
                changed = row["time"]
            last = row
            idle = row["active"] == row["kernel_queue"] == 0
            matched = row["accepted"] - base == connected
            dropped = listen_overflows() > self.overflows_before
            quiet = row["time"] - changed > (HALF_OPEN_SECONDS if dropped else QUIET_SECONDS)
            if (idle and (matched or quiet)) or row["time"] - started > SETTLE_SECONDS:
                break
            time.sleep(INTERVAL_SECONDS)
        self.rows.append(last)
        self.overflows_after = listen_overflows()

    def to_json(self) -> dict[str, Any]:
        """Rows as columns, and how many handshakes the kernel dropped meanwhile."""
        rows = [[round(row[name], 6) for name in COLUMNS] for row in self.rows]
        dropped = self.overflows_after - self.overflows_before
        return {"columns": list(COLUMNS), "rows": rows, "listen_overflows": dropped}

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self.rows.append(scrape(self._admin_url))
            except ServiceError as error:
                self._failure = error
                return
            due += INTERVAL_SECONDS
            self._stop.wait(max(0.0, due - time.monotonic()))
