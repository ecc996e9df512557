"""The places of the admin port: which connection gives up its own for another one, and which is late. Pure.

Knows since when each connection has its place, and whether its request has come. Touches no socket and reads
no clock: admin_server.py does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MOST_CONNECTIONS: Final = 16
"""Connections that the admin port holds at a time, each with a thread and a descriptor. Two Prometheus
servers, the probes of an orchestrator and of a balancer, and a person make six, for milliseconds each. The
connection limit of the main port sets as many descriptors aside (service/net/connection_limit.py)."""

EXCHANGE_SECONDS: Final = 10.0
"""From accept to the last byte of the answer. Prometheus gives up on a scrape after as long (scrape_timeout),
the probes of Kubernetes after one second: whoever takes longer reads no answer."""


@dataclass(eq=False, slots=True)
class Place:
    """What one connection holds.

    since: when it was accepted, in seconds of any clock.
    has_request: its request has come, and is being answered.
    is_cut_off: it has been told to end, and its thread gives the place back in a moment.
    """

    since: float
    has_request: bool = False
    is_cut_off: bool = False


def to_evict(places: Iterable[Place]) -> Place | None:
    """Which of `places` to take for a new connection: the oldest, but first one whose request has not come.

    A probe or a scrape sends its request with its connection, so it is never long without one. However fast
    silent clients come, they evict each other, and not the scrape that is being rendered.
    """
    held = [place for place in places if not place.is_cut_off]
    return min(held, key=lambda place: (place.has_request, place.since), default=None)


def late(places: Iterable[Place], now: float) -> list[Place]:
    """Those that have taken longer than an exchange may."""
    return [place for place in places if not place.is_cut_off and now - place.since >= EXCHANGE_SECONDS]
