"""Process 1 of a container: passes signals on to the service, buries orphans, and ends with the service.

The kernel gives every orphan of a PID namespace to its process 1, and one that nobody waits for stays a
zombie. The service cannot wait for all children: its own are waited for by what has started them. So the
service runs in a child, and process 1 does nothing but this. If process 1 dies, the kernel ends the rest
(pid_namespaces(7)).
"""

from __future__ import annotations

import os
import signal
from typing import Final

PASSED_ON: Final = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)
AWAITED: Final = PASSED_ON | {signal.SIGCHLD}
"""What must be blocked when `stay_behind` is called. A blocked signal waits, whereas process 1 would lose one
that it has no handler for."""


def stay_behind() -> None:
    """Return in a child; the process that called waits for it, and never returns.

    Its exit code is the child's, or 128 + the number of the signal that ended it, as a shell says it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as it may be inherited, none would come
    child = os.fork()
    if child == 0:
        # Out of the group to which a terminal sends Ctrl-C, or the child would get it twice, and a second
        # SIGINT forces.
        os.setpgid(0, 0)
        return
    while True:
        number = signal.sigwait(AWAITED)
        if number == signal.SIGCHLD:
            _bury(child)
        else:
            os.kill(child, number)  # not waited for yet, so the number is still its own


def _bury(child: int) -> None:
    """Wait for all that have ended; if `child` is among them, end as it did."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
