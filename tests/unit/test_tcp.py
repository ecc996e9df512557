"""What the kernel's bytes about a socket mean."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest

from service.net import tcp

pytestmark = pytest.mark.skipif(tcp.TCP_INFO is None, reason="reads Linux's TCP_INFO")


class Socket:
    """Answers a getsockopt as told."""

    def __init__(self, info: bytes | OSError) -> None:
        self._info = info

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        if isinstance(self._info, OSError):
            raise self._info
        return self._info[:size]


def info(milliseconds: int, received: int) -> bytes:
    """A `struct tcp_info` in which every other number is none that could be meant."""
    filled = bytearray(b"\xee" * 256)
    struct.pack_into("=I", filled, 52, milliseconds)
    struct.pack_into("=Q", filled, 128, received)
    return bytes(filled)


@pytest.mark.parametrize(
    ("told", "waited"),
    [
        (info(300, 47), (0.3, True)),
        (info(4, 2**32), (0.004, True)),
        (info(1204, 0), (1.204, False)),  # a client that has said nothing: the age of its connection
        (info(300, 47)[:104], (0.0, False)),  # a kernel before Linux 4.1
        (OSError("closed, or no TCP"), (0.0, False)),
    ],
)
def test_the_kernel_tells_how_long_a_connection_has_waited(
    told: bytes | OSError, waited: tuple[float, bool]
) -> None:
    assert tcp.accept_wait(cast("Any", Socket(told))) == waited


def test_where_the_kernel_does_not_tell_nothing_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "TCP_INFO", None)
    assert tcp.accept_wait(cast("Any", Socket(info(300, 47)))) == (0.0, False)
