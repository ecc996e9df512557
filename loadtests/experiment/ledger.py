"""Reconciles the clients' books with the service's: every connection has a name. Pure.

Knows what can lie between a client that believes it is connected and a service that has accepted it.
A mismatch is reported as such and never averaged away; there is no class "other".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, Self

from loadtests.experiment.counters import Reading
from loadtests.load.sample import Sample
from loadtests.load.summary import ledger as client_books

NOBODY: Final[frozenset[int]] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One phase or block, reconciled. All fields are counts of connections.

    planned = sent + not_sent
    sent = connected + never_connected (refused, timed out or aborted before the handshake was over)
    connected + carried_over = accepted + kernel_queue + half_open + unexplained
    accepted = completed + active + server_gap

    `carried_over`: accepted now, but connected in an earlier phase, in which it stayed half-open.
    """

    planned: int
    sent: int
    not_sent: int
    connected: int
    never_connected: int
    carried_over: int
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

    @classmethod
    def total(cls, books: Iterable[Self]) -> Self:
        """All books added up."""
        kept = list(books)
        return cls(
            **{
                field.name: sum(getattr(book, field.name) for book in kept)
                for field in dataclasses.fields(cls)
            }
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen:
    """Client ports whose handshakes the kernel had not finished, before and after a phase.

    `overflows`: how many final ACKs it dropped meanwhile because the accept queue was full.
    """

    before: frozenset[int] = NOBODY
    after: frozenset[int] = NOBODY
    overflows: int = 0


def reconcile(samples: Iterable[Sample], before: Reading, after: Reading, half_open: HalfOpen) -> Ledger:
    """Compare the clients' samples with the change of the service's counters over a phase.

    When the accept queue is full, Linux drops the final ACK of a handshake. The client believes it is
    connected, the service never queued it, and the kernel counts it in ListenOverflows. When the client's
    kernel sends again (0.2, 0.6, 1.4, 3.0, 6.2 s after the first try; RFC 6298 with Linux's minimum of 200
    ms), perhaps in a later phase, the connection comes in after all.

    So what is half-open at the end is named by the clients' own ports, and what was half-open at the
    beginning and is no longer may be carried over, no more than that. Handshakes that the kernel has given
    up are bounded twice, by ListenOverflows and by the clients that connected and never had an answer. What
    goes beyond is unexplained; a negative `unexplained` means that somebody else connected to the same port.

    Args:
        samples: of the clients, with the local ports of those that connected.
        before, after: the second taken once the service had settled.
        half_open: what the kernel told at these two moments.
    """
    kept = list(samples)
    client = client_books(kept)
    accepted, completed = after.accepted - before.accepted, after.completed - before.completed
    active = after.active - before.active
    ports = {sample.local_port for sample in kept if sample.connected is not None}
    seen = len(half_open.after & ports)
    rest = client.connected - accepted - after.kernel_queue - seen
    given_up = min(max(rest, 0), half_open.overflows, max(client.unanswered - seen, 0))
    carried = min(max(-rest, 0), len(half_open.before - half_open.after))
    return Ledger(
        planned=client.planned,
        sent=client.sent,
        not_sent=client.not_sent,
        connected=client.connected,
        never_connected=client.connect_failed + client.connect_timeout + client.connect_aborted,
        carried_over=carried,
        accepted=accepted,
        kernel_queue=after.kernel_queue,
        half_open=seen + given_up,
        completed=completed,
        active=active,
        unexplained=rest - given_up + carried,
        server_gap=accepted - completed - active,
    )
