"""Monitors the event loop: how late its timers fire, and whether it turns at all.

Knows one timer. The loop's thread measures and any thread may ask, because a stalled loop cannot answer
itself.
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


class LoopMonitor:
    """Measures the lag of the running loop from its creation, on the loop's thread, until `close()`.

    Args:
        stall_seconds: a turn of the loop that takes longer is a stall.
        metrics: the lag is observed as `event_loop_lag_seconds`.
    """

    def __init__(self, stall_seconds: float, metrics: Metrics) -> None:
        self._stall_seconds = stall_seconds
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turned_at = time.monotonic()
        self._is_logged = False
        self._due = self._loop.time() + INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._turn)

    def close(self) -> None:
        """Stop measuring."""
        self._timer.cancel()

    def stalled(self) -> float | None:
        """Seconds since the loop last turned, if that is a stall; None otherwise. Safe from any thread.

        None on the loop's own thread: whoever asks there has it turning, though the timer may not have fired
        yet.

        The first call during a stall logs the stack of the loop's thread: what blocked it is the question
        after a restart by a probe, and by then the process that could answer is gone.
        """
        seconds = time.monotonic() - self._turned_at
        if seconds <= self._stall_seconds or threading.get_ident() == self._loop_thread:
            return None
        if not self._is_logged:
            self._is_logged = True
            frame = sys._current_frames().get(self._loop_thread)
            where = "".join(traceback.format_stack(frame)) if frame else "unknown"
            log.error("event loop stalled", seconds=round(seconds, 1), where=where)
        return seconds

    def _turn(self) -> None:
        self._turned_at, self._is_logged = time.monotonic(), False
        now = self._loop.time()
        self._metrics.loop_lag.observe(max(0.0, now - self._due))
        self._due = now + INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._turn)
