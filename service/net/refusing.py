"""What changes at the front door while requests are refused: then what a refusal costs matters most.

Knows the listener and when the last request was refused. Refuses nothing and accepts nothing.

Two things change, both of which a client that would be refused does not feel:

- The kernel hands connections over with their first bytes and not before. A refusal before HTTP
  (web/early_reject.py) needs the request. Clients send it a moment after they are connected, and at 3,000
  connections a second 15 % are accepted in that moment. Each of those takes a task, and up to two more looks.
- The accept loop looks for connections by the clock, as a network driver does under load (NAPI, in the
  kernel's documentation): to be woken for each one costs more than half of what a look does. As there, it
  ends once nobody comes.

Not always: whoever connects and says nothing is handed over a second later only, and one that waits for the
server to speak first waits for that second.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from service.net import tcp

HELD_SECONDS: Final = 1
"""For how long the kernel holds a silent connection back: until it sends its SYN-ACK again, a second later.
As short as it goes, so that a drain can wait for all that are held."""

LASTS_SECONDS: Final = 1.0
"""For how long it goes on after the last refusal."""


class Refusing:
    """Whether requests are being refused, and what the kernel is asked for meanwhile.

    Args:
        is_shared: other processes hold the listener as well: nothing is held back. Whoever closes it last
            would reset what the kernel holds, and none of them knows that it is the last.
    """

    def __init__(self, listener: socket.socket, *, is_shared: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._holds_back = not is_shared
        self._closed = False
        self._again = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> bool:
        """Whether a request has been refused just now."""
        return self._timer is not None

    def note(self) -> None:
        """A request has been refused, or would have been if it had been there."""
        self._again = True
        if self._timer is None and not self._closed:
            self._hold_back(HELD_SECONDS)
            self._look()

    def close(self) -> None:
        """It is over for good, for a drain begins. What is held back is handed over within HELD_SECONDS."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._end()

    def _look(self) -> None:
        if self._again:
            self._again = False
            self._timer = self._loop.call_later(LASTS_SECONDS, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self._timer = None
        self._hold_back(0)

    def _hold_back(self, seconds: int) -> None:
        if self._holds_back:
            tcp.wait_for_data(self._listener, seconds)
