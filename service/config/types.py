"""The types of settings: numbers with their bounds, words that stand for one, networks.

Knows pydantic's annotations. Reads nothing.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

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


def cores() -> int:
    """Number of cores that this process may run on: an affinity mask and a cpuset count, a CPU quota does
    not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = cores()

HOST = r"^[^\s/]+$"  # anything that a resolver may know, but no URL
FUNCTION = r"^[\w.]+:\w+$"
SHAPES = {HOST: "a name or an address", FUNCTION: "package.module:function"}
"""Each pattern in words, for messages."""
