"""The plan of one phase of load: what will be sent, from where, when to give up.

Knows the fields and their limits. Touches nothing: never opens a connection, never reads the clock.
"""

import dataclasses
import ipaddress
import math
from typing import Any, Self
from urllib.parse import urlsplit

from loadtests.load.statuses import parse_statuses

ARRIVALS = ("constant", "poisson")
CLOSERS = ("server", "client")
RETRY_POLICIES = NO_RETRY, IMMEDIATE, BACKOFF, BUDGET, RETRY_AFTER = (
    "none", "immediate", "backoff", "budget", "retry-after"
)  # fmt: skip
MOST_RETRIES = 100  # for each request
MOST_SOURCES = 1024  # local addresses used in turn; each is tried before the load starts

# These headers frame the requests of a connection; a second one would contradict the generator's.
OUR_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})
METHOD_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One load against one URL: an offered rate, or clients in a closed loop. Can be written as JSON.

    Exactly one of `rate`, `segments` and `clients` is given; schedule.py says what each measures. Raises
    `ValueError` with one sentence that names the field at fault.
    """

    url: str
    duration_seconds: float  # for how long requests are sent
    rate: float | None = None  # requests per second
    # (requests per second, seconds) one after the other, instead of one rate; what is tried again goes on
    # into the next.
    segments: tuple[tuple[float, float], ...] = ()
    clients: int | None = None  # each with one request under way
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""  # UTF-8; other bytes are kept as surrogates (PEP 383)
    arrivals: str = "constant"
    seed: int = 1  # of random arrivals, and of the waits before retries
    timeout_seconds: float = 10.0  # from the start of each request to the end of its answer
    source: str | None = None  # local IP address, or a range such as 127.0.0.2-127.0.0.9; None: the kernel's
    port_range: str | None = None  # local ports, such as 40000-40199; None: the kernel's
    keep_alive: bool = False  # requests reuse idle connections; else each has its own
    who_closes: str = "server"  # of connections for one request
    expect: str = "200"  # statuses that count as success: 200, 2xx, 200-299, or several with commas
    max_in_flight: int = 10_000
    insecure: bool = False
    retries: int = 0  # attempts for each request after the first one, at most
    retry: str = NO_RETRY  # when they are sent; RETRY_POLICIES

    def __post_init__(self) -> None:
        for name in ("duration_seconds", "timeout_seconds"):
            _check_positive(name, getattr(self, name))
        if self.segments:
            self._check_segments()
        elif (self.rate is None) == (self.clients is None):
            raise ValueError("a load is either a rate or a number of clients: give exactly one of the two")
        if self.rate is not None:
            _check_positive("rate", self.rate)
            if round(self.rate * self.duration_seconds) < 1:
                raise ValueError(
                    f"rate {self.rate:g}/s for {self.duration_seconds:g} s sends no request at all"
                )
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {self.max_in_flight}")
        if self.arrivals not in ARRIVALS:
            raise ValueError(f"arrivals must be one of {', '.join(ARRIVALS)}, not {self.arrivals!r}")
        if self.clients is not None:
            self._check_clients(self.clients)
        if self.who_closes not in CLOSERS:
            raise ValueError(f"who_closes must be one of {', '.join(CLOSERS)}, not {self.who_closes!r}")
        if self.keep_alive and self.who_closes != CLOSERS[0]:
            raise ValueError(
                f"who_closes {self.who_closes!r} does not go with keep_alive: connections stay open"
            )
        self._check_retries()
        _ = self.sources, self.port_span  # their ValueErrors name the text at fault
        parse_statuses(self.expect)
        Target.parse(self.url)
        self._check_head()

    @property
    def body_bytes(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode("utf-8", "surrogateescape")

    @property
    def sources(self) -> tuple[str, ...]:
        """The local addresses to use in turn; empty: the kernel chooses one."""
        return () if self.source is None else parse_sources(self.source)

    @property
    def port_span(self) -> tuple[int, int] | None:
        """First and last local port, if they are not left to the kernel."""
        return None if self.port_range is None else parse_ports(self.port_range)

    @property
    def retries_at_most(self) -> int:
        """For each request; 0: clients do not retry."""
        return 0 if self.retry == NO_RETRY else self.retries

    @property
    def workload(self) -> str:
        """The load in words: `100/s poisson`, or `closed loop, 8 clients`."""
        if self.segments:
            parts = ", ".join(f"{rate:g}/s for {seconds:g} s" for rate, seconds in self.segments)
            return f"{parts}, {self.arrivals}"
        if self.rate is not None:
            return f"{self.rate:g}/s {self.arrivals}"
        return f"closed loop, {self.clients} client{'' if self.clients == 1 else 's'}"

    def _check_segments(self) -> None:
        if self.rate is not None or self.clients is not None:
            raise ValueError("segments have rates of their own: give neither a rate nor clients")
        for rate, seconds in self.segments:
            _check_positive("the rate of a segment", rate)
            _check_positive("the length of a segment", seconds)
        total = math.fsum(seconds for _, seconds in self.segments)
        if not math.isclose(total, self.duration_seconds):
            raise ValueError(f"segments of {total:g} s in all do not fill {self.duration_seconds:g} s")

    def _check_clients(self, clients: int) -> None:
        if clients < 1:
            raise ValueError(f"clients must be at least 1, not {clients}")
        if clients > self.max_in_flight:
            raise ValueError(f"{clients} clients are more than max_in_flight {self.max_in_flight} allows")
        if self.arrivals != ARRIVALS[0]:
            raise ValueError(
                f"arrivals {self.arrivals!r} need a rate: clients in a closed loop send when answered"
            )

    def _check_retries(self) -> None:
        if not 0 <= self.retries <= MOST_RETRIES:
            raise ValueError(f"retries must be between 0 and {MOST_RETRIES}, not {self.retries}")
        if self.retry not in RETRY_POLICIES:
            raise ValueError(f"retry must be one of {', '.join(RETRY_POLICIES)}, not {self.retry!r}")
        if self.retry != NO_RETRY and not self.retries:
            raise ValueError(f"retry {self.retry!r} needs retries: at most how many for each request")

    def _check_head(self) -> None:
        if not self.method or not METHOD_CHARACTERS.issuperset(self.method):
            raise ValueError(f"method must be capital letters such as GET or POST, not {self.method!r}")
        for name, value in self.headers:
            if name.lower() in OUR_HEADERS:
                raise ValueError(f"header {name!r} is set by the generator itself")
            if not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
                raise ValueError(f"header {name!r} with value {value!r} is not one line of printable ASCII")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Build a phase from its `to_json` form; unknown fields raise `TypeError`."""
        pairs = tuple((name, value) for name, value in fields.get("headers", ()))
        segments = tuple((rate, seconds) for rate, seconds in fields.get("segments", ()))
        return cls(**{**fields, "headers": pairs, "segments": segments})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)


