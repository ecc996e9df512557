"""Runs a blocking call on a daemon thread, which does not keep the process from ending.

`asyncio.to_thread` uses a pool that is joined at exit, so a call that takes a minute would hold up a SIGTERM
for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_background(name: str, function: Callable[..., T], *args: Any) -> T:
    """Await `function(*args)`, which runs on a daemon thread called `name`.

    If the caller is cancelled, the thread goes on and its result is dropped.

    Raises:
        Exception: whatever `function` raises; a RuntimeError for what is no Exception, such as SystemExit.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if outcome.done():  # the caller was cancelled
            return
        if error is None:
            outcome.set_result(result)  # type: ignore[arg-type]  # a result whenever there is no error
        else:
            outcome.set_exception(error)

    def run() -> None:
        result: T | None = None
        error: Exception | None = None
        try:
            result = function(*args)
        except Exception as problem:
            error = problem
        except BaseException as problem:  # SystemExit from an import: it would end the thread and no more
            error = RuntimeError(repr(problem))
        with contextlib.suppress(RuntimeError):  # the loop has closed, and no caller waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
