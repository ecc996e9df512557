"""What h11 thinks of the same bytes: every difference from our verdict is in a table here, with its argument.

h11 and ours (llhttp, by way of aiohttp) share no code and no author. Where one refuses what the other takes,
either one of them is wrong, or the standard leaves it open: a difference that is in no row fails the proof.
Two things are not compared. Empty
lines before a request, which a server should ignore (RFC 9112, 2.2), are taken away for h11, which does not.
And what follows a last request is looked at by neither, but for the row that says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Final, NamedTuple

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError
from aiohttp.http_parser import HttpRequestParser

REFUSALS: Final = frozenset({"400", "413", "414", "417", "431", "501", "505"})
ONLY_H11: Final = "refused by h11 alone"
"""What h11 alone refuses and no row of `ONLY_H11_ROWS` argues."""


class Row(NamedTuple):
    """What one of the two alone refuses: its name, what that one says, and why ours is as it should be."""

    name: str
    says: re.Pattern[str]
    argument: str


def _row(name: str, says: str, argument: str) -> Row:
    return Row(name, re.compile(says), argument)


ROWS: Final = (
    _row(
        "method",
        r"Invalid method|Expected space after method",
        "llhttp knows the registered methods and says so at their first wrong byte; h11 takes any token, "
        "and waits for the end of the line. No application of ours has another method (501 would do as "
        "well).",
    ),
    _row(
        "target",
        r"target|Invalid char(acters)? in url|Unexpected (start )?char in url",
        "A request target has one of four forms (RFC 9112, 3.2), `*` only with OPTIONS; h11 takes any "
        "visible bytes.",
    ),
    _row(
        "version",
        r"Expected HTTP/|Expected dot|Invalid m(aj|in)or version|Invalid HTTP version|Expected CRLF|"
        r"Expected space after version|Unexpected space after start line|Pause on PRI|Expected HTTP/2|"
        r"Invalid word|status 505",
        "Ours speaks 1.0 and 1.1 and answers 400 or 505 to the rest; h11 takes every digit, dot, digit, "
        "and waits for the end of the line.",
    ),
    _row(
        "line end",
        r"Missing expected (CR|LF)|Expected LF",
        "A recipient may take a bare LF as the end of a line (RFC 9112, 2.2), and h11 does; ours must "
        "not: where two parsers on the way differ about that, requests are smuggled. A bare CR is invalid "
        "to both.",
    ),
    _row(
        "field",
        r"Invalid header|Unexpected whitespace after header value",
        "h11 lets control characters pass in a value, joins folded lines, and waits for the end of the "
        "head; a server may refuse folding (RFC 9112, 5.2) and should refuse control characters (RFC "
        "9110, 5.5).",
    ),
    _row(
        "framing",
        r"Content-Length|Duplicate Content-Length|Empty Content-Length|Invalid character in Content-Length|"
        r"Transfer-Encoding|Request has invalid|Invalid `Transfer-Encoding`",
        "Lengths that contradict or repeat each other: h11 takes equal ones, and Transfer-Encoding before "
        "Content-Length; both are how requests are smuggled (RFC 9112, 6.1 and 6.3), and may be refused.",
    ),
    _row(
        "chunk",
        r"Invalid (character in chunk|quoted-pair)|Chunk size overflow",
        "h11 waits for the end of a chunk's line and throws its extensions away; ours refuses the first "
        "wrong byte.",
    ),
    _row(
        "singleton",
        r"Duplicate '|Too many headers",
        "Of a field with one value there may be one (RFC 9110, 5.3); h11 counts Host alone.",
    ),
    _row(
        "after the last",
        r"Data after `Connection: close`",
        "Bytes behind a request that was said to be the last: h11 leaves them unread, ours calls them a "
        "mistake.",
    ),
    _row(
        "host or coding",
        r"status 400",
        "A Host field that can be no host gets 400 (RFC 9112, 3.2), and so does Transfer-Encoding in "
        "HTTP/1.0, which has none (6.1); h11 looks at neither.",
    ),
    _row(
        "content coding",
        r"(deflate|gzip)$|Can not decode content-encoding",
        "A body that is not in the coding which its Content-Encoding names, or in one that ours cannot "
        "decode, gets 400 (RFC 9110, 8.4; 415 would do as well): no handler may take it for what it is not. "
        "h11 hands on what has come.",
    ),
    _row("expectation", r"status 417", "An expectation that is not known gets 417 (RFC 9110, 10.1.1)."),
)

"""What ours alone refuses."""

ONLY_H11_ROWS: Final = (
    _row(
        "spaces",
        r"illegal request line: bytearray\(b.(?=.*  )\S+ +\S+ +HTTP/1\.[01].\)$",
        "A recipient may take several spaces in a request line for one (RFC 9112, 3): ours does.",
    ),
)
"""What h11 alone refuses."""


class Reading(NamedTuple):
    """What h11 as a server makes of the bytes of one connection."""

    requests: int
    """Whole ones, before the refusal."""
    refusal: str | None
    """Why it refuses what follows them; None if it does not."""

    @property
    def answers(self) -> int:
        """How many answers such bytes are owed."""
        return self.requests + (self.refusal is not None)


def difference(reading: Reading, raw: bytes, statuses: Collection[str]) -> tuple[str, str] | None:
    """The name of the row that tells why one of the two alone refuses `raw`, and what that one says; None if
    both do or neither.

    Args:
        reading: `raw` as h11 reads it.
        statuses: of every response that ours has given.
    """
    refused, theirs = sorted(REFUSALS.intersection(statuses)), reading.refusal
    if bool(refused) is (theirs is not None):
        return None
    if theirs is not None:
        return next((row.name for row in ONLY_H11_ROWS if row.says.match(theirs)), ONLY_H11), theirs
    says = _refusal_of_our_parser(raw) or f"status {refused[0]}"
    return next((row.name for row in ROWS if row.says.match(says)), "in no row"), says


def read_by_h11(raw: bytes) -> Reading:
    """What h11 makes of `raw`."""
    whole = 0
    while raw := raw.lstrip(b"\r\n"):
        server = h11.Connection(our_role=h11.SERVER)
        server.receive_data(raw)
        status = 200
        try:
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return Reading(whole, None)  # half a request, or one that asks for another protocol
                if isinstance(event, h11.Request) and event.method == b"CONNECT":
                    status = 405
            whole += 1
            server.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
        except h11.RemoteProtocolError as error:
            return Reading(whole, str(error))
        if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
            break
        raw, _ = server.trailing_data
    return Reading(whole, None)


def _refusal_of_our_parser(raw: bytes) -> str | None:
    """What our parser says against `raw`, without the bytes that it quotes; None: it was not the parser."""
    loop = asyncio.new_event_loop()
    try:
        HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_headers=128).feed_data(raw)
    except InvalidURLError:
        return "target"
    except HttpProcessingError as error:
        return error.message.removeprefix("Bad status line:\n  ").partition("\n")[0]
    finally:
        loop.close()
    return None
