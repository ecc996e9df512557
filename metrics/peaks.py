"""The high-water mark of a number over the last seconds: what it was at most, whoever looks and how often.

Pure: is told the number and the time. A mark that a reader resets would belong to one reader; this one is
forgotten by time alone, so two scrapers see the same.

Only falls are noted. A number is at most what it is now or what it was before one of its falls, so nothing is
missed, and who rises pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

WINDOW_SECONDS: Final = 10
"""For how long a peak is seen at least. Whoever scrapes at this interval or a shorter one misses none."""

CELLS: Final = WINDOW_SECONDS + 1
"""One for each second, and one more: the present second has only begun. So a peak is seen for 10 to 11
seconds, never for less."""

CELL_BITS: Final = 32
LEVEL: Final = (1 << CELL_BITS) - 1


class Cells(Protocol):
    """Where peaks are kept: `CELLS` unsigned numbers of 64 bits, zeros at first, a list or shared memory.

    Each holds a second of the clock in its upper half and the peak of that second in its lower half. So it is
    read and written as one, and the later second or the higher peak is the greater number.
    """

    def __iter__(self) -> Iterator[int]: ...
    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, cell: int, /) -> None: ...


def fell(cells: Cells, level: int, now: float) -> None:
    """Note that the number has been `level` until `now`, in seconds of a monotonic clock."""
    second = int(now)
    at, cell = second % CELLS, second << CELL_BITS | level
    if cell > cells[at]:
        cells[at] = cell


def highest(cells: Iterable[int], level: int, now: float) -> int:
    """What the number was at most in the last `WINDOW_SECONDS`; `level` is what it is now."""
    oldest = int(now) - WINDOW_SECONDS << CELL_BITS
    return max((level, *(cell & LEVEL for cell in cells if cell >= oldest)))
