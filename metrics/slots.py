"""Slots in a folder: where each of several processes keeps its connection counts, and shows that it runs.

A process takes the lowest free slot and holds its lock for as long as it runs. The kernel releases the lock
however the process ends, kill -9 included; the next process takes the slot over and continues its counts. So
no counter ever decreases, and there are hardly ever more slots than processes that ran at the same time (one
more if a start and a look do not wait for each other; see below).

A slot is taken over in two steps: its lock, then the counts of the process that has ended, settled. A reader
in between would take connections of the dead for active ones. So takeovers and readers exclude each other, by
a lock on the file `takeover`; not for longer than a moment, for who holds it may be stopped.

Knows files, flock(2), mmap(2) and the clock that all processes of a machine share. A file is one page:

    8 bytes    how many records were written
    64 bytes   whether the process is ready, why (not), and when it said so
    88 bytes   the peaks of the last seconds (peaks.py)
    2 records  accepted, active, completed by reason

The last record written is the one at `count % 2`; the other one is written next. So the last record is whole
whenever a process is killed, and a reader sees by the count whether it was overwritten meanwhile. Peaks need
no such care: each is one number, written at once, which includes its second.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from metrics.instruments import ConnectionEnd, Snapshot
from metrics.peaks import CELLS, highest

REASONS: Final = ("killed", *ConnectionEnd)
"""Why a connection ended, in the order of the record. Add to its end only: after a USR2 a newer version takes
over the slots of an older one."""

COUNT: Final = struct.Struct("=Q")
STATE: Final = struct.Struct("=?55sd")
"""A version that knew no time wrote zeros there: the end of a longer reason."""
RECORD: Final = struct.Struct(f"=QQ{len(REASONS)}Q")
PEAKS: Final = struct.Struct(f"={CELLS}Q")
STATE_AT: Final = 64
PEAKS_AT: Final = 256
RECORDS_AT: Final = 512
RECORD_BYTES: Final = 1024
FILE_BYTES: Final = 4096

TRIES: Final = 100
"""Most reads of a record, if others are written meanwhile. A read takes microseconds and a connection
hundreds, so a second try is rare, and a hundredth does not happen."""


LOCK_TRIES: Final = 20
LOCK_PAUSE_SECONDS: Final = 0.005
"""A takeover and a look take less than a millisecond. An event loop may look, so the wait is short."""


@dataclass(frozen=True, slots=True)
class Look:
    """What another process sees in a slot.

    said_at: when the process said whether it is ready, in seconds of the machine's monotonic clock; None if
        it is of a version that does not tell.
    """

    number: int
    alive: bool
    ready: bool
    why: str
    said_at: float | None
    book: Snapshot


class Slot:
    """The slot of this process, for as long as it runs. `close()` is for tests: a process just exits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "takeover").open("a") as takeover, _locked(takeover, fcntl.LOCK_EX):
            self.number, self._file = _take(folder)
            self._map = mmap.mmap(self._file.fileno(), FILE_BYTES)
            self.peaks = memoryview(self._map)[PEAKS_AT : PEAKS_AT + PEAKS.size].cast("Q")
            """Of this process alone: the connections of the former process of this slot ended with it."""
            self.peaks[:] = memoryview(bytes(PEAKS.size)).cast("Q")
            self._count = _count(self._file)
            self._before = settled(_record(self._file))
            self.write(0, 0, {})
            self.say(False, "starting")

    def write(self, accepted: int, active: int, completed: Mapping[str, int]) -> None:
        """Write down the counts of this process, plus those that were in the slot before."""
        before, self._count = self._before, self._count + 1
        RECORD.pack_into(
            self._map,
            _at(self._count),
            before.accepted + accepted,
            active,
            *[count + completed.get(reason, 0) for reason, count in before.completed.items()],
        )
        # Not by pack_into, which clears the bytes first: a reader would see a count of zero.
        self._map[: COUNT.size] = COUNT.pack(self._count)

    def say(self, ready: bool, why: str) -> None:
        """Write down whether the process is ready, the reason, and that it has said so now."""
        self._map[STATE_AT : STATE_AT + STATE.size] = STATE.pack(ready, why.encode()[:55], time.monotonic())

    def close(self) -> None:
        """Give up the slot, as the exit of the process does."""
        self.peaks.release()
        self._map.close()
        self._file.close()


def look(folder: Path) -> list[Look]:
    """All slots of the folder, of processes that run and of those that have ended."""
    with ExitStack() as stack:
        # Whoever reads may be another user than those who write, who could not write what it makes.
        with suppress(FileNotFoundError):
            takeover = stack.enter_context((folder / "takeover").open("rb"))
            stack.enter_context(_locked(takeover, fcntl.LOCK_SH))
        return list(filter(None, map(_look, sorted(folder.glob("slot-*")))))


def settled(book: Snapshot) -> Snapshot:
    """The counts of a process that has ended: its active connections count as killed."""
    completed = book.completed | {"killed": book.completed["killed"] + book.active}
    return Snapshot(book.accepted, completed, 0, 0)


def total(books: Iterator[Snapshot]) -> Snapshot:
    """The sum of several processes' counts."""
    accepted, active, peak = 0, 0, 0
    completed = dict.fromkeys(REASONS, 0)
    for book in books:
        accepted, active, peak = accepted + book.accepted, active + book.active, peak + book.peak
        completed = {reason: count + book.completed[reason] for reason, count in completed.items()}
    return Snapshot(accepted, completed, active, peak)


@contextmanager
def _locked(takeover: IO[Any], how: int) -> Iterator[None]:
    """Hold the lock of takeovers, which readers share; if it is not free for long, go on without."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(takeover, how | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
    yield


def _take(folder: Path) -> tuple[int, BinaryIO]:
    for number in itertools.count():
        file = (folder / f"slot-{number}").open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        file.truncate(FILE_BYTES)
        return number, file
    raise AssertionError("numbers do not end")


def _look(path: Path) -> Look | None:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < FILE_BYTES:  # its process has just started
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        ready, why, said_at = STATE.unpack(os.pread(file.fileno(), STATE.size, STATE_AT))
        book = _record(file)
        return Look(
            int(path.name.partition("-")[2]),
            alive,
            alive and ready,
            why.rstrip(b"\0").decode(errors="replace"),
            said_at or None,
            book if alive else settled(book),
        )


def _record(file: BinaryIO) -> Snapshot:
    descriptor = file.fileno()
    for _ in range(TRIES):
        # One right after the other: a writer can interfere only in between.
        page = os.pread(descriptor, FILE_BYTES, 0)
        after = os.pread(descriptor, COUNT.size, 0)
        if page.startswith(after):
            break
    (count,) = COUNT.unpack_from(page)
    numbers = RECORD.unpack_from(page, _at(count))
    accepted, active, *completed = numbers
    peak = highest(PEAKS.unpack_from(page, PEAKS_AT), active, time.monotonic())
    return Snapshot(accepted, dict(zip(REASONS, completed, strict=True)), active, peak)


def _count(file: BinaryIO) -> int:
    (count,) = COUNT.unpack(os.pread(file.fileno(), COUNT.size, 0))
    return int(count)


def _at(count: int) -> int:
    return RECORDS_AT + count % 2 * RECORD_BYTES
