"""Reconciles the client's books with the server's: every connection has a name. Pure.

Knows what can lie between a client that believes it is connected and a server that has accepted it.
A mismatch is reported as such and never averaged away; there is no class "other".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One phase, reconciled. All fields are counts of connections.

    planned = sent + not_sent
    sent = connected + never_connected (refused, timed out or aborted before the handshake was over)
    connected = accepted + kernel_queue + half_open + unexplained
    accepted = completed + active + server_gap
    """

    planned: int
    sent: int
    not_sent: int
    connected: int
    never_connected: int
    accepted: int
    kernel_queue: int
    half_open: int
    completed: int
    active: int
    unexplained: int
    server_gap: int

    @property
    def closes(self) -> bool:
        """Whether every connection is accounted for."""
        return (
            self.planned == self.sent + self.not_sent
            and self.sent == self.connected + self.never_connected
            and self.unexplained == self.server_gap == self.active == 0
        )


def reconcile(
    client: Mapping[str, int], before: Mapping[str, float], after: Mapping[str, float], listen_overflows: int
) -> Ledger:
    """Compare the client's counts with the change of the server's counters over a phase.

    Half-open: when the accept queue is full, Linux drops the final ACK of a handshake. The client
    believes it is connected, the server never queued it, and the kernel counts it in ListenOverflows.
    So the class is bounded twice, by that counter's change and by the clients that connected and never
    had an answer; what goes beyond is unexplained. A negative `unexplained` means that somebody else
    connected to the same port.

    Args:
        client: the client's side, `ledger` of the summary.
        before, after: rows of the watch, the second taken once the server had settled.
        listen_overflows: change of the kernel's counter over the phase.
    """
    accepted = int(after["accepted"] - before["accepted"])
    completed = int(after["completed"] - before["completed"])
    active = int(after["active"] - before["active"])
    queued = int(after["kernel_queue"])
    gap = client["connected"] - accepted - queued
    half_open = min(max(gap, 0), listen_overflows, client["unanswered"])
    return Ledger(
        planned=client["planned"],
        sent=client["sent"],
        not_sent=client["not_sent"],
        connected=client["connected"],
        never_connected=sum(
            client[name] for name in ("connect_failed", "connect_timeout", "connect_aborted")
        ),
        accepted=accepted,
        kernel_queue=queued,
        half_open=half_open,
        completed=completed,
        active=active,
        unexplained=gap - half_open,
        server_gap=accepted - completed - active,
    )
