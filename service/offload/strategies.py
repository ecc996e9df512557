"""Which pool each value of `--offload` means. Another kind of worker is a class and a line here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar

from metrics.instruments import Metrics
from service.offload.any_executor import Factory, kind_of
from service.offload.executor_pool import ExecutorPool
from service.offload.lane import InlineLane, ThreadLane
from service.offload.lane_pool import LanePool, Recycling
from service.offload.pool import Pool, PoolObserver
from service.offload.process_lane import ProcessLane
from service.offload.stock_executor import StockExecutor

T = TypeVar("T")

Strategy = Literal["inline", "thread", "process", "executor"]
"""Where tasks run: on the loop, in threads, in processes of ours, in an executor: a `ProcessPoolExecutor` as
it comes, or whatever a factory makes."""


def pool_for(
    strategy: Strategy,
    workers: int,
    nice: int,
    metrics: Metrics,
    recycling: Recycling | None = None,
    most_result: float = math.inf,
    factory: Factory | None = None,
) -> Callable[[PoolObserver[T]], Pool[T]]:
    """What makes the pool of a strategy, once there is a queue to observe it.

    Args:
        workers: how many tasks may run at the same time; inline has one worker, the loop itself.
        nice: added to the niceness of worker processes.
        recycling: when lanes are replaced; by default never. An executor cannot replace one worker.
        most_result: bytes that a pickled result may have; elsewhere than in processes there is none.
        factory: makes the executor of the strategy of that name; without it, that is the stock one.
    """
    recycling = recycling or Recycling()
    # A thread's memory is the service's own: a fresh one would have as much.
    in_process = Recycling(tasks=recycling.tasks)
    match strategy:
        case "inline":
            return lambda observer: LanePool(InlineLane, 1, nice, metrics, in_process, observer)
        case "thread":
            return lambda observer: LanePool(ThreadLane, workers, nice, metrics, in_process, observer)
        case "process":
            return lambda observer: LanePool(
                ProcessLane, workers, nice, metrics, recycling, observer, most_result
            )
        case "executor" if factory is not None:
            kind = kind_of(factory)
            return lambda observer: ExecutorPool(
                kind, workers, nice, metrics, observer, most_result, elsewhere=True
            )
        case "executor":
            return lambda observer: ExecutorPool(StockExecutor, workers, nice, metrics, observer, most_result)
