"""Reconciles the clients' counts with the service's: every connection belongs to a named class. Pure.

Knows what can happen between a client that believes it is connected and a service that accepts it. A mismatch
is reported and never averaged away; there is no class "other".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, Self

from loadtests.experiment.counters import Reading
from loadtests.load.sample import Sample
from loadtests.load.summary import ledger as client_books

NO_PORTS: Final[frozenset[int]] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One phase or block, reconciled. All fields are counts: an attempt has one connection at most.

    Requests: planned = sent + not_sent
    Attempts: sent + retried = connected + never_connected (refused, timed out or aborted before the handshake
    was over)
    connected + carried_over = accepted + kernel_queue + half_open + unexplained
    accepted = completed + active + server_gap

    `carried_over`: accepted in this phase, but connected in an earlier one, in which they stayed half-open.
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
    retried: int = 0  # attempts after the first of their request

    @property
    def closes(self) -> bool:
        """Whether every connection is accounted for."""
        return (
            self.planned == self.sent + self.not_sent
            and self.sent + self.retried == self.connected + self.never_connected
            and self.unexplained == self.server_gap == self.active == 0
        )

    @classmethod
    def total(cls, books: Iterable[Self]) -> Self:
        """The sum of ledgers."""
        kept = list(books)
        return cls(
            **{
                field.name: sum(getattr(book, field.name) for book in kept)
                for field in dataclasses.fields(cls)
            }
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen:
    """Client ports of incomplete handshakes, before and after a phase.

    `overflows`: final ACKs that the kernel dropped meanwhile because the accept queue was full.
    """

    before: frozenset[int] = NO_PORTS
    after: frozenset[int] = NO_PORTS
    overflows: int = 0


def reconcile(samples: Iterable[Sample], before: Reading, after: Reading, half_open: HalfOpen) -> Ledger:
    """Compare the clients' samples with the change of the service's counters over a phase.

    If the accept queue is full, Linux drops the final ACK of a handshake. The client believes that it is
    connected, the service has no connection, and the kernel counts the drop in ListenOverflows. When the
    client's kernel retransmits (0.2, 0.6, 1.4, 3.0, 6.2 s after the first try; RFC 6298 with Linux's minimum
    of 200 ms), perhaps in a later phase, the connection is accepted after all.

    So half-open connections at the end are named by the clients' ports, and at most those that were half-open
    at the beginning and no longer are can be carried over. Handshakes that the kernel gave up are bounded
    twice, by ListenOverflows and by the clients that connected and had no answer. Whatever exceeds this is
    unexplained; a negative `unexplained` means that other clients connected to the same port.

    Args:
        samples: of the clients, with the local ports of those that connected.
        before, after: the second taken once the service had settled.
        half_open: the kernel's half-open connections at these two moments.
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
        # By the numbers of the attempts, not by their count: an attempt that is missing does not close.
        retried=sum(sample.attempt - 1 for sample in kept if sample.last),
    )
