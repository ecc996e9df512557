"""What h11 thinks of the same bytes: every difference from our verdict is in a table here, with its argument.

h11 and ours (llhttp, by way of aiohttp) share no code and no author. Where one refuses what the other takes,
either one of them is wrong, or the standard leaves it open: a difference that is in no row fails the proof.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final, Literal

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

Refuser = Literal["ours", "h11"]

DIFFERENCES: Final[dict[tuple[Refuser, str], str]] = {}
"""(which of the two refuses, why it says so): why that is as it should be."""

REFUSALS: Final = frozenset({"400", "413", "414", "417", "431", "501", "505"})


def difference(raw: bytes, statuses: Iterable[str]) -> tuple[Refuser, str] | None:
    """Who refuses alone, and why; None if both do or neither.

    Args:
        statuses: of every response that ours has given to `raw`.
    """
    ours, theirs = bool(REFUSALS.intersection(statuses)), refusal_of_h11(raw)
    if ours and theirs is None:
        return "ours", refusal_of_ours(raw, statuses)
    if theirs is not None and not ours:
        return "h11", theirs
    return None


def refusal_of_h11(raw: bytes) -> str | None:
    """Why h11 as a server refuses one of the requests in `raw`; None if it does not."""
    server = h11.Connection(our_role=h11.SERVER)
    server.receive_data(raw)
    try:
        while True:
            event = server.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return None
            if isinstance(event, h11.Request):
                is_connect = event.method == b"CONNECT"
            if event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                if server.our_state is h11.SEND_RESPONSE:
                    status = 405 if is_connect else 200
                    server.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
                    server.send(h11.EndOfMessage())
                if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                    return None  # what follows a last request is not looked at
                server.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return _kind(str(error))


def refusal_of_ours(raw: bytes, statuses: Iterable[str]) -> str:
    """Why ours did: what its parser says, or the status if the parser has nothing against it."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_headers=128)
        parser.feed_data(raw)
    except HttpProcessingError as error:
        return _kind(error.message)
    finally:
        loop.close()
    return f"status {min(REFUSALS.intersection(statuses))}"


def _kind(message: str) -> str:
    """A message without the bytes that it quotes."""
    lines = message.splitlines()
    head = lines[1] if lines[0].startswith("Bad status line") and len(lines) > 1 else lines[0]
    return re.split(r": ?[b{'\"]|:$|[({]", head, maxsplit=1)[0].strip().rstrip(":")
