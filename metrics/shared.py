"""The metrics of several processes as those of one service.

Each process keeps its instruments in files: counters, gauges and histograms in prometheus_client's own
(https://prometheus.github.io/client_python/multiprocess/), the connection counts in its slot (slots.py).
Files are named by slot and not by pid. Another process, the exporter, reads all of them at each scrape.

Two things differ from a single process: what has a function is sampled four times a second and not at
the scrape; the standard process and Python collectors are missing, as they would describe the exporter.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from metrics.catalogue import BY_NAME, CATALOGUE
from metrics.instruments import ConnectionEnd, Connections, Metrics, families
from metrics.slots import Look, Slot, look, total

SAMPLE_SECONDS: Final = 0.25
"""How old the value of a function may be: fresher than any scrape needs; a sample takes microseconds."""

MODES: Final[dict[str, Literal["livesum", "livemax"]]] = {"sum": "livesum", "max": "livemax"}


class KeptConnections(Connections):
    """Connection counts that are written to the slot with every change."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot.peaks)
        self._slot = slot

    def opened(self, record: object) -> None:
        """See `Connections`."""
        super().opened(record)
        self._slot.write(self._accepted, len(self._live), self._completed)

    def passed(self, reason: ConnectionEnd) -> None:
        """See `Connections`."""
        super().passed(reason)
        self._slot.write(self._accepted, len(self._live), self._completed)

    def ended(self, record: object, reason: ConnectionEnd) -> bool:
        """See `Connections`."""
        if not super().ended(record, reason):
            return False
        self._slot.write(self._accepted, len(self._live), self._completed)
        return True


class SampledGauge(Gauge):
    """A gauge whose function is sampled: a process that reads the file cannot call it."""

    ask: Callable[[], float] | None = None

    def set_function(self, f: Callable[[], float]) -> None:
        """Take the value from `f`, which may be called from any thread."""
        self.ask = f

    def sample(self) -> None:
        """Write down the value of the function, if there is one."""
        if self.ask is not None:
            self.set(self.ask())


class SampledCounter(Counter):
    """A counter that some other part keeps: what its function has gained is added at each sample."""

    ask: Callable[[], float] | None = None
    added = 0.0

    def set_function(self, f: Callable[[], float]) -> None:
        """See `Read`."""
        self.ask = f

    def sample(self) -> None:
        """Write down what the function has gained, if there is one."""
        if self.ask is not None:
            now = self.ask()
            self.inc(now - self.added)
            self.added = now


class SharedMetrics(Metrics):
    """The instruments of one of several processes.

    prometheus_client has one kind of value for the whole process, so this can be made only once in each. It
    takes the folder from PROMETHEUS_MULTIPROC_DIR alone, which must be the folder of the slot.
    """

    def __init__(self, slot: Slot) -> None:
        # What the former process of this slot had waiting or running has ended with it.
        for gauges in slot.folder.glob(f"gauge_*_{slot.number}.db"):
            gauges.unlink()
        values.ValueClass = values.MultiProcessValue(lambda: slot.number)  # type: ignore[no-untyped-call]
        self.slot = slot
        self.answered = 0
        """Responses of this process alone."""
        self._sampled: list[SampledGauge | SampledCounter] = []
        super().__init__(KeptConnections(slot))

    def request(self, method: str, route: str | None, status: int, seconds: float | None) -> None:
        """See `Metrics`."""
        super().request(method, route, status, seconds)
        self.answered += 1

    def info(self, *, version: str, offload: str, loop: str) -> None:
        """Publish `service_info` as a gauge, which it is on the wire; an `Info` has no file."""
        self._gauge("service_info").labels(version, offload, loop).set(1)

    def watch_waiting(self, urgency: int, count: Callable[[], int]) -> Gauge:
        """See `Metrics`. A gauge with labels has a function for each of their values."""
        gauge = super().watch_waiting(urgency, count)
        assert isinstance(gauge, SampledGauge)
        self._sampled.append(gauge)
        return gauge

    def sample(self) -> None:
        """Write down the values of all functions."""
        for instrument in self._sampled:
            instrument.sample()

    def _read_counter(self, name: str) -> SampledCounter:
        row = BY_NAME[name]
        counter = SampledCounter(row.name, row.help, row.labels, registry=self.registry)
        self._sampled.append(counter)
        return counter

    def _gauge(self, name: str) -> Gauge:
        row = BY_NAME[name]
        gauge = SampledGauge(
            row.name, row.help, row.labels, registry=self.registry, multiprocess_mode=MODES[row.across]
        )
        self._sampled.append(gauge)
        return gauge


