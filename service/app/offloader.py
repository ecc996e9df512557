"""What handlers call to run a function on a worker, for one request and no longer than it lasts.

Knows aiohttp's request and the offload. Knows no socket and no process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aiohttp import web

from service.net.addresses import Network, is_in
from service.offload.offload import Offload
from service.web.protocol import Protocol

T = TypeVar("T")
P = ParamSpec("P")


class Offloader:
    """What handlers call: `await offload(request, function, *args)`.

    Args:
        deadline: seconds that a request may take at most.
        trusted: the networks whose clients may end their work before that.
    """

    def __init__(self, offload: Offload, deadline: float, trusted: tuple[Network, ...] = ()) -> None:
        self._offload = offload
        self._deadline = deadline
        self._trusted = trusted
        self.always: set[str] = set()
        """Paths whose every GET needs a worker, for the application to name while it is made: under overload
        such a request is refused before it is parsed (web/early_reject.py), which is cheaper."""

    async def __call__(
        self, request: web.Request, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(*args, **kwargs)` on a worker, for this request and no longer than it lasts.

        Arguments and result are pickled. What goes wrong comes as an `OffloadError`, which the chassis
        answers with 503, 504, 413 or 500 unless the handler does; there is nothing to clean up.
        """
        driver = request.protocol.driver if isinstance(request.protocol, Protocol) else None
        deadline = self._deadline_of(request)
        # To end a task is to kill its worker, which costs more than most requests: if a header were enough,
        # anybody could keep all workers from working. So others get their 504, and the task may go on.
        ends_early = deadline < self._deadline and self._trusts(request)
        return await self._offload.submit(
            functools.partial(function, **kwargs) if kwargs else function,
            *args,
            deadline=deadline,
            limit=deadline if ends_early else self._deadline,
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

    def _trusts(self, request: web.Request) -> bool:
        """Whether the other end of the connection is trusted: not `request.remote`, which an application may
        have set to what a header says."""
        peer = request.transport and request.transport.get_extra_info("peername")
        return isinstance(peer, tuple) and is_in(peer[0], self._trusted)
