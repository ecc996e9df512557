"""What a failed accept means, errno by errno, and what an operator can do about each shortage. Pure.

A new errno goes into `_CONNECTION`, `HINTS` (a shortage, with its remedy) or `_BROKEN`. Sources: accept(2),
the async-std book, and what other servers do.
"""

from __future__ import annotations

import enum
import errno

HINTS = {
    errno.EMFILE: "this process has no descriptor left: raise its limit (ulimit -n, LimitNOFILE) or lower "
    "--max-connections",
    errno.ENFILE: "the whole system has no descriptor left: raise fs.file-max",
    errno.ENOBUFS: "the kernel has no memory for sockets: see net.ipv4.tcp_mem, or lower --max-connections",
    errno.ENOMEM: "the kernel has no memory: give the machine or the cgroup more, or lower --max-connections",
}
HELP = "docs/operations.md#when-descriptors-run-out"


class ErrorClass(enum.Enum):
    """What a failed accept means for the listener; the value is the metric's `class` label."""

    CONNECTION = "connection"  # one connection is lost: accept the next at once
    SHORTAGE = "shortage"  # this machine lacks something: pause, and try again
    BROKEN = "broken"  # the listener itself is unusable: stop serving
    UNKNOWN = "unknown"  # taken for a shortage, up to `TRIES_BEFORE_BROKEN` times in a row


# One connection failed, and as a rule it has left the queue; the next one may be fine. (A security module may
# refuse a connection before it leaves the queue; `TRIES_BEFORE_PAUSE` keeps that from spinning a core.)
#
# accept(2): "Linux accept() (and accept4()) passes already-pending network errors on the new socket as
# an error code from accept() ... treat them like EAGAIN by retrying", and names ENETDOWN, EPROTO,
# ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP and ENETUNREACH. POSIX and the BSDs return
# ECONNABORTED for a connection whose client has closed it; Linux accepts such a connection, and `recv` fails.
# ECONNRESET and ECONNREFUSED: the async-std book and tokio's users treat them alike. EPERM: "Firewall
# rules forbid connection". EINTR: nothing happened (PEP 475 retries it anyway). ETIMEDOUT: seen on
# sockets that were aborted while they waited.
# libuv handles ECONNABORTED only; asyncio retries EINTR and ECONNABORTED, and pauses for what it calls
# "exhausted resources"; Go's net/http retries what is `Temporary()`, shortage or not, with back-off.
_CONNECTION = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.EINTR,
        errno.ETIMEDOUT,
        getattr(errno, "ENONET", errno.EHOSTDOWN),  # Linux only
    }
)
# The connection stays in the queue and the listener stays readable: retrying at once would spin a core.
_SHORTAGE = frozenset(HINTS)
# Only a fault of this program causes these, and waiting does not mend them.
_BROKEN = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})
EMPTY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
# Everything else is unknown: waiting is the harmless guess, and `TRIES_BEFORE_BROKEN` bounds it.


def classify(code: int | None) -> ErrorClass:
    """The class of a failed accept, by its errno."""
    if code in _CONNECTION:
        return ErrorClass.CONNECTION
    if code in _SHORTAGE:
        return ErrorClass.SHORTAGE
    return ErrorClass.BROKEN if code in _BROKEN else ErrorClass.UNKNOWN


def errno_name(error: OSError) -> str:
    """The name of the error's errno, or its number where it has none."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))
