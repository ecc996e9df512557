"""How a call and its result travel: pickled. A large result is unpickled in turns with other threads. Pure.

`pickle.loads` holds the GIL from beginning to end, on whatever thread: 16 MiB of small objects stop the event
loop for some 0.2 s. But an unpickler that reads from a Python object calls its methods for each frame of
64 KiB (PEP 3154), and where Python code runs the interpreter lets other threads have the GIL.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final

LARGE: Final = 2**20
"""Bytes of a pickled result from which on it is unpickled on a thread of its own: smaller ones take less time
than starting that, or a few milliseconds at worst."""


class _Pieces:
    """Bytes as a file whose methods are Python code. `io.BytesIO` has all that too, but in C."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def read(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        return self._content[begin : self._at]

    def readinto(self, buffer: Any) -> int:
        begin, self._at = self._at, self._at + len(buffer)
        buffer[:] = memoryview(self._content)[begin : self._at]  # a large string of bytes: copied once
        return len(buffer)

    def readline(self) -> bytes:
        return self.read(self._content.index(b"\n", self._at) + 1 - self._at)


def unpickled(result: bytes) -> Any:
    """The object that `result` is the pickle of.

    Raises:
        Exception: it cannot be unpickled.
    """
    return pickle.loads(result) if len(result) < LARGE else pickle.Unpickler(_Pieces(result)).load()


class Pickled:
    """Packs and unpacks for workers that share no memory with this process: see `lane.Lane`."""

    @staticmethod
    def pack(function: Callable[..., Any], args: tuple[Any, ...], /) -> bytes:
        """The call as it travels.

        Raises:
            Exception: it cannot be pickled.
        """
        return pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def unpack(result: bytes, /) -> Any:
        """The result as the function returned it."""
        return unpickled(result)
