"""What handlers call to run a function on a worker, for one request and no longer than it lasts.

Knows aiohttp's request and the offload. Knows no socket and no process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aiohttp import web

from service.offload.offload import Offload
from service.web.protocol import Protocol

T = TypeVar("T")
P = ParamSpec("P")


class Offloader:
    """What handlers call: `await offload(request, function, *args)`.

    Args:
        deadline: seconds that a request may take at most.
    """

    def __init__(self, offload: Offload, deadline: float) -> None:
        self._offload = offload
        self._deadline = deadline
        self.always: set[str] = set()
        """Paths whose every GET needs a worker, for the application to name while it is made: under overload
        such a request is refused before it is parsed (web/early_reject.py), which is cheaper."""

    async def __call__(
        self, request: web.Request, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(*args, **kwargs)` on a worker, for this request and no longer than it lasts.

        Arguments and result are pickled. What goes wrong comes as an `OffloadError`, which the chassis
        answers with 503, 504 or 500 unless the handler does; there is nothing to clean up.
        """
        driver = request.protocol.driver if isinstance(request.protocol, Protocol) else None
        return await self._offload.submit(
            functools.partial(function, **kwargs) if kwargs else function,
            *args,
            deadline=self._deadline_of(request),
            is_wanted=driver.is_wanted if driver is not None else None,
            place=driver.place if driver is not None else None,
        )

    def _deadline_of(self, request: web.Request) -> float:
        said = request.headers.get("Request-Timeout")
        if said is None:
            return self._deadline
        try:
            seconds = float(said)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise web.HTTPBadRequest(text="Request-Timeout is not a number of seconds above 0\n")
        return min(seconds, self._deadline)
