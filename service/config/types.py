"""The types of settings: numbers with their bounds, words that stand for one, networks, urgencies.

Knows pydantic's annotations. Reads nothing.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import Field

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
MOST = 2**31 - 1
Positive = Annotated[int, Field(ge=1, le=MOST)]


@dataclass(frozen=True)
class Keyword:
    """A word for a value that is no number: typed in its place, and shown.

    text: the word.
    value: what it stands for.
    """

    text: str
    value: float | tuple[()] | None


NONE = Keyword("none", None)
PerClient = Annotated[Positive | None, Keyword("derived", None), Keyword("off", MOST)]
SecondsOrOff = Annotated[float, Keyword("off", math.inf), Field(gt=0)]
"""A bound in seconds. The keyword "off" is infinity: no bound."""

Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], Keyword("none", ())]
"""Typed with commas between them."""


@dataclass(frozen=True)
class RouteUrgency:
    """The urgency, 0 to 7, of the requests of one route."""

    route: str
    urgency: int

    @classmethod
    def read(cls, typed: str) -> Self:
        """As `str` writes it.

        Raises:
            ValueError: it is not of that form; a sentence for an operator.
        """
        found = re.fullmatch(r"(/[^\s,]*)=([0-7])", typed)
        if found is None:
            raise ValueError(f"must be ROUTE=URGENCY, /data=0 to /data=7, or none, not {typed!r:.80}")
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.route}={self.urgency}"


RouteUrgencies = Annotated[tuple[RouteUrgency, ...], Keyword("none", ())]
"""Typed with commas between them."""


def cores() -> int:
    """Number of cores that this process may run on: an affinity mask and a cpuset count, a CPU quota does
    not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = cores()

HOST = r"^[^\s/]+$"  # anything that a resolver may know, but no URL
FUNCTION = r"^[\w.]+:\w+$"
SHAPES = {HOST: "a name or an address", FUNCTION: "package.module:function"}
"""Each pattern in words, for messages."""
