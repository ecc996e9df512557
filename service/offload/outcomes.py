"""Tells callers what became of their tasks, and counts it: each task once, whatever comes after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from metrics.instruments import Metrics, TaskOutcome
from service.background import in_background
from service.offload.errors import WorkError
from service.offload.task import Task
from service.offload.unpickling import LARGE
from service.offload.worker_main import Failure, failure_of


class Outcomes:
    """The callers' side of all tasks.

    Args:
        unpack: see `pool.Pool`.
    """

    def __init__(self, metrics: Metrics, unpack: Callable[[Any], Any]) -> None:
        self.bytes = 0
        """Of large results that are being unpacked or wait for that."""
        self._metrics = metrics
        self._unpack = unpack
        self._unpacking: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    def settle(self, task: Task, outcome: TaskOutcome, error: Exception) -> None:
        """There is no result."""
        if not task.outcome.done():
            self._metrics.task(outcome, task.rank.urgency)
            task.outcome.set_exception(error)

    def failed(self, task: Task, failure: Failure) -> None:
        """The function raised, or its result cannot travel."""
        task.forget_deadline()
        self.settle(task, TaskOutcome.FAILED, WorkError(*failure))

    def returned(self, task: Task, result: Any) -> None:
        """A worker has sent a result. The deadline counts until it is unpacked."""
        if task.outcome.done():
            task.forget_deadline()
        elif task.size and len(result) >= LARGE:
            later = asyncio.get_running_loop().create_task(self._unpack_later(task, result))
            self._unpacking.add(later)
            later.add_done_callback(self._unpacking.discard)
            task.outcome.add_done_callback(lambda _: later.cancel())  # nobody waits for it any more
        else:
            try:
                unpacked = self._unpack(result)
            except Exception as error:
                self.failed(task, failure_of(error))
            else:
                self._completed(task, unpacked)

    async def _unpack_later(self, task: Task, result: bytes) -> None:
        """On a thread, so that the loop does not stop; see unpickling.py.

        Cancelled when the task's outcome is known: its bytes are given back, and it is the turn of the next,
        whether the thread has ended or not. A thread cannot be killed. One that the result's own code keeps
        (`__setstate__`, say) is abandoned at the deadline, with the result, which no budget counts any more,
        and takes its turns of the GIL for as long as it runs. Else it would take all large results along.
        """
        self.bytes += len(result)
        try:
            async with self._one_at_a_time:  # several threads that want the GIL would each take their turns
                if not task.outcome.done():
                    self._completed(task, await in_background("unpack", self._unpack, result))
        except Exception as error:
            self.failed(task, failure_of(error))
        finally:
            self.bytes -= len(result)

    def _completed(self, task: Task, result: Any) -> None:
        task.forget_deadline()
        if not task.outcome.done():
            self._metrics.task(TaskOutcome.COMPLETED, task.rank.urgency)
            task.outcome.set_result(result)
