"""What is compared: designs, loads, and the order of the blocks. Pure.

Knows how rates follow from the service demand S, and how an order follows from a seed. Touches nothing and
reads no clock, so the same calibration and seed always give the same plan.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

OURS: Final = "offloop"
RIVAL: Final = "bounded"
"""The usual design with a bound on requests in flight: the one that offloop must beat."""
REFERENCE: Final = "hyper-bounded"
"""The same without Python: what the machine can do."""

TITLES: Final = {
    OURS: "offloop",
    RIVAL: "process pool, 64 max",
    "pool": "aiohttp, process pool",
    "inline": "aiohttp, inline",
    "loky": "loky, 64 max",
    "anyio": "anyio.to_process",
    "anyio-bounded": "anyio, 64 max",
    "fastapi": "FastAPI on uvicorn",
    "gunicorn": "gunicorn, sync",
    "hyper": "hyper, spawn_blocking",
    REFERENCE: "hyper, 64 max",
}
IN_RUST: Final = ("hyper", REFERENCE)  # built by cargo.py; the others are Python

MOST_PER_SECOND: Final = 3500.0
"""What one generator can offer on time while it shares two cores with the design: at about 190 us of CPU per
request it uses two thirds of a core. At 4,000/s it uses three quarters: too close to the 80 % at which a
block is void."""

GIVE_UP_SECONDS: Final = 1.0
ALPHA: Final = 0.05  # of each interval by itself
FEWEST_PAIRS: Final = 6
"""With fewer the exact interval at 95 % is infinite: 2 of the 2**5 signings of five ranks exceed 5 %."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the calibration found: `work_units` take `s_seconds` of CPU."""

    work_ms: float  # as ordered
    work_units: int
    s_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One offered rate, `times` the limit, cores / S."""

    work_ms: float
    times: float
    rate_per_second: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole comparison. A block sends for `warm_seconds`, not measured, and for `measured_seconds`."""

    cores: int
    designs: tuple[str, ...]
    works: tuple[Work, ...]
    times: tuple[float, ...]
    cycles: int
    warm_seconds: float
    measured_seconds: float
    seed: int

    def loads(self, work: Work) -> tuple[Load, ...]:
        """The ordered multiples of the limit, as far as they can be offered on time.

        The most that can be offered takes the place of all that cannot: with little work per request that
        is still an overload, because the rest of a request costs more than its work.
        """
        limit = self.cores / work.s_seconds
        offerable = dict.fromkeys(min(times, MOST_PER_SECOND / limit) for times in self.times)
        return tuple(
            Load(work_ms=work.work_ms, times=round(times, 3), rate_per_second=round(times * limit, 1))
            for times in offerable
        )

    def orders(self, load: Load) -> tuple[tuple[str, ...], ...]:
        """The order of the blocks of each cycle; every other cycle mirrors the one before.

        So a machine that becomes slower or faster favours no design. Offloop is in the middle, next to its
        rival: the speed of the machine changes within half a minute, so a pair is the more precise, the
        closer in time its two blocks are.
        """
        draw = random.Random(f"{self.seed} {load.work_ms} {load.times:.3f}")
        found: list[tuple[str, ...]] = []
        while len(found) < self.cycles:
            drawn = _drawn(self.designs, draw)
            found += [drawn, drawn[::-1]]
        return tuple(found[: self.cycles])

    @property
    def block_count(self) -> int:
        """The number of blocks if none is repeated."""
        return sum(len(self.loads(work)) for work in self.works) * self.cycles * len(self.designs)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read a plan back; unknown or missing fields raise `TypeError`."""
        works = tuple(Work(**work) for work in fields["works"])
        tuples = {"designs": tuple(fields["designs"]), "times": tuple(fields["times"])}
        return cls(**{**fields, **tuples, "works": works})


def with_ours(designs: Iterable[str]) -> tuple[str, ...]:
    """The designs, each once, with offloop among them, which all are compared with."""
    return tuple(dict.fromkeys((OURS, *designs)))


def _drawn(designs: Sequence[str], draw: random.Random) -> tuple[str, ...]:
    others = [design for design in designs if design not in (OURS, RIVAL, REFERENCE)]
    draw.shuffle(others)
    middle = [design for design in (RIVAL, OURS, REFERENCE) if design in designs]
    if draw.random() < 0.5:
        middle.reverse()
    half = len(others) // 2
    return (*others[:half], *middle, *others[half:])
