"""The high-water mark of a number over the last seconds.

Pure: it is given the number and the time. A mark that is reset when it is read would serve one reader only;
this one is forgotten by time alone, so all scrapers see the same.

Only decreases are noted. The maximum of a number is its present value or the value before one of its
decreases, so nothing is missed, and an increase costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

WINDOW_SECONDS: Final = 10
"""For how long a peak is visible at least. Scrapes at this interval or a shorter one miss none."""

CELLS: Final = WINDOW_SECONDS + 1
"""One for each second, and one more, for the present second has only begun: a peak is visible for 10 to 11
seconds, never for less."""

CELL_BITS: Final = 32
LEVEL: Final = (1 << CELL_BITS) - 1


class Cells(Protocol):
    """Where peaks are kept: `CELLS` unsigned numbers of 64 bits, zeros at first, in a list or shared memory.

    Each has a second of the clock in its upper half and the peak of that second in its lower half. So both
    are read and written at once, and a later second or a higher peak is a greater number.
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
    """The maximum of the number over the last `WINDOW_SECONDS`; `level` is its present value."""
    oldest = int(now) - WINDOW_SECONDS << CELL_BITS
    return max((level, *(cell & LEVEL for cell in cells if cell >= oldest)))
