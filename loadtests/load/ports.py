"""How many connections a client can make before its local ports run out. Pure.

Knows how Linux hands local ports out and takes them back. Touches nothing: port_state.py reads what this
decides by.

A connection is told apart by four things: both addresses and both ports. Against one server a client with
one address therefore has as many connections as it has local ports (`ip_local_port_range`), and a port is
not free again when its connection ends: whoever sends the first FIN keeps it in TIME_WAIT for a minute (RFC
9293, 3.6). A client that closes first runs dry at ports / 60 s, some 470 connections per second, and what
fails then is the client while the server idles: the trap that many a load test has taken for a limit of its
server.
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
    """What the kernel of this network namespace says about local ports.

    `reserved`: how many of the range are never handed out (ip_local_reserved_ports). `reuse_delay_seconds`:
    how long a port in TIME_WAIT is kept where its reuse is allowed at all.
    """

    low: int
    high: int
    reserved: int = 0
    tw_reuse: int = LOOPBACK_ONLY
    reuse_delay_seconds: float = 1.0
    timestamps: bool = True

    @property
    def ports(self) -> int:
        """How many there are for each address."""
        return max(0, self.high - self.low + 1 - self.reserved)

    @property
    def late_parity(self) -> int:
        """Of the ports that connect() hands out when it finds none of the others: not that of the lowest."""
        return (self.low + 1) & 1

    def within(self, span: tuple[int, int]) -> Self:
        """The same for sockets that ask for a range of their own (IP_LOCAL_PORT_RANGE).

        A bound outside the range of the namespace has no effect (ip(7)).
        """
        low, high = (bound if self.low <= bound <= self.high else None for bound in span)
        return dataclasses.replace(self, low=low or self.low, high=high or self.high)

    def quarantine_seconds(self, *, client_closes: bool, loopback: bool) -> float:
        """How long a port stays out of use after its connection has ended.

        None at all where the server sends the first FIN. Else a minute, or a second where tcp_tw_reuse
        lets connect() take a port out of TIME_WAIT, which it does by the timestamps of TCP alone
        (tcp_twsk_unique in net/ipv4/tcp_ipv4.c).
        """
        if not client_closes:
            return 0.0
        reusable = self.tw_reuse == 1 or (self.tw_reuse == LOOPBACK_ONLY and loopback)
        return self.reuse_delay_seconds if reusable and self.timestamps else TIME_WAIT_SECONDS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldPort:
    """A port that a connection to the same server has, or had.

    `remaining_seconds`: of its TIME_WAIT; None: it is in use.
    """

    source: str
    remaining_seconds: float | None

    def free_after(self, quarantine_seconds: float) -> float:
        """Seconds until a connect() may take it; inf while it is in use."""
        if self.remaining_seconds is None:
            return math.inf
        # A connection that ended before the run may be reused by the rule for those that end in it; one that
        # is in TIME_WAIT on our side was closed by us, whoever closes first now.
        spent = TIME_WAIT_SECONDS - self.remaining_seconds
        return max(0.0, quarantine_seconds - spent)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a run will ask of the ports.

    `offsets`: when connections start, in seconds, ascending; none where that depends on the answers.
    `most_at_once`: of connections that are kept for the next request; None: each serves one.
    """

    offsets: Sequence[float]
    sources: tuple[str, ...]
    client_closes: bool
    loopback: bool
    most_at_once: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What will become of the ports.

    `first_without`: number, from 1, of the first request that finds none; None: all find one. `at_seconds`:
    when that will be. `sustained_per_second`: what can go on for ever; None where ports come back at once.
    `most_at_once`: as demanded.
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


def forecast(
    demand: Demand, rules: PortRules, held: Iterable[HeldPort], answer_seconds: float = 0.0
) -> Forecast:
    """Play the run through: each request takes a port of its source, the sources taking turns.

    `answer_seconds`: how long a request holds its port before that is in quarantine. It is not known before
    the run, and is short beside a quarantine.
    """
    quarantine = rules.quarantine_seconds(client_closes=demand.client_closes, loopback=demand.loopback)
    # What lies in TIME_WAIT here lies there because we closed it, whoever closes first this time.
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
    )


def first_without(
    offsets: Sequence[float], returns: Sequence[Sequence[float]], ports: int, kept_seconds: float
) -> int | None:
    """The number, from 1, of the first request that finds no port; None if all find one.

    `returns`: for each source, when each of its busy ports is free again. `kept_seconds`: how long a request
    keeps its own.
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

    `half_gone_after`: how many connections had been tried when the first port of the other parity was handed
    out. connect() prefers every second port of the range and takes one of the others when it finds none of
    those (inet_hash_connect), so that is the moment at which half of them are in use or in TIME_WAIT. None:
    it did not come. `first_without`: number of the first that found none.
    """

    connections: int
    distinct: int
    half_gone_after: int | None
    first_without: int | None


def ports_used(ports: Sequence[int | None], without: Sequence[bool], late_parity: int | None) -> PortUse:
    """Sum up the ports of connections in the order of their starts.

    `ports`: None for one that got none. `without`: whether it got none because there was none. `late_parity`:
    of those that the kernel hands out last; None: it has no preference.
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
