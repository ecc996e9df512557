"""Responses that are written without aiohttp, and which status a client's mistake gets.

Knows bytes and status codes.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from service.web.identity import SERVER

GOLDEN_RATIO: Final = (5**0.5 - 1) / 2


class Spread:
    """Spreads what `Retry-After` says: else all who are refused in one instant come back in one instant.

    From what admission says up to twice that, in turns. Multiples of the golden ratio, without their whole
    part, fill that range evenly however many of them are taken (Weyl), which random numbers do not.
    """

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, seconds: int) -> int:
        """Seconds for the next one who is refused, if `seconds` is the least that makes sense."""
        part = self._turn * GOLDEN_RATIO % 1.0
        self._turn += 1
        return seconds + int(part * (seconds + 1))


def plain(status: HTTPStatus, *headers: str, at: float | None = None) -> bytes:
    """A whole response whose body is its reason, and after which the connection closes.

    Args:
        at: its date, seconds since the epoch; None: now.
    """
    body = f"{status.phrase}\n"
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {formatdate(at, usegmt=True)}",  # the form of RFC 9110, 5.6.7
        f"Server: {SERVER}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def status_of(status: int, error: BaseException | None, *, body_was_late: bool) -> int:
    """The status for `error`, for which aiohttp proposes `status`.

    Args:
        body_was_late: the handler was given an exception for it, and may have passed that on.
    """
    if body_was_late and status == HTTPStatus.GATEWAY_TIMEOUT:
        return HTTPStatus.REQUEST_TIMEOUT
    if isinstance(error, web.RequestPayloadError):
        return HTTPStatus.BAD_REQUEST  # a body that is not what its headers say
    if isinstance(error, LineTooLong) and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return status


def signed(response: web.StreamResponse) -> web.StreamResponse:
    """A response to a request that no route has matched: `on_response_prepare` signs the others."""
    response.headers["Server"] = SERVER
    return response
