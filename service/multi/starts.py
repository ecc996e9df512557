"""How the starts of an arbiter's IO processes go: what becomes of one that cannot start.

A few numbers in memory that forks share. Each is written whole, and no decision needs two of them to agree:
a failure that two processes count at the same moment may be counted once. Knows mmap(2) and pipe(2).
"""

from __future__ import annotations

import mmap
import os
from typing import Final

GENERATION, WANTED, READY, FAILURES, STOPPING = range(5)

LONGEST_SECONDS: Final = 30
"""The longest pause before the next try. A cause that somebody has mended is seen that soon."""


def pause_seconds(failures: int) -> int:
    """How long to wait after so many failures in a row: 1, 2, 4, 8, 16, 30, 30, ..."""
    return min(LONGEST_SECONDS, 1 << min(failures - 1, 5))


class Starts:
    """Made by the arbiter before its first fork. A generation of IO processes is what one SIGHUP starts."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._numbers[GENERATION] = 1
        self._token, writer = os.pipe()
        os.write(writer, b"1")
        os.close(writer)

    @property
    def generation(self) -> int:
        """That of an IO process which starts now."""
        return self._numbers[GENERATION]

    @property
    def wanted(self) -> int:
        """How many IO processes there are to be."""
        return self._numbers[WANTED]

    def reload(self, wanted: int) -> None:
        """The arbiter: begin a new generation of so many."""
        self.want(wanted)
        self._numbers[GENERATION] += 1

    def want(self, number: int) -> None:
        """The arbiter: so many IO processes there are to be."""
        self._numbers[WANTED] = number

    def stop(self) -> None:
        """The arbiter: all IO processes are to end, no other will take their place."""
        self._numbers[STOPPING] = 1

    def succeed(self) -> None:
        """An IO process: this one is ready."""
        self._numbers[READY] = 1
        self._numbers[FAILURES] = 0

    def fail(self) -> int:
        """An IO process: this one could not start; returns how many have failed in a row."""
        self._numbers[FAILURES] += 1
        return self._numbers[FAILURES]

    @property
    def any_ready(self) -> bool:
        """Whether any IO process of this arbiter has ever been ready."""
        return self._numbers[READY] > 0

    def replaces(self, generation: int) -> bool:
        """Whether others are to take the place of those of `generation`."""
        return generation < self.generation and not self._numbers[STOPPING]

    def may_halt(self) -> bool:
        """True for the first that asks, in whichever process: there is one byte, and the kernel gives it out
        once."""
        return bool(os.read(self._token, 1))

    def close(self) -> None:
        """For tests: a process just exits."""
        os.close(self._token)
