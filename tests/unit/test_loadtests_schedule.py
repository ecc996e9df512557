"""When requests are meant to start."""

import math
from typing import Any

import pytest

from loadtests.load.phase import Phase
from loadtests.load.schedule import RETRY_SECONDS, ClosedClients, OpenSchedule, intended_offsets, offsets_of


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


def test_an_open_schedule_gives_out_what_is_due_however_late_and_nothing_else() -> None:
    schedule = OpenSchedule([0.0, 0.5, 1.0, 9.0], started=100.0)
    assert schedule.take(99.9) is None
    assert [schedule.take(101.0) for _ in range(4)] == [100.0, 100.5, 101.0, None]
    assert (schedule.next_due, schedule.never_due(), schedule.finished) == (109.0, [109.0], False)
    assert schedule.take(200.0) == 109.0
    assert (schedule.next_due, schedule.planned, schedule.finished) == (math.inf, 4, True)


def test_an_open_schedule_never_hears_of_answers() -> None:
    schedule = OpenSchedule([0.0, 1.0], started=0.0)
    schedule.take(0.0)
    schedule.on_ended(0.5, stood=True)
    assert schedule.take(0.5) is None


def test_a_closed_client_sends_when_its_last_connection_has_ended_and_not_before() -> None:
    clients = ClosedClients(2, end=10.0)
    assert [clients.take(1.0) for _ in range(3)] == [1.0, 1.0, None]
    assert clients.next_due == math.inf
    clients.on_ended(3.5, stood=True)
    assert clients.next_due == 3.5
    assert [clients.take(3.6) for _ in range(2)] == [3.6, None]
    assert (clients.planned, clients.never_due(), clients.finished) == (3, (), False)


def test_closed_clients_send_nothing_after_the_end() -> None:
    clients = ClosedClients(2, end=10.0)
    clients.take(1.0)
    clients.on_ended(9.9, stood=True)
    assert clients.take(10.0) is None
    assert clients.finished
    clients.on_ended(11.0, stood=True)  # what was in flight may still end
    assert clients.take(11.0) is None
    assert clients.planned == 1


def test_a_closed_client_that_was_refused_comes_back_after_a_pause() -> None:
    clients = ClosedClients(1, end=10.0)
    clients.take(1.0)
    clients.on_ended(1.0, stood=False)
    assert clients.take(1.0 + RETRY_SECONDS / 2) is None
    assert clients.take(1.0 + RETRY_SECONDS) == 1.0 + RETRY_SECONDS


def segments(*parts: tuple[float, float], **fields: Any) -> Phase:
    url, seconds = "http://127.0.0.1:1/", sum(length for _, length in parts)
    return Phase(url=url, segments=parts, duration_seconds=seconds, **fields)


def test_segments_follow_each_other_each_with_the_constant_gaps_of_its_own_rate() -> None:
    assert offsets_of(segments((2, 1.5), (10, 0.3), (1, 2))) == pytest.approx(
        [0, 0.5, 1.0, 1.5, 1.6, 1.7, 1.8, 2.8]
    )


def test_random_arrivals_of_two_segments_of_one_rate_do_not_repeat() -> None:
    offsets = offsets_of(segments((50, 10), (50, 10), arrivals="poisson", seed=7))
    first = intended_offsets(50, 10, "poisson", seed=7)
    assert offsets[: len(first)] == first
    again = [offset - 10 for offset in offsets[len(first) :]]
    assert again != pytest.approx(first[: len(again)])
    assert all(0 < offset < 10 for offset in again)


def test_a_load_of_one_rate_is_one_segment_and_a_closed_one_has_no_moments() -> None:
    one = Phase(url="http://127.0.0.1:1/", rate=20, duration_seconds=2)
    assert offsets_of(one) == offsets_of(segments((20, 2)))
    assert offsets_of(Phase(url=one.url, clients=1, duration_seconds=2)) == []
