"""Reads the counters of the service under test and of the machine: once, or ten times a second.

Knows the names of the metrics and /proc/net. Touches the admin port only, not the port under load, so a
reading adds no accepted connection.
"""

from __future__ import annotations

import dataclasses
import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

from loadtests.experiment.child import ServiceError
from loadtests.neighbours import Neighbours, Usage
from metrics.exposition import parse, total

INTERVAL_SECONDS: Final = 0.1
SETTLE_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 1.0

METRICS: Final = {
    "accepted": "http_connections_accepted_total",
    "completed": "http_connections_completed_total",
    "active": "http_connections_active",
    "peak": "http_connections_active_peak",
    "kernel_queue": "listener_backlog_connections",
    "kernel_queue_limit": "listener_backlog_limit",
    "offload_queue": "offload_queue_depth",
    "running": "offload_running",
    "workers": "offload_workers",
    "tasks": "offload_task_cpu_seconds_count",
    "task_cpu_seconds": "offload_task_cpu_seconds_sum",
    "io_cpu_seconds": "process_cpu_seconds_total",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Usage):
    """Figures of service and machine at one moment of the monotonic clock; counters never decrease.

    `peak`: peak in flight, the most connections held in the last ten seconds. `io_cpu_seconds`: of the
    service's own process, in which inline work and threads run as well.
    """

    accepted: int
    completed: int
    active: int
    peak: int
    kernel_queue: int
    kernel_queue_limit: int
    offload_queue: int
    running: int
    workers: int
    tasks: int
    task_cpu_seconds: float
    io_cpu_seconds: float


def read(admin_url: str, neighbours: Neighbours) -> Reading:
    """One reading; its moment is the middle of the scrape.

    Raises:
        ServiceError: the service does not answer.
    """
    began = time.monotonic()
    values = scrape(admin_url)
    ended = time.monotonic()
    usage = dataclasses.asdict(neighbours.read())
    whole = {name: int(value) for name, value in values.items() if not name.endswith("_seconds")}
    return Reading(**{**values, **whole, **usage, "seconds": (began + ended) / 2})


def scrape(admin_url: str) -> dict[str, float]:
    """The service's own figures under their short names.

    Raises:
        ServiceError: the service does not answer.
    """
    address = urlsplit(admin_url)
    names = [("name[]", name) for name in METRICS.values()]
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    try:
        connection.request("GET", f"/metrics?{urlencode(names)}")
        values = parse(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"the service's admin port no longer answers: {error!r}") from error
    finally:
        connection.close()
    return {short: total(values, name) for short, name in METRICS.items()}


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
    """A thread that takes readings during the `with` block; `rows` are in order of time."""

    def __init__(self, admin_url: str, neighbours: Neighbours) -> None:
        self._admin_url = admin_url
        self._neighbours = neighbours
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._failure: ServiceError | None = None
        self.rows: list[Reading] = []

    def __enter__(self) -> Self:
        """Take the first reading and start."""
        self.rows.append(read(self._admin_url, self._neighbours))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread, if `settle` has not done so."""
        self._stop.set()
        self._thread.join()

    def settle(self, connected: int) -> None:
        """Wait until the service has completed the clients' connections, then take the last reading.

        Raises:
            ServiceError: the admin port stopped answering, now or during the phase.
        """
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self.rows.append(
            settled(lambda: read(self._admin_url, self._neighbours), self.rows[0].accepted, connected)
        )

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self.rows.append(read(self._admin_url, self._neighbours))
            except ServiceError as error:
                self._failure = error
                return
            due += INTERVAL_SECONDS
            self._stop.wait(max(0.0, due - time.monotonic()))


def settled(
    once: Callable[[], Reading],
    accepted: int,
    connected: int,
    pause: Callable[[float], None] = time.sleep,
) -> Reading:
    """The reading once the service has completed `connected` connections, after `accepted` earlier ones.

    That is when nothing is active or queued and as many connections were accepted as the clients saw
    connected; or when nothing has changed for a second: then the ledger names what is missing.

    Args:
        once: takes one reading; the readings have the time.

    Raises:
        ServiceError: the admin port does not answer.
    """
    row = once()
    started = changed = row.seconds
    while True:
        idle = row.active == row.kernel_queue == 0
        matched = row.accepted - accepted == connected
        quiet = row.seconds - changed > QUIET_SECONDS
        if (idle and (matched or quiet)) or row.seconds - started > SETTLE_SECONDS:
            return row
        pause(INTERVAL_SECONDS / 5)
        last, row = row, once()
        if (row.accepted, row.completed) != (last.accepted, last.completed):
            changed = row.seconds