def parse_sources(text: str) -> tuple[str, ...]:
    """Return the addresses that `127.0.0.2` or `127.0.0.2-127.0.0.9` names; `ValueError` names the fault."""
    first, dash, last = text.partition("-")
    begin = ipaddress.ip_address(first.strip())
    end = ipaddress.ip_address(last.strip()) if dash else begin
    if begin.version != end.version or int(end) < int(begin):
        raise ValueError(f"source {text!r} does not go up from one address to another")
    if int(end) - int(begin) >= MOST_SOURCES:
        raise ValueError(f"source {text!r} is more than {MOST_SOURCES} addresses")
    return tuple(str(type(begin)(number)) for number in range(int(begin), int(end) + 1))


def parse_ports(text: str) -> tuple[int, int]:
    """Return first and last port of `40000-40199`; `ValueError` says what is wrong with it."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and 1 <= int(first) < int(last) <= 65535):
        raise ValueError(f"port range {text!r} is not two ports that go up, such as 40000-40199")
    return int(first), int(last)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, not {value}")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a URL says about where to connect and what to ask for."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take an absolute http or https URL apart; `ValueError` says what is wrong with it."""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"URL {url!r} must be printable ASCII without spaces (percent-encode the rest)")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"URL {url!r} cannot be read: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"URL {url!r} must look like http://host:port/path or https://host/path")
        if parts.username is not None:
            raise ValueError(f"URL {url!r} holds a user name: send an Authorization header instead")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if port == 0:
            raise ValueError(f"URL {url!r} names port 0, where nothing can listen")
        return cls(parts.hostname, port or (443 if tls else 80), path, tls)

    @property
    def authority(self) -> str:
        """Host and port as the Host header wants them (RFC 9110, 7.2); default ports are left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"
