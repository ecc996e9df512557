"""What a connection, a request and a trace are called. Pure, but for the random numbers in new names.

Knows the two headers in which a client names its request, and what in them is harmless. Logs nothing.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

from aiohttp import web
from multidict import istr

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""`request[REQUEST_ID]`: in every line logged for the request, and in its answer's `X-Request-ID`."""

TRACEPARENT: Final = web.RequestKey("traceparent", str)
"""`request.get(TRACEPARENT)`: in the format of version 00; None if the client sent none that is valid."""

HARMLESS: Final = re.compile(r"[A-Za-z0-9_.:@=+/-]{1,128}")
"""What a client's id may be: a UUID, a ULID, base64. It is copied into our logs and into those of others, so
nothing in it ends a line, quotes, is markup or moves a terminal's cursor, and it is no longer than needed."""

REQUEST_ID_HEADER: Final = istr("X-Request-ID")
TRACEPARENT_HEADER: Final = istr("traceparent")

SERVER: Final = "offloop"
"""The `Server` header of every answer. Enough to tell our 503 from a balancer's; the versions that aiohttp
would name help attackers who look for known holes (RFC 9110, 10.2.4)."""

# W3C Trace Context, level 2, 3.2.2: lower case only; version ff and ids of zeros are invalid.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 0x01


def connection_ids() -> Iterator[str]:
    """Names for the connections of one service: 32 random bits for the process, and a number."""
    process = f"{random.getrandbits(32):08x}"
    return (f"{process}-{number}" for number in itertools.count(1))


def request_id(said: str | None) -> str:
    """The id that the client gave its request, if it is harmless; else a new one of 32 hex digits."""
    if said is not None and HARMLESS.fullmatch(said):
        return said
    return f"{random.getrandbits(128):032x}"  # no secret: the default generator is good enough


def traceparent(said: Sequence[str]) -> str | None:
    """The parent of this request in its trace, from all its `traceparent` headers: None unless there is one
    and it is valid.

    A version above 00 is read as far as 00 goes, and becomes one of 00 with the flag that we know: the
    specification's rule for versions that are not known yet.
    """
    found = _TRACEPARENT.fullmatch(said[0]) if len(said) == 1 else None
    if found is None:
        return None
    version, ids, flags, more = found.groups()
    if version == "00":
        return None if more else said[0]
    return f"00-{ids}-{int(flags, 16) & _SAMPLED:02x}"


def trace_id(traceparent: str) -> str:
    """The trace that a valid `traceparent` belongs to: 32 digits."""
    return traceparent[3:35]
