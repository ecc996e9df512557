"""Watches the event loop: how late its timers fire, and whether it turns at all.

Knows one timer. The loop's thread measures, any thread may ask: a loop that is stalled cannot say so itself.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

import structlog

from metrics.instruments import Metrics

log = structlog.get_logger("offloop.watch")

INTERVAL_SECONDS = 0.1


class LoopWatch:
    """Measures the loop's lag from `start()` to `close()`.

    Args:
        stall_seconds: so long may the loop take for one turn before it is called stalled.
    """

    def __init__(self, stall_seconds: float, metrics: Metrics) -> None:
        self._stall_seconds = stall_seconds
        self._metrics = metrics
        self._loop_thread = threading.get_ident()
        self._turned = time.monotonic()
        self._told = False

    def start(self) -> None:
        """Begin to measure."""
        self._loop = asyncio.get_running_loop()
        self._turned = time.monotonic()
        self._due = self._loop.time() + INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._turn)

    def close(self) -> None:
        """Stop measuring."""
        self._timer.cancel()

    def stalled(self) -> float | None:
        """Seconds since the loop has turned, if that is too long; safe from any thread.

        What the loop is doing instead goes to the log, once for each stall: it is what whoever reads
        "restarted by its probe" wants to know, and nobody can ask any more.
        """
        still = time.monotonic() - self._turned
        if still <= self._stall_seconds:
            return None
        if not self._told:
            self._told = True
            frame = sys._current_frames().get(self._loop_thread)
            where = "".join(traceback.format_stack(frame)) if frame else "unknown"
            log.error("event loop stalled", seconds=round(still, 1), where=where)
        return still

    def _turn(self) -> None:
        self._turned, self._told = time.monotonic(), False
        now = self._loop.time()
        self._metrics.loop_lag.observe(max(0.0, now - self._due))
        self._due = now + INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._turn)
