"""The two ways to wait for what happens elsewhere: in this thread, and in this event loop; and what looks on.

Both ask again and again until the answer is true, and fail after a bounded time with what was waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str] = "", seconds: float = 60.0) -> T:
    """The first true answer of `condition`, asked every 5 ms.

    `what` completes "not within 60 s: ..."; a callable is asked when the time is over, and without either
    it is the source of the condition.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, _failure(condition, what, seconds)
        time.sleep(0.005)
    return answer


async def eventually(condition: Callable[[], Any], what: str = "", seconds: float = 60.0) -> Any:
    """The first true answer of `condition`, a function or a coroutine function; the loop turns meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        given = condition()
        answer = await given if inspect.isawaitable(given) else given
        if answer:
            return answer
        assert time.monotonic() < deadline, _failure(condition, what, seconds)
        await asyncio.sleep(0.001)


def _failure(condition: Callable[[], object], what: str | Callable[[], str], seconds: float) -> str:
    said = what() if callable(what) else what
    return f"not within {seconds:g} s: {said or inspect.getsource(condition).strip()}"


@contextmanager
def every(seconds: float, call: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, call that again and again on a thread, with such a pause before each."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
