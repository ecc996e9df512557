"""What handlers call to run a function on a worker, for one request and no longer than it lasts.

Knows aiohttp's request and the offload. Knows no socket and no process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from aiohttp import web
from multidict import istr

from service.net.addresses import Network, is_in
from service.offload.offload import Offload
from service.offload.task import USUAL, Rank
from service.web.priority import Ranks
from service.web.protocol import Protocol

T = TypeVar("T")
P = ParamSpec("P")

PRIORITY: Final = istr("Priority")
CLIENTS_DEADLINES: Final = (
    (istr("Request-Timeout"), 1.0, "seconds"),
    # Envoy sets it to what is left of the route's time limit, and to 1 when nothing is; without a limit it
    # sends none (router filter, source/common/router/router.cc).
    (istr("x-envoy-expected-rq-timeout-ms"), 1e-3, "milliseconds"),
)
"""Headers that say how long the client will wait, and the unit of each in seconds."""


class Offloader:
    """What handlers call: `await offload(request, function, *args)`.

    Args:
        deadline: seconds that a request may take at most.
        trusted: the networks whose clients may end their work before that.
        ranks: where each request stands in the queue.
    """

    def __init__(
        self,
        offload: Offload,
        deadline: float,
        trusted: tuple[Network, ...] = (),
        ranks: Ranks | None = None,
    ) -> None:
        self._offload = offload
        self._deadline = deadline
        self._trusted = trusted
        self._ranks = ranks or Ranks()
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
        ends_early = deadline < self._deadline and is_in(_host_of(request), self._trusted)
        return await self._offload.submit(
            functools.partial(function, **kwargs) if kwargs else function,
            *args,
            deadline=deadline,
            limit=deadline if ends_early else self._deadline,
            arrived=driver.arrived if driver is not None else None,
            is_wanted=driver.is_wanted if driver is not None else None,
            place=driver.place if driver is not None else None,
            rank=self._rank_of(request),
        )

    def _deadline_of(self, request: web.Request) -> float:
        deadline = self._deadline
        for name, unit, word in CLIENTS_DEADLINES:
            said = request.headers.get(name)
            if said is None:
                continue
            try:
                number = float(said)
            except ValueError:
                number = math.nan
            if not number > 0:
                raise web.HTTPBadRequest(text=f"{name} is not a number of {word} above 0\n")
            deadline = min(deadline, number * unit)
        return deadline

    def _rank_of(self, request: web.Request) -> Rank:
        if self._ranks.are_alike:
            return USUAL
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else None
        return self._ranks.of(
            route, _host_of(request), lambda: ",".join(request.headers.getall(PRIORITY, ()))
        )


def _host_of(request: web.Request) -> str:
    """The address at the other end of the connection; empty if that has none. Not `request.remote`, which an
    application may have set to what a header says."""
    peer = request.transport and request.transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
