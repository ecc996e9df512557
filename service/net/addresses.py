"""Addresses as an operator reads them: URLs, and why one cannot be bound. Pure."""

from __future__ import annotations

import errno
import os


def url(host: str, port: int, scheme: str = "http") -> str:
    """The base URL of an address; an IPv6 address gets its brackets (RFC 3986, 3.2.2)."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def why_not_bound(error: OSError | UnicodeError) -> str:
    """The errno's name and text, or the error's own for one without: a resolver's, or a host that is no
    name."""
    number = getattr(error, "errno", None) or 0
    if number in errno.errorcode:  # a resolver's numbers are none of these
        return f"{errno.errorcode[number]} ({os.strerror(number)})"
    return f"{type(error).__name__} ({error})"
