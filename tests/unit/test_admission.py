"""Who may enter: tables of numbers in, decisions out."""

from __future__ import annotations

import math

import pytest

from service.offload.admission import (
    AHEAD_SECONDS,
    FIRST_PROBE_SECONDS,
    LAST_PROBE_SECONDS,
    LIMIT_PER_WORKER,
    MOST_WAITING,
    Admission,
    Before,
    Breaker,
)


@pytest.mark.parametrize(
    ("waiting", "running", "up", "oldest", "deadline", "refused"),
    [
        (0, 0, 2, 0.0, math.inf, None),
        (9, 2, 2, 0.0, math.inf, None),  # (9 + 1) x 40 ms / 2 = 200 ms
        (10, 2, 2, 0.0, math.inf, 1),  # 220 ms
        (9, 2, 1, 0.0, math.inf, 1),  # one worker is being replaced: 400 ms
        (60, 2, 2, 0.0, math.inf, 2),  # 1.22 s - 0.2 s: after two whole seconds
        (5, 2, 2, 0.3, math.inf, 1),  # it should be 120 ms, but the first in the queue says otherwise
        (1, 2, 2, 9.0, math.inf, None),  # one per worker may always wait
        (5, 2, 2, 0.0, 0.15, 1),  # 120 ms + 40 ms
        (5, 2, 2, 0.0, 0.17, None),
        (0, 0, 2, 0.0, 0.03, 1),  # not even with nobody before it
        (3, 0, 0, 0.0, math.inf, None),  # all workers are being replaced
    ],
)
def test_a_request_enters_if_it_can_be_answered_in_time(
    waiting: int, running: int, up: int, oldest: float, deadline: float, refused: int | None
) -> None:
    admission = Admission(2, queue_wait=0.2, seconds=0.04)
    assert refused == admission.retry_after(Before(waiting, running, up, oldest), deadline=deadline)


@pytest.mark.parametrize(
    ("waiting", "running", "up", "seconds", "wait"),
    [
        (0, 0, 2, 0.04, 0.0),
        (9, 2, 2, 0.04, 0.2),
        (9, 2, 1, 0.04, 0.4),
        (3, 0, 0, 0.04, 0.12),  # all workers are being replaced
        (9, 2, 2, None, 0.0),  # nothing has been measured yet
    ],
)
def test_the_wait_is_predicted_from_what_is_before(
    waiting: int, running: int, up: int, seconds: float | None, wait: float
) -> None:
    assert Admission(2, seconds=seconds).wait(Before(waiting, running, up)) == pytest.approx(wait)


@pytest.mark.parametrize(
    ("above", "wait"),
    [
        (0.0, 0.1),
        (1.0, 0.2),  # half of the workers
        (1.8, 1.0),
        (2.0, 2.0),  # with all of them it would never be its turn, and nothing could be told
        (3.0, 2.0),
    ],
)
def test_what_more_urgent_classes_keep_busy_serves_nobody_else(above: float, wait: float) -> None:
    admission = Admission(2, queue_wait=0.2, seconds=0.04)
    assert admission.wait(Before(4, 2, 2, above=above)) == pytest.approx(wait)
    refused = admission.retry_after(Before(4, 2, 2, above=above))
    assert refused == (max(1, math.ceil(wait - 0.2)) if wait > 0.2 + 1e-9 else None)
    assert Admission(2, seconds=0.04).retry_after(Before(4, 2, 2, above=above), deadline=0.15) is None


@pytest.mark.parametrize(
    ("waiting", "waited", "deadline", "refused"),
    [
        (5, 0.08, math.inf, None),  # 120 ms here, 80 in the kernel
        (5, 0.09, math.inf, 1),
        (5, 3.08, math.inf, 1),  # what it has waited says nothing of when to ask again
        (1, 9.0, math.inf, None),  # else a worker would idle because others have waited
        (0, 0.10, 0.15, None),  # 50 ms are left for 40 ms
        (0, 0.12, 0.15, 1),
        (0, 0.16, 0.15, 1),  # its deadline passed before it was accepted
    ],
)
def test_what_a_request_has_waited_before_counts_as_well(
    waiting: int, waited: float, deadline: float, refused: int | None
) -> None:
    admission = Admission(2, queue_wait=0.2, seconds=0.04)
    running = 2 if waiting else 0
    assert refused == admission.retry_after(Before(waiting, running, 2), deadline=deadline, waited=waited)


