"""SHIM"""

import dataclasses

from loadtests.load.histogram import quantiles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    max: float | None


def quantiles_of(x):
    return Quantiles(**quantiles(x))


class NS:
    def __init__(self, d):
        self.__dict__.update({k: Quantiles(**v) if isinstance(v, dict) and 'p99_9' in v else v for k, v in d.items()})
