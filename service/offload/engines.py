"""Factories for `--executor`: loky on this machine, Dask on others. Another engine is another such function.

Knows what each of the two needs beyond `submit` and `shutdown`. Imports neither until it is asked for: they
are the optional packages `executors`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

CONNECT_SECONDS: Final = 3
"""How long Dask's scheduler may take to answer: it is asked again soon (executor_pool.RETRY_SECONDS)."""


def loky() -> Executor:
    """As many processes as there are cores: loky's own pool, and not the reusable one, which ends idle
    workers and starts them again within `submit`, on the event loop."""
    from loky import ProcessPoolExecutor

    class Loky(ProcessPoolExecutor):  # type: ignore[misc]  # loky has no types
        """Under the name that Python 3.14 has for it."""

        def kill_workers(self) -> None:
            self.shutdown(wait=False, kill_workers=True)

    made: Executor = Loky()
    return made


def dask() -> Executor:
    """The cluster whose scheduler DASK_SCHEDULER_ADDRESS names, in Dask's own configuration.

    A client that loses its scheduler gives up all that it had. It would look for it for a while, and keep
    what it is handed meanwhile; so it is not used again, and closed.

    Raises:
        ValueError: no scheduler is named. A `Client` would start a cluster of its own.
        OSError: it cannot be reached.
    """
    from dask import config
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

    class Dask(Executor):
        """One that closes its client, once."""

        def __init__(self, client: Client) -> None:
            self._client = client
            # Not pure, or two requests with equal arguments are one task.
            self._executor: Executor = client.get_executor(pure=False)
            self._closing = threading.Lock()

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            """Refused where Dask would keep it for a scheduler that may never come back."""
            if self._client.status != "running":
                raise ConnectionError(f"the client of Dask is {self._client.status}")
            return self._executor.submit(fn, *args, **kwargs)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
            """What is in flight is cancelled: whoever wants it has waited for it."""
            if self._closing.acquire(blocking=False):
                self._client.close(timeout=CONNECT_SECONDS)

    address = config.get("scheduler-address", None)
    if not address:
        raise ValueError("DASK_SCHEDULER_ADDRESS does not name a scheduler")
    # First without Dask: each client that cannot connect leaves a thread behind.
    socket.create_connection(get_address_host_port(address), CONNECT_SECONDS).close()
    return Dask(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
