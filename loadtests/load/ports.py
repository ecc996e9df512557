"""How many connections a client can make before its local ports run out. Pure.

Knows how Linux assigns local ports and frees them. Touches nothing: port_state.py reads what this needs.

A connection is identified by both addresses and both ports. So a client with one address can have as many
connections to one server as it has local ports (`ip_local_port_range`). A port is not free again when its
connection ends: the side that sends the first FIN keeps it in TIME_WAIT for a minute (RFC 9293, 3.6). A
client that closes first runs out of ports at ports / 60 s, some 470 connections per second. Then the client
fails while the server idles, which many a load test has taken for a limit of its server.
"""

import dataclasses
import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Final, Self

TIME_WAIT_SECONDS: Final = 60.0
"""TCP_TIMEWAIT_LEN in the kernel's include/net/tcp.h; no setting changes it."""

LOOPBACK_ONLY: Final = 2
"""Of tcp_tw_reuse, the default since Linux 4.19: 0 never, 1 for every peer, 2 for loopback."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PortRules:
    """The kernel's rules for local ports in this network namespace.

    `reserved`: how many of the range are never assigned (ip_local_reserved_ports). `reuse_delay_seconds`: for
    how long a port stays in TIME_WAIT if its reuse is allowed at all.
    """

    low: int
    high: int
    reserved: int = 0
    tw_reuse: int = LOOPBACK_ONLY
    reuse_delay_seconds: float = 1.0
    timestamps: bool = True

    @property
    def ports(self) -> int:
        """The number of ports for each address."""
        return max(0, self.high - self.low + 1 - self.reserved)

    @property
    def late_parity(self) -> int:
        """Parity of the ports that connect() assigns last: the opposite of the lowest port's."""
        return (self.low + 1) & 1

    def within(self, span: tuple[int, int]) -> Self:
        """The rules for sockets with a range of their own (IP_LOCAL_PORT_RANGE).

        A bound outside the range of the namespace has no effect (ip(7)).
        """
        low, high = (bound if self.low <= bound <= self.high else None for bound in span)
        return dataclasses.replace(self, low=low or self.low, high=high or self.high)

    def quarantine_seconds(self, *, client_closes: bool, loopback: bool) -> float:
        """For how long a port cannot be used after its connection has ended.

        Not at all if the server sends the first FIN. Else for a minute, or for a second if tcp_tw_reuse lets
        connect() take a port out of TIME_WAIT, which needs TCP timestamps (tcp_twsk_unique in
        net/ipv4/tcp_ipv4.c).
        """
        if not client_closes:
            return 0.0
        reusable = self.tw_reuse == 1 or (self.tw_reuse == LOOPBACK_ONLY and loopback)
        return self.reuse_delay_seconds if reusable and self.timestamps else TIME_WAIT_SECONDS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldPort:
    """A local port of a connection to the same server, open or ended.

    `remaining_seconds`: of its TIME_WAIT; None: it is in use.
    """

    source: str
    remaining_seconds: float | None

    def free_after(self, quarantine_seconds: float) -> float:
        """Seconds until a connect() may take it; inf while it is in use."""
        if self.remaining_seconds is None:
            return math.inf
        # The rule for ports of this run holds for those of earlier connections too. One that is in TIME_WAIT
        # here was closed first from here, whichever side closes first in this run.
        spent = TIME_WAIT_SECONDS - self.remaining_seconds
        return max(0.0, quarantine_seconds - spent)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a run needs of the ports.

    `offsets`: when connections start, in seconds, ascending; empty if that depends on the answers.
    `most_at_once`: of connections that are kept for the next request; None: each serves one request.
    `retries`: how many of the connections are those of retries, in the worst case.
    """

    offsets: Sequence[float]
    sources: tuple[str, ...]
    client_closes: bool
    loopback: bool
    most_at_once: int | None = None
    retries: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run will find of ports.

    `first_without`: number, from 1, of the first attempt that finds none; None: all find one. `at_seconds`:
    when that will be. `sustained_per_second`: the rate that can go on without end; None: ports are free again
    at once. `most_at_once`, `retries`: as in `Demand`; retries are among the `planned`.
    """

    ports: int
    sources: int
    busy: int
    quarantine_seconds: float
    planned: int
    first_without: int | None
    at_seconds: float | None
    sustained_per_second: float | None
    most_at_once: int | None
    retries: int = 0


def forecast(
    demand: Demand, rules: PortRules, held: Iterable[HeldPort], answer_seconds: float = 0.0
) -> Forecast:
    """Simulate the run: each request takes a port of its source; sources are used in turn.

    `answer_seconds`: for how long a request holds its port before the quarantine begins. It is not known
    before the run, and is short compared with a quarantine.
    """
    quarantine = rules.quarantine_seconds(client_closes=demand.client_closes, loopback=demand.loopback)
    # A port is in TIME_WAIT here because it was closed first from here, whichever side closes first now.
    left_over = rules.quarantine_seconds(client_closes=True, loopback=demand.loopback)
    returns: dict[str, list[float]] = {source: [] for source in demand.sources}
    for port in held:
        if port.source in returns and (after := port.free_after(left_over)) > 0:
            returns[port.source].append(after)
    busy = sum(map(len, returns.values()))
    number = first_without(demand.offsets, list(returns.values()), rules.ports, answer_seconds + quarantine)
    return Forecast(
        ports=rules.ports,
        sources=len(demand.sources),
        busy=busy,
        quarantine_seconds=quarantine,
        planned=len(demand.offsets),
        first_without=number,
        at_seconds=None if number is None else demand.offsets[number - 1],
        sustained_per_second=rules.ports * len(demand.sources) / quarantine if quarantine else None,
        most_at_once=demand.most_at_once,
        retries=demand.retries,
    )


def first_without(
    offsets: Sequence[float], returns: Sequence[Sequence[float]], ports: int, kept_seconds: float
) -> int | None:
    """The number, from 1, of the first request that finds no port; None if all find one.

    `returns`: for each source, when each of its busy ports is free again. `kept_seconds`: for how long a
    request keeps its port.
    """
    waiting = [sorted(each) for each in returns]  # an ascending list is a heap
    for number, offset in enumerate(offsets):
        heap = waiting[number % len(waiting)]
        while heap and heap[0] <= offset:
            heapq.heappop(heap)
        if len(heap) >= ports:
            return number + 1
        if kept_seconds:
            heapq.heappush(heap, offset + kept_seconds)
    return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PortUse:
    """What a run did to the ports.

    `half_gone_after`: the number of connections tried when the first port of the other parity was assigned.
    connect() prefers every second port of the range and takes another one only if none of those is free
    (inet_hash_connect), so at that moment half of the ports are in use or in TIME_WAIT. None: that did not
    happen. `first_without`: number of the first connection that found no port.
    """

    connections: int
    distinct: int
    half_gone_after: int | None
    first_without: int | None


def ports_used(ports: Sequence[int | None], without: Sequence[bool], late_parity: int | None) -> PortUse:
    """Sum up the ports of connections, in the order in which they started.

    `ports`: None for a connection without one. `without`: whether none was free. `late_parity`: parity of the
    ports that the kernel assigns last; None: it has no preference.
    """
    half_gone = (
        number for number, port in enumerate(ports, 1) if port is not None and port & 1 == late_parity
    )
    failed = (number for number, missing in enumerate(without, 1) if missing)
    taken = [port for port in ports if port is not None]
    return PortUse(
        connections=len(taken),
        distinct=len(set(taken)),
        half_gone_after=next(half_gone, None),
        first_without=next(failed, None),
    )
