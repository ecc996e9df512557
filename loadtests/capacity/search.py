"""Which load to try next, and between which loads the capacity lies. Pure.

Knows how to search with trials that are wrong now and then. Touches nothing and reads no clock: the caller
asks for a load, tries it, and notes the outcome.

Near its capacity a service passes one trial and fails the next at the same rate. A bisection that believes
every single trial goes wrong for good with the first wrong one (nighthawk#460 describes such a controller).
So every load keeps a probability of being the capacity. A trial multiplies the probabilities above it, or
below it, by the likelihood of its outcome; the next trial is at the median (probabilistic bisection: Horstein
1963, Waeber, Frazier and Henderson 2013; psychophysics does the same with thresholds of perception: QUEST,
Watson and Pelli 1983). The bracket holds nearly all of the probability.

A trial need not hit the load that was asked for: a share of a drifting limit is known only afterwards, and
counts as what it was.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from typing import Final

CELL: Final = 0.002
"""Resolution, of the logarithm of the load."""

REACH: Final = 3.0
"""How far from the start, in logarithms: 20 times more or less."""

SPREAD: Final = 0.006
"""From nearly always passed to nearly always failed, trials of six seconds take about 2 % of the load: a
logistic curve of this scale has 92 % at its centre less 1.5 %."""

LAPSE: Final = 0.03
"""Share of trials that are wrong at any load, by a disturbance that was not noticed."""

FIRST_WIDTH: Final = 0.3
"""The start may be off by a third, or by far more: the prior is a Cauchy curve of this scale."""

CREDIBLE: Final = 0.96
WIDTH: Final = 0.03
"""The bracket holds a probability of `CREDIBLE`, and is complete when it is as narrow as `WIDTH`."""

FAR: Final = 20.0
"""Distance from the load of a trial, in scales, beyond which its curve is flat to a millionth."""

HOLD_SHARPER: Final = 1.5
"""A hold is as long as several trials, so its curve is steeper."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """What to try next. `hold`: for longer, because it would be the result."""

    load: float
    hold: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Bracket:
    """Where the capacity lies. `low`, `high`: None while no trial has passed, or failed. `complete`: narrow
    enough, and confirmed by a hold."""

    low: float | None
    high: float | None
    complete: bool

    @property
    def width(self) -> float:
        """The width as a share of the lower end; inf while an end is missing."""
        return self.high / self.low - 1 if self.low and self.high else math.inf


class Search:
    """A search for the two loads between which the capacity lies.

    `start`: the first load to try; the nearer, the shorter the search. `spread`, `width`: see the constants;
    trials of another kind have others. Raises `ValueError` for a start that is not positive.
    """

    def __init__(self, start: float, *, spread: float = SPREAD, width: float = WIDTH) -> None:
        if not (start > 0 and math.isfinite(start)):
            raise ValueError(f"a search must start from a positive load, not {start}")
        self._start, self._spread, self._width = start, spread, width
        cells = round(REACH / CELL)
        self._places = [cell * CELL for cell in range(-cells, cells + 1)]  # logarithms, from the start
        self._belief = [-math.log1p((place / FIRST_WIDTH) ** 2) for place in self._places]  # a logarithm
        self._passed = self._failed = self._held = False

    def note(self, load: float, *, passed: bool, hold: bool = False) -> None:
        """Take the outcome of a trial at `load`."""
        at = math.log(load / self._start)
        # Likelihood of the outcome, by the distance of the capacity on the side it speaks for, in scales.
        scale = self._spread / (HOLD_SHARPER if hold else 1.0) * (1 if passed else -1)
        sure, wrong = math.log(1 - LAPSE / 2), math.log(LAPSE / 2)
        for index, place in enumerate(self._places):
            far = (place - at) / scale
            if far > FAR:
                self._belief[index] += sure
            elif far < -FAR:
                self._belief[index] += wrong
            else:
                self._belief[index] += math.log(LAPSE / 2 + (1 - LAPSE) / (1 + math.exp(-far)))
        self._passed, self._failed = self._passed or passed, self._failed or not passed
        if hold:
            self._held = passed

    def ask(self) -> Ask | None:
        """What to try next; None when the bracket is complete."""
        low, middle, high = self._quantiles()
        if not (self._passed and self._failed) or high / low - 1 > self._width:
            return Ask(middle)
        return None if self._held else Ask(low, hold=True)

    @property
    def bracket(self) -> Bracket:
        """Where the capacity lies, as far as known."""
        low, _, high = self._quantiles()
        return Bracket(
            low if self._passed else None,
            high if self._failed else None,
            complete=self._passed and self._failed and self.ask() is None,
        )

    def _quantiles(self) -> tuple[float, float, float]:
        """The two loads between which nearly all of the probability lies, and the median between them."""
        most = max(self._belief)
        total = list(itertools.accumulate(math.exp(belief - most) for belief in self._belief))

        def load(share: float) -> float:
            return self._start * math.exp(self._places[bisect.bisect_left(total, share * total[-1])])

        return load((1 - CREDIBLE) / 2), load(0.5), load((1 + CREDIBLE) / 2)
