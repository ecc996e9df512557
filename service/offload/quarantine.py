"""Calls that kill their workers: who is suspected, and who is not run for a while. Pure: it is told the time.

A call is a function and its arguments. One that ends its process, by a bug in C code or by the memory that it
takes, does so each time, and a client that repeats it would cost as many workers as it sends requests.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from service.offload.worker_main import Packed

KILLS: Final = 2
"""Workers that a call has killed before it is held. The first may be an accident; so each gets a second."""

HELD_SECONDS: Final = 60.0
"""How long a call is held. One worker a minute is a price that nobody notices, and a call that was killed for
what has been mended since (a machine out of memory) need not wait for a restart of the service."""

FORGET_SECONDS: Final = 600.0
"""After so long without another kill nothing is held against a call. Until then it is run apart from others,
and if it kills once more it is held again."""

MOST_CALLS: Final = 1024
"""Calls that are remembered, those that killed last. Inputs that differ each time fill the table with what
never comes again, and push out others; that costs no more than a worker or two for each of those."""


class Standing(enum.Enum):
    """What is known of a call."""

    GOOD = enum.auto()  # nothing
    SUSPECTED = enum.auto()  # it may have killed a worker: to be run apart from others
    HELD = enum.auto()  # not to be run


def name_of(packed: Packed) -> bytes:
    """The same for calls of one function with equal arguments, empty for one that is not pickled: that is run
    in our own process, and kills no worker."""
    return hashlib.blake2b(packed, digest_size=16).digest() if isinstance(packed, bytes) else b""


@dataclass(slots=True)
class _Record:
    kills: int
    last: float  # when it killed
    held: bool


class Quarantine:
    """The calls that killed, and have not finished since.

    Args:
        kills: how many it takes before a call is held.
    """

    def __init__(self, kills: int) -> None:
        self._kills = kills
        self.calls: OrderedDict[bytes, _Record] = OrderedDict()
        """Those that are remembered, in the order of their last kill: without any, none need be named."""

    def standing(self, call: bytes, now: float) -> Standing:
        """What is known of `call`."""
        while self.calls and now - next(iter(self.calls.values())).last >= FORGET_SECONDS:
            self.calls.popitem(last=False)
        record = self.calls.get(call)
        if record is None:
            return Standing.GOOD
        return Standing.HELD if record.held and now - record.last < HELD_SECONDS else Standing.SUSPECTED

    def killed(self, call: bytes, *, sent: float, now: float) -> bool:
        """A worker died under `call`, which it was sent at `sent`; True if it is held from now on.

        It need not be the culprit: who was beside that in a broken executor is told of as well. But from then
        on it runs apart, so that the next kill is its own, and if it is innocent it finishes.
        """
        if self.standing(call, now) is Standing.GOOD:
            self.calls[call] = _Record(0, 0.0, held=False)
        record = self.calls[call]
        # Two workers that die at the same time, each with a copy of the call, show no more than one: that may
        # have been an accident, and where all requests are the same call it would stop all of them.
        if record.kills == 0 or sent >= record.last:
            record.kills += 1
        was_held = record.held and now - record.last < HELD_SECONDS
        record.last = now
        record.held = record.held or record.kills >= self._kills
        self.calls.move_to_end(call)
        if len(self.calls) > MOST_CALLS:
            self.calls.popitem(last=False)
        return record.held and not was_held

    def finished(self, call: bytes) -> None:
        """A worker has survived `call`."""
        self.calls.pop(call, None)
