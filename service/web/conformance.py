"""What aiohttp's parser lets pass and HTTP does not: versions, hosts, codings that are not ours. Pure.

Knows the parsed head of a request, and the two places of aiohttp's server that see every one of them. llhttp
reads `GET /data` without a version as HTTP/0.9 and takes `HTTP/2.0`; aiohttp then answers in that version,
which no client of ours speaks. It counts Host fields, and does not look into them. Of Transfer-Encoding it
minds the last coding alone: a body that is compressed as well would reach the handler as it is, and behind an
empty field the body would be read as the next request.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http import HttpVersion, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

MakeRequest = Callable[..., web.BaseRequest]
Fault = type[web.HTTPError]

# RFC 9110, 7.2: uri-host [ ":" port ], and RFC 3986, 3.2.2. An empty host is one that is not known (RFC 9112,
# 3.2); of the addresses in brackets none but IPv6 has ever been defined.
_HOST: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::\d*)?", re.ASCII
)
_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())


def fault(version: HttpVersion, headers: Mapping[str, str]) -> Fault | None:
    """What a request is answered for its version, its Host or its framing; None if there is nothing wrong.

    That HTTP/1.1 comes with one Host and no more, and that there is one Transfer-Encoding and no
    Content-Length beside it, is the parser's own check.
    """
    if version != HttpVersion11 and version != HttpVersion10:
        # Before 1.0 a request line had no version: now such a line is malformed (RFC 9112, 3).
        return web.HTTPVersionNotSupported if version.major else web.HTTPBadRequest
    host, coding = headers.get(hdrs.HOST), headers.get(hdrs.TRANSFER_ENCODING)
    if host is not None and not is_host(host):
        return web.HTTPBadRequest
    if coding is None:
        return None
    if version == HttpVersion10:
        return web.HTTPBadRequest  # 1.0 has no such field: the framing is faulty (RFC 9112, 6.1)
    # One that the server does not understand (RFC 9112, 6.1); aiohttp undoes none but this.
    return None if coding.lower() == "chunked" else web.HTTPNotImplemented


@functools.lru_cache(maxsize=256)  # clients call us by few names; at 8 KiB each these are 2 MiB
def is_host(field: str) -> bool:
    """Whether a Host field has a valid value."""
    found = _HOST.fullmatch(field)
    if found is None:
        return False
    try:
        return found[1] is None or bool(ipaddress.IPv6Address(found[1]))
    except ValueError:
        return False


def conforming(make: MakeRequest, refuse: Callable[[Any, Fault], None]) -> MakeRequest:
    """`make`, a request factory of aiohttp's, which calls `refuse` for every request that has a fault.

    Of such a request nothing is left that could be acted upon: no headers, and the version in which it is
    answered.

    Args:
        refuse: with the protocol of the connection and the answer.
    """

    def request(
        message: RawRequestMessage, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        found = fault(message.version, message.headers)
        if found is not None:
            refuse(protocol, found)
            message = message._replace(
                version=HttpVersion11, headers=_NO_HEADERS, raw_headers=(), should_close=True, upgrade=False
            )
        return make(message, payload, protocol, writer, task)

    return request