class KeptCounter:
    """A counter of a process that has no slot and no instruments: gunicorn's arbiter.

    Args:
        name: of a counter of the catalogue without labels.
    """

    def __init__(self, folder: Path, name: str) -> None:
        row = BY_NAME[name]
        file = folder / f"counter_arbiter-{os.getpid()}.db"  # after a SIGUSR2 there are two
        self._values = MmapedDict(str(file))  # type: ignore[no-untyped-call]
        self._key = mmap_key(row.name.removesuffix("_total"), row.name, [], [], row.help)
        # Of a process that had the same number before.
        self._before, _ = self._values.read_value(self._key)  # type: ignore[no-untyped-call]

    def show(self, value: float) -> None:
        """Show that this process has counted up to `value`. Holds no lock: a signal handler may call it."""
        self._values.write_value(self._key, self._before + value, 0)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file, as the exit of the process does; for tests."""
        self._values.close()  # type: ignore[no-untyped-call]


class Sampler:
    """Samples from construction until `close()`.

    On a thread of its own, like the admin endpoint of a single process: it must not stop when the loop is
    blocked.
    """

    def __init__(self, metrics: SharedMetrics) -> None:
        self._metrics = metrics
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sample a last time and stop."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            last = self._end.wait(SAMPLE_SECONDS)
            self._metrics.sample()


class Together(Collector):
    """Counters of all processes of a folder, and gauges of those that run; `registry` renders them.

    Args:
        stall_seconds: a process whose last sign of life is older is not ready, whatever it said then.
    """

    def __init__(self, folder: Path, stall_seconds: float) -> None:
        self._folder = folder
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def ready(self) -> tuple[bool, str]:
        """Whether any process is ready, and the states of all; may be called from any thread."""
        said = [self._ready(slot) for slot in self._look() if slot.alive]
        return any(ready for ready, _ in said), ", ".join(why for _, why in said) or "no process"

    def count_ready(self, *, but: int) -> int:
        """How many processes are ready, without that of slot `but`."""
        return sum(self._ready(slot)[0] for slot in self._look() if slot.alive and slot.number != but)

    def _ready(self, slot: Look) -> tuple[bool, str]:
        # Its event loop writes this once a second. One that has stalled is still what it said last.
        if slot.ready and slot.said_at is not None:
            seconds = time.monotonic() - slot.said_at
            if seconds > self._stall_seconds:
                return False, f"the event loop has not turned for {seconds:.1f} s"
        return slot.ready, slot.why

    def describe(self) -> Iterable[Metric]:
        """The names alone, by which a scrape can ask for some of them (`?name[]=`)."""
        for row in CATALOGUE:
            name = row.name.removesuffix("_total") if row.type == "counter" else row.name
            yield Metric(name, row.help, "gauge" if row.type == "info" else row.type)

    def collect(self) -> Iterable[Metric]:
        """The families of one moment, those without a sample too."""
        slots = self._look()
        merged = MultiProcessCollector.merge(self._files(slots))  # type: ignore[no-untyped-call]
        book = families(total(slot.book for slot in slots))
        return {family.name: family for family in (*self.describe(), *merged, *book)}.values()

    def _look(self) -> list[Look]:
        with self._lock:  # looks that overlap again and again would keep new processes out
            return look(self._folder)

    def _files(self, slots: list[Look]) -> list[str]:
        living = {slot.number for slot in slots if slot.alive}
        return [
            str(path)
            for path in self._folder.glob("*.db")
            if _is_begun(path)
            and (not path.name.startswith("gauge_") or int(path.stem.rpartition("_")[2]) in living)
        ]


def _is_begun(path: Path) -> bool:
    """Whether the file has content; if not, its process is about to write it or has just removed it."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
