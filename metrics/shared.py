"""The metrics of several processes as those of one service.

Each process keeps its instruments in files: counters, gauges and histograms in prometheus_client's own
(https://prometheus.github.io/client_python/multiprocess/), the book of connections in its slot (slots.py).
Files are named by slot and not by pid. Another process, the exporter, reads all of them at each scrape.

What is different from one process: gauges that a function answers are asked four times a second and not at
the scrape; the standard process and Python collectors, which would speak of the exporter, are missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Gauge, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from metrics.catalogue import BY_NAME, CATALOGUE
from metrics.instruments import ConnectionEnd, Connections, Metrics, families
from metrics.slots import Look, Slot, look, total

SAMPLE_SECONDS: Final = 0.25
"""How old an answer of a function may be: fresher than any scrape needs, and microseconds each."""

MODES: Final[dict[str, Literal["livesum", "livemax"]]] = {"sum": "livesum", "max": "livemax"}


class KeptConnections(Connections):
    """The book of connections, of which every line is in the slot before anything else happens."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot.peaks)
        self._slot = slot

    def opened(self, record: object) -> None:
        """See `Connections`."""
        super().opened(record)
        self._slot.write(self._accepted, len(self._live), self._completed)

    def ended(self, record: object, reason: ConnectionEnd) -> bool:
        """See `Connections`."""
        if not super().ended(record, reason):
            return False
        self._slot.write(self._accepted, len(self._live), self._completed)
        return True


class SampledGauge(Gauge):
    """A gauge whose function is asked now and then: who reads the file cannot ask it."""

    ask: Callable[[], float] | None = None

    def set_function(self, f: Callable[[], float]) -> None:
        """Let `f` answer, from any thread."""
        self.ask = f

    def sample(self) -> None:
        """Write the function's answer down, if there is a function."""
        if self.ask is not None:
            self.set(self.ask())


class SharedMetrics(Metrics):
    """The instruments of one of several processes.

    prometheus_client has one kind of value for the whole process, so this may be made once in each, and finds
    the folder in PROMETHEUS_MULTIPROC_DIR alone: it must be the one of the slot.
    """

    def __init__(self, slot: Slot) -> None:
        # What the former process of this slot had waiting or running is gone with it.
        for gauges in slot.folder.glob(f"gauge_*_{slot.number}.db"):
            gauges.unlink()
        values.ValueClass = values.MultiProcessValue(lambda: slot.number)  # type: ignore[no-untyped-call]
        self.slot = slot
        self.answered = 0
        """By this process alone."""
        self._gauges: list[SampledGauge] = []
        super().__init__(KeptConnections(slot))

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """See `Metrics`."""
        super().request(method, route, status, seconds)
        self.answered += 1

    def info(self, *, version: str, offload: str, loop: str) -> None:
        """Publish `service_info`, as the gauge that it is on the wire; an `Info` has no file."""
        self._gauge("service_info").labels(version, offload, loop).set(1)

    def sample(self) -> None:
        """Write down what functions answer."""
        for gauge in self._gauges:
            gauge.sample()

    def _gauge(self, name: str) -> Gauge:
        row = BY_NAME[name]
        gauge = SampledGauge(
            row.name, row.help, row.labels, registry=self.registry, multiprocess_mode=MODES[row.across]
        )
        self._gauges.append(gauge)
        return gauge


class Sampler:
    """Samples from its making until `close()`.

    On a thread, as the admin endpoint of a single process is: a loop that is blocked is just when somebody
    wants to know.
    """

    def __init__(self, metrics: SharedMetrics) -> None:
        self._metrics = metrics
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sample a last time."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            last = self._end.wait(SAMPLE_SECONDS)
            self._metrics.sample()


class Together(Collector):
    """What the processes of a folder have counted, and what the living ones hold: `registry` renders it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def ready(self) -> tuple[bool, str]:
        """Whether any process is ready, and in which states they are; safe from any thread."""
        living = [slot for slot in self._look() if slot.alive]
        return any(slot.ready for slot in living), ", ".join(slot.why for slot in living) or "no process"

    def describe(self) -> Iterable[Metric]:
        """Names alone: what lets a scrape ask for some with `?name[]=`."""
        for row in CATALOGUE:
            name = row.name.removesuffix("_total") if row.type == "counter" else row.name
            yield Metric(name, row.help, "gauge" if row.type == "info" else row.type)

    def collect(self) -> Iterable[Metric]:
        """The families of one moment; those without a sample, too."""
        slots = self._look()
        merged = MultiProcessCollector.merge(self._files(slots))  # type: ignore[no-untyped-call]
        book = families(total(slot.book for slot in slots))
        return {family.name: family for family in (*self.describe(), *merged, *book)}.values()

    def _look(self) -> list[Look]:
        with self._lock:  # two that look at dead slots at a time could keep a new process out of two
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
    """Whether there is anything in the file. Else its process is about to make it, or has just removed it."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
