"""The command `python -m service`: argv, environment and signals in, exit code out.

It imports next to nothing before it blocks the signals that it will handle: what comes from then on waits for
its handler. As process 1 of a container it leaves a small process behind as that (lifecycle/init.py).
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from service.lifecycle import init
from service.lifecycle.terminal import Terminal

if TYPE_CHECKING:
    from service.lifecycle.control import Control
    from service.lifecycle.states import Event


def _install_signal_handlers(control: Control, terminal: Terminal) -> None:
    """Make SIGTERM and SIGINT orders to stop, and SIGHUP one to reload, unless the terminal has gone.

    By `signal` and not by the event loop: a blocked loop calls no handler, and a second signal matters most
    when the loop is blocked. These handlers run between two bytecodes of whatever blocks it.
    """
    from service.lifecycle.states import Event

    for number, why in ((signal.SIGTERM, Event.TERMINATE), (signal.SIGINT, Event.INTERRUPT)):
        signal.signal(number, functools.partial(_stop, control, why))
    signal.signal(signal.SIGHUP, functools.partial(_hang_up_or_reload, control, terminal))


def _stop(control: Control, why: Event, *_: object) -> None:
    control.stop(why)


def _hang_up_or_reload(control: Control, terminal: Terminal, *_: object) -> None:
    """Stop a service whose terminal was closed; reload any other one."""
    if terminal.has_hung_up():
        control.hang_up()
    else:
        control.reload()


def _force(code: int) -> None:
    # Neither by the loop nor by the log: this signal may have interrupted a write of the log. And not into a
    # full pipe, which would block. Workers see that their parent has gone, and exit within milliseconds.
    with contextlib.suppress(Exception):
        # Without a stderr at start, descriptor 2 is some other file's.
        if sys.__stderr__ is not None and select.select([], [2], [], 0)[1]:
            os.write(2, b"offloop: second signal: ended at once\n")
    os._exit(code)


def main() -> int:
    """Run the service; returns its exit code."""
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, init.AWAITED)
    if os.getpid() == 1:
        init.stay_behind()
        if os.environ.get("LISTEN_PID") == "1":  # the socket was meant for the service (sd_listen_fds(3))
            os.environ["LISTEN_PID"] = str(os.getpid())
    from service.lifecycle.control import Control  # it brings asyncio, which process 1 does not need
    from service.lifecycle.states import EXIT_FORCED

    control = Control(functools.partial(_force, EXIT_FORCED))
    terminal = Terminal(is_heeded=signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN)
    _install_signal_handlers(control, terminal)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    from service.command import run  # the slow part: everything else is imported here

    return run(sys.argv[1:], os.environ, control, each_second=terminal.look)


if __name__ == "__main__":
    sys.exit(main())
