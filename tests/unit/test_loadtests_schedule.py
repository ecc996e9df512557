"""When requests are meant to start."""

import pytest

from loadtests.load.schedule import intended_offsets


@pytest.mark.parametrize(
    ("rate", "duration", "count"),
    [(20, 20, 400), (0.5, 10, 5), (3, 1, 3), (350, 0.01, 4), (1, 0.4, 0), (1000, 3, 3000)],
)
def test_constant_arrivals_are_as_many_as_rate_times_duration(
    rate: float, duration: float, count: int
) -> None:
    assert len(intended_offsets(rate, duration, "constant", seed=1)) == count


def test_constant_arrivals_begin_at_once_and_never_drift() -> None:
    offsets = intended_offsets(300, 100, "constant", seed=1)
    assert offsets[0] == 0
    assert offsets[-1] == 29_999 / 300
    assert all(offset == n / 300 for n, offset in enumerate(offsets))


def test_poisson_arrivals_repeat_with_their_seed_and_only_with_it() -> None:
    first = intended_offsets(50, 10, "poisson", seed=7)
    assert first == intended_offsets(50, 10, "poisson", seed=7)
    assert first != intended_offsets(50, 10, "poisson", seed=8)


def test_poisson_arrivals_have_the_rate_as_their_mean_and_gaps_as_spread_as_it() -> None:
    offsets = intended_offsets(100, 1000, "poisson", seed=3)
    gaps = [later - earlier for earlier, later in zip([0.0, *offsets], offsets, strict=False)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 100, rel=0.02)
    assert variance**0.5 == pytest.approx(mean, rel=0.02)  # the mark of the exponential distribution


def test_poisson_arrivals_ascend_and_end_before_the_duration() -> None:
    offsets = intended_offsets(200, 5, "poisson", seed=1)
    assert offsets == sorted(offsets)
    assert offsets[0] > 0
    assert offsets[-1] < 5
