"""The terminal on which the service was started: whether a SIGHUP means that it was closed.

Knows /dev/tty. Imports next to nothing: the command asks before it has loaded anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

GONE = frozenset({errno.ENXIO, errno.EIO})  # and not, say, EMFILE


def controlling_terminal() -> int:
    """0 if this process has a controlling terminal, else the errno that says why not.

    At a hang-up the kernel takes it from every process of the session before it sends the first SIGHUP, and
    so before a shell passes that on to its jobs (tty_signal_session_leader, drivers/tty/tty_jobctrl.c).
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


class Terminal:
    """The terminal whose end is to be the service's, too, if there is one.

    Args:
        is_heeded: False under nohup(1), which makes SIGHUP ignored.
        ask: as `controlling_terminal` does.
    """

    def __init__(self, *, is_heeded: bool, ask: Callable[[], int] = controlling_terminal) -> None:
        self._ask = ask
        self._is_ours = is_heeded and ask() == 0
        self._was_there = True

    def has_hung_up(self) -> bool:
        """At a SIGHUP: whether the terminal has sent it by its end."""
        return self._is_ours and self._ask() in GONE

    def look(self, *_: object) -> None:
        """Once a second: a terminal that has gone without a word will send nothing any more.

        So a shell's job that has outlived its shell (`&`, then `exit`) reloads at a SIGHUP. It takes two
        looks, because a shell passes a SIGHUP on a moment later.
        """
        if self._is_ours:
            is_there = self._ask() not in GONE
            self._is_ours = is_there or self._was_there
            self._was_there = is_there