def test_without_a_bound_everybody_enters_unless_the_deadline_cannot_be_met() -> None:
    admission = Admission(1, seconds=0.04)
    before = Before(10 * MOST_WAITING, 1, 1, oldest=60)
    assert admission.retry_after(before) is None
    assert admission.retry_after(before, deadline=10) == math.ceil((1e5 + 1.5) * 0.04 - 10)
    assert admission.most_waiting() == math.inf


def test_the_queue_is_bounded_before_anything_is_known_and_however_short_tasks_are() -> None:
    for seconds in (None, 1e-6):
        admission = Admission(1, queue_wait=0.2, seconds=seconds)
        assert admission.retry_after(Before(MOST_WAITING - 1, 1, 1)) is None
        assert admission.retry_after(Before(MOST_WAITING, 1, 1)) == 1
        assert admission.most_waiting() == MOST_WAITING


@pytest.mark.parametrize(
    ("share", "seconds", "queue_wait", "most"),
    [
        (1.0, 0.04, 0.2, 10),
        (0.25, 0.04, 0.2, 2.5),
        (0.01, 0.04, 0.2, 1),
        (0.5, 4, 0.2, 1),
        (0.5, 1, math.inf, math.inf),
    ],
)
def test_a_client_has_a_share_of_the_tasks_that_may_wait_and_one_at_least(
    share: float, seconds: float, queue_wait: float, most: float
) -> None:
    assert Admission(2, queue_wait, seconds, client_share=share).most_of_a_client() == pytest.approx(most)


def test_the_service_time_follows_what_is_measured() -> None:
    admission = Admission(2, queue_wait=0.2)
    admission.observe(0.4, 0.3, 10)
    assert admission.seconds == pytest.approx(0.04)
    assert admission.most_waiting() == 10
    for _ in range(50):
        admission.observe(0.004, 0.003, 1)
    assert admission.seconds == pytest.approx(0.004, rel=0.1)
    for _ in range(50):
        admission.observe(4, 4, 1)
    assert admission.most_waiting() == 2, "never less than one for each worker"


@pytest.mark.parametrize(
    ("seconds", "tasks"), [(0.0005, 21), (0.004, 3), (0.01, 2), (0.04, 1), (1e-9, 101), (None, 1)]
)
def test_a_worker_holds_what_it_runs_and_ten_milliseconds_more(seconds: float | None, tasks: int) -> None:
    assert AHEAD_SECONDS == 0.01
    assert Admission(2, seconds=seconds).tasks_per_worker() == tasks


def test_the_breaker_opens_after_deaths_without_a_success_and_probes_until_one() -> None:
    breaker = Breaker(2)
    for _ in range(2 * LIMIT_PER_WORKER):
        assert not breaker.died(0.0)
    assert breaker.retry_after(0.0) is None
    assert breaker.died(0.0)
    assert not breaker.closed
    assert breaker.retry_after(0.0) == 1
    assert breaker.pause == FIRST_PROBE_SECONDS
    assert breaker.retry_after(100.0) == 1, "no request is a probe, however long it is due"
    assert not breaker.died(1.0), "it is open already"
    assert breaker.pause == 2 * FIRST_PROBE_SECONDS
    for _ in range(50):
        breaker.died(1.0)
    assert breaker.pause == LAST_PROBE_SECONDS
    assert breaker.retry_after(1.0) == LAST_PROBE_SECONDS
    assert breaker.succeeded(probe=True)
    assert breaker.retry_after(0.0) is None


def test_a_breaker_that_only_probes_close_waits_longer_each_time() -> None:
    breaker = Breaker(1)
    pauses = []
    for opening in range(4):
        for _ in range(LIMIT_PER_WORKER):
            assert not breaker.died(0.0), "a probe that succeeded forgives the deaths before it"
        assert breaker.died(0.0), opening
        pauses.append(breaker.pause)
        assert breaker.succeeded(probe=True)
    assert pauses == [FIRST_PROBE_SECONDS * 2**times for times in range(4)]
    breaker.succeeded(probe=False)
    assert breaker.pause == FIRST_PROBE_SECONDS


def test_a_success_between_deaths_keeps_the_breaker_closed() -> None:
    breaker = Breaker(1)
    for _ in range(100):
        assert not breaker.died(0.0)
        assert not breaker.succeeded(probe=False)
    assert breaker.closed


def test_a_task_beyond_every_deadline_does_not_shut_everybody_out_for_ever() -> None:
    admission = Admission(1, seconds=0.004, longest=2.0)
    for _ in range(100):
        admission.observe(3600.0, 3600.0, 1)
        assert admission.retry_after(Before(0, 0, 1), deadline=2.0, waited=0.1) is None
    assert admission.retry_after(Before(0, 1, 1), deadline=2.0) is not None
