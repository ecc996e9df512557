"""Where a request stands in the queue: how urgent it is, and whose share it takes. Pure.

By its Priority header (RFC 9218) where its client is trusted to say so, else by its route. A client that is
not trusted would say that it is the most urgent one. A header that says nothing of urgency, or nothing that
can be read, counts as none (RFC 9218, 4; RFC 8941, 4.2).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Final

from service.net.addresses import Network, is_in
from service.net.client_limit import client_of
from service.offload.task import USUAL, Rank

# A dictionary of structured fields, member by member (RFC 8941, 3.2 and 4.2.2).
_KEY: Final = r"[a-z*][a-z0-9_\-.*]*"
_BARE: Final = (
    r"(?:-?\d{1,12}\.\d{1,3}|-?\d{1,15}"  # decimal, integer
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"'  # string
    r"|[A-Za-z*][\w!#$%&'*+\-.^`|~:/]*"  # token
    r"|:[A-Za-z0-9+/=]*:|\?[01])"  # bytes, boolean
)
_PARAMETERS: Final = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_ITEM: Final = rf"{_BARE}{_PARAMETERS}"
_LIST: Final = rf"\( *(?:{_ITEM}(?: +{_ITEM})* *)?\)"
MEMBER: Final = re.compile(rf"({_KEY})(?:=(?:({_BARE})|{_LIST}))?{_PARAMETERS}", re.ASCII)
COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
URGENCY: Final = re.compile(r"-?0+|0*[1-7]")  # an integer in its range: 4.1 of RFC 9218


class Ranks:
    """Gives each request its rank.

    Args:
        routes: the urgency of each route that has another than the usual one.
        trusted: the networks whose clients say themselves how urgent a request is.
        by_client: whether what each client has in the queue is bounded.
    """

    def __init__(
        self,
        routes: Mapping[str, int] | None = None,
        trusted: tuple[Network, ...] = (),
        *,
        by_client: bool = False,
    ) -> None:
        self._routes = routes or {}
        self._trusted = trusted
        self._by_client = by_client
        self.are_alike = not (routes or trusted or by_client)
        """Whether every request has the same."""

    def of(self, route: str | None, host: str, said: Callable[[], str]) -> Rank:
        """The rank of one request.

        Args:
            host: the address at the other end of its connection; empty: it has none.
            said: its Priority header, empty if it has none; asked only where it may count.
        """
        if self.are_alike:
            return USUAL
        urgency = None
        if self._trusted and (field := said()) and is_in(host, self._trusted):
            urgency = urgency_in(field)
        if urgency is None:
            urgency = USUAL.urgency if route is None else self._routes.get(route, USUAL.urgency)
        # A Unix socket tells no address by which its clients could be told apart.
        return Rank(urgency, client_of(host) if self._by_client and host else None)


@functools.lru_cache(maxsize=64)  # clients say a few different things
def urgency_in(field: str) -> int | None:
    """What a Priority header says of urgency, from 0 to 7; None: nothing that can be read.

    The last `u` counts, and of what is no dictionary nothing (RFC 8941, 3.2 and 4.2).
    """
    field = field.strip(" \t")
    urgency, at = None, 0
    while member := MEMBER.match(field, at):
        key, value = member.groups()
        if key == "u":
            urgency = int(value) if value and URGENCY.fullmatch(value) else None
        if member.end() == len(field):
            return urgency
        comma = COMMA.match(field, member.end())
        if comma is None:
            return None
        at = comma.end()
    return None
