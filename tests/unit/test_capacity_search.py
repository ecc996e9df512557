"""The search finds a capacity among trials that are wrong now and then, at loads that nobody hit."""

from __future__ import annotations

import math
import random

import pytest

from loadtests.capacity.search import Search

MOST_TRIALS = 40


def passes(random_: random.Random, load: float, truth: float, blur: float) -> bool:
    """Whether a trial at `load` passes; with a blur of 0.5 % one 1 % above the truth still does in 12 %."""
    if not blur:
        return load <= truth
    return random_.random() < 1 / (1 + math.exp((load / truth - 1) / blur))


def searched(start: float, truth: float, blur: float, seed: int, scatter: float = 0.0) -> tuple[Search, int]:
    """A search to its end; `scatter`: by how much a trial misses the load that was asked for."""
    random_, search = random.Random(seed), Search(start)
    for trial in range(MOST_TRIALS):
        if (ask := search.ask()) is None:
            return search, trial
        load = ask.load * math.exp(random_.gauss(0, scatter)) if scatter else ask.load
        search.note(load, passed=passes(random_, load, truth, blur), hold=ask.hold)
    return search, MOST_TRIALS


def holds(search: Search, truth: float) -> bool:
    bracket = search.bracket
    assert bracket.low is not None
    assert bracket.high is not None
    return bracket.low <= truth <= bracket.high


@pytest.mark.parametrize("start", [25.0, 150.0, 200.0, 260.0, 2000.0])
@pytest.mark.parametrize("truth", [200.0, 187.3])
def test_an_exact_capacity_is_bracketed_within_two_per_cent(start: float, truth: float) -> None:
    search, trials = searched(start, truth, 0.0, 1)
    bracket = search.bracket
    assert holds(search, truth)
    assert bracket.complete
    assert bracket.low is not None
    assert bracket.high is not None
    assert truth / bracket.low <= 1.02
    assert bracket.high / truth <= 1.02
    assert trials <= 20


@pytest.mark.parametrize("scatter", [0.0, 0.1])
def test_the_truth_lies_in_38_of_40_brackets(scatter: float) -> None:
    found = [searched(170.0, 200.0, 0.0045, seed, scatter) for seed in range(40)]
    assert sum(holds(search, 200.0) for search, _ in found) >= 38
    assert sum(search.bracket.width <= 0.05 for search, _ in found) >= 38


def test_one_wrong_trial_does_not_lead_it_astray() -> None:
    search = Search(170.0)
    for trial in range(MOST_TRIALS):
        if (ask := search.ask()) is None:
            break
        search.note(ask.load, passed=(ask.load <= 200.0) != (trial == 2), hold=ask.hold)
    assert holds(search, 200.0)


def test_the_answer_is_held_before_it_is_one() -> None:
    search, asked, lows = Search(100.0), [], []
    while (ask := search.ask()) is not None:
        asked.append(ask)
        lows.append(search.bracket.low)
        search.note(ask.load, passed=ask.load <= 100.0, hold=ask.hold)
    assert [ask.hold for ask in asked] == [False] * (len(asked) - 1) + [True]
    assert asked[-1].load == lows[-1], "at the lower end, which nothing else has shown to hold"


def test_a_hold_that_fails_moves_the_bracket_down() -> None:
    search = Search(100.0)
    while (ask := search.ask()) is not None and not ask.hold:
        search.note(ask.load, passed=ask.load <= 100.0)
    assert ask is not None
    before = search.bracket.low
    search.note(ask.load, passed=False, hold=True)
    after = search.bracket
    assert before is not None
    assert after.low is not None
    assert after.low < before
    assert not after.complete


def test_an_end_that_nothing_was_found_for_is_missing() -> None:
    search = Search(100.0)
    assert (search.bracket.low, search.bracket.high) == (None, None)
    search.note(100.0, passed=True)
    assert search.bracket.high is None
    assert search.bracket.low is not None
    assert math.isinf(search.bracket.width)


@pytest.mark.parametrize("start", [0.0, -1.0, math.nan, math.inf])
def test_a_search_starts_from_a_load(start: float) -> None:
    with pytest.raises(ValueError, match="positive load"):
        Search(start)
