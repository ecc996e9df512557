"""A counter that some other part keeps: its function is asked at each scrape.

`Counter` can have no function, and its `inc` takes a lock. What must never wait keeps a plain number instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Read(Protocol):
    """An instrument that is read and not told."""

    def set_function(self, f: Callable[[], float]) -> None:
        """Take the value from `f`, which may be called from any thread."""


class ReadCounter(Collector):
    """Zero, until it has a function."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._ask: Callable[[], float] = lambda: 0

    def set_function(self, f: Callable[[], float]) -> None:
        """See `Read`."""
        self._ask = f

    def describe(self) -> Iterable[Metric]:
        """The name alone, by which a scrape can ask for it (`?name[]=`)."""
        return [CounterMetricFamily(self._name, self._text)]

    def collect(self) -> Iterable[Metric]:
        """The value of this moment."""
        return [CounterMetricFamily(self._name, self._text, value=self._ask())]
