"""What happened to one attempt of a request: its moments, one named outcome, its local port.

Knows the closed set of outcomes and their form on disk. Touches nothing. Never judges: the summary says
whether a time-out is the server's fault or the machine's.
"""

import errno
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

OK: Final = "ok"  # a complete answer with an expected status: 200 unless told otherwise
STATUS: Final = "status"  # a complete answer with another status
CONNECT_ERROR: Final = "connect_error"  # no connection; `reason` is the errno's name
TLS_ERROR: Final = "tls_error"  # connected, but the handshake failed; `reason` is the library's
RESET: Final = "reset"  # connected, then an error instead of an answer; `reason` is the errno's name
SHORT: Final = "short"  # the server closed before the answer was complete
# A reused connection ended without a byte of an answer; `reason` is FIN or the errno's name.
DROPPED: Final = "dropped"
MALFORMED: Final = "malformed"  # bytes that are not HTTP
TIMEOUT: Final = "timeout"  # given up, connected or not
ABORTED: Final = "aborted"  # the run was stopped meanwhile
NOT_SENT: Final = "not_sent"  # never started; `reason` is one of the two below

OUTCOMES: Final = (
    OK, STATUS, CONNECT_ERROR, TLS_ERROR, RESET, SHORT, DROPPED, MALFORMED, TIMEOUT, ABORTED, NOT_SENT
)  # fmt: skip

NO_PORT: Final = "EADDRNOTAVAIL"  # from connect(2): no local port is free for that server
TOO_MANY_IN_FLIGHT: Final = "max_in_flight"
STOPPED: Final = "stopped"

OF_ATTEMPTS: Final = ("request", "attempt", "last")  # the last columns of a sample


class Sample(NamedTuple):
    """One attempt of a planned request. Times are seconds of the monotonic clock; None: that did not happen.

    Without retries each request has one. With them its last attempt says how it ended; `intended` is that of
    the request, so it is the last one's time from `intended` that the client waited. An attempt for each row,
    instead of a count of attempts for each request: each has a connection and a port, which the server's
    books name as well.
    """

    intended: float
    started: float | None
    connected: float | None
    first_byte: float | None
    finished: float | None
    outcome: str
    status: int | None
    reason: str | None
    local_port: int | None = None  # by which the server's ledger can name the connection
    # At most: from when the last bytes of a complete answer were there until the generator looked.
    receive_lateness_seconds: float | None = None
    secured: float | None = None  # the end of the TLS handshake
    reused: bool = False  # on a kept connection: `connected` is `started`, and `secured` is None
    request: int = 0  # number of the request, from 1, in the order in which requests came due
    attempt: int = 1  # number of this attempt at it, from 1
    last: bool = True  # no other attempt followed

    @property
    def ready(self) -> float | None:
        """When the request could be sent: connected, and with TLS secured."""
        return self.connected if self.secured is None else self.secured

    @property
    def label(self) -> str:
        """The outcome with its kind: `ok`, `ok_204`, `status_503`, `connect_EMFILE`."""
        return outcome_label(self.outcome, self.status, self.reason)


def outcome_label(outcome: str, status: int | None, reason: str | None) -> str:
    """Return the name under which a summary counts an outcome."""
    if outcome == OK and status not in (None, 200):
        return f"ok_{status}"
    if outcome == STATUS:
        return f"status_{status}"
    if outcome == CONNECT_ERROR:
        return f"connect_{reason}"
    return outcome


def requests(samples: Iterable[Sample]) -> list[Sample]:
    """Return the last attempt of each request: how the request ended."""
    return [sample for sample in samples if sample.last]


def elapsed(begin: float | None, end: float | None) -> float:
    """Return the seconds between two moments, both of which happened."""
    assert begin is not None
    assert end is not None
    return end - begin


def to_columns(samples: Iterable[Sample]) -> dict[str, Any]:
    """Return `{"columns": [...], "rows": [[...], ...]}`: names once, times in microsecond resolution."""
    rows = [
        [round(value, 6) if isinstance(value, float) else value for value in sample] for sample in samples
    ]
    return {"columns": list(Sample._fields), "rows": rows}


def from_columns(content: dict[str, Any]) -> list[Sample]:
    """Read samples back; columns may stand in any order, unknown ones are ignored.

    Raises `ValueError` when a column is missing, except for those of attempts: runs that were kept before
    clients could retry have none, and one attempt for each request.
    """
    columns = content["columns"]
    names = [name for name in Sample._fields if name in columns or name not in OF_ATTEMPTS]
    try:
        places = [columns.index(name) for name in names]
    except ValueError as error:
        raise ValueError(f"not a file of samples: {error}") from None
    return [Sample(*(row[place] for place in places)) for row in content["rows"]]


# Errors of the sending machine: the server never saw these requests.
LOCAL_ERRORS: Final = frozenset({"EADDRNOTAVAIL", "EADDRINUSE", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"})

_EXPLANATIONS: Final = {
    "EADDRNOTAVAIL": "no free local port: all are in use or in TIME_WAIT; `python -m loadtests ports` with "
    "the same URL and flags names a command that helps",
    "EADDRINUSE": "the local port was taken when the source address was bound; "
    "leave out --source, or use a kernel with IP_BIND_ADDRESS_NO_PORT (ip(7))",
    "EMFILE": "this process may open no more files; raise `ulimit -n` or lower --max-in-flight",
    "ENFILE": "the whole system may open no more files; raise fs.file-max",
    "ECONNREFUSED": "nothing listens on that address and port; start the server or correct the URL",
    "ETIMEDOUT": "the kernel gave up connecting: the host is down, or a firewall drops the packets",
    "ENETUNREACH": "no route to that network from here; check the address and the routing table",
    "EHOSTUNREACH": "the network reports that the host cannot be reached; check the address",
    "timeout": "no complete answer within --timeout: if not connected, the accept queue may be full; if "
    "connected, the answer is slow",
}


def reason_of(error: OSError) -> str:
    """Return the errno's name, or what the TLS library says (`CERTIFICATE_VERIFY_FAILED`)."""
    # An ssl.SSLError has its own numbers in `errno`, so its `reason` comes first.
    return getattr(error, "reason", None) or errno.errorcode.get(error.errno or 0, type(error).__name__)


def explain(name: str) -> str:
    """Return one sentence on an errno's name (or `timeout`): what it means here and what to do."""
    return _EXPLANATIONS.get(name, f"the system call failed with {name}; see errno(3)")
