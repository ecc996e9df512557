"""What a client sends again, and when."""

from __future__ import annotations

import pytest

from loadtests.load.answer import Answer
from loadtests.load.phase import BACKOFF, BUDGET, IMMEDIATE, NO_RETRY, RETRY_AFTER, Phase
from loadtests.load.retrying import Budget, Retries, backoff_seconds, is_retried, worst_case
from loadtests.load.sample import OUTCOMES, Sample
from tests.support.samples import answered, failed

URL = "http://127.0.0.1:8080/data"

# Outcome, status, reason, whether it is sent again: every outcome there is.
RULE = [
    ("ok", 200, None, False),
    ("ok", 503, None, False),  # --expect 503
    ("status", 429, None, True),
    ("status", 503, None, True),
    ("status", 404, None, False),
    ("status", 500, None, False),
    ("status", 502, None, False),
    ("status", 504, None, False),
    ("connect_error", None, "ECONNREFUSED", True),
    ("connect_error", None, "EADDRNOTAVAIL", False),
    ("connect_error", None, "EMFILE", False),
    ("reset", None, "ENOBUFS", False),
    ("tls_error", None, "ECONNRESET", True),
    ("tls_error", None, "UNEXPECTED_EOF_WHILE_READING", True),
    ("tls_error", None, "CERTIFICATE_VERIFY_FAILED", False),
    ("reset", None, "ECONNRESET", True),
    ("short", None, None, True),
    ("dropped", None, "FIN", True),
    ("malformed", None, None, False),
    ("timeout", None, None, True),
    ("aborted", None, None, False),
    ("not_sent", None, "max_in_flight", False),
]


@pytest.mark.parametrize(("outcome", "status", "reason", "again"), RULE)
def test_what_failed_on_the_way_or_was_told_to_come_later_is_sent_again_and_nothing_else(
    outcome: str, status: int | None, reason: str | None, again: bool
) -> None:
    assert is_retried(outcome, status, reason) is again


def test_the_rule_is_stated_for_every_outcome() -> None:
    assert {outcome for outcome, *_ in RULE} == set(OUTCOMES)


def test_a_backoff_is_doubled_with_each_attempt_up_to_ten_seconds() -> None:
    for attempt in range(1, 101):
        longest = min(0.1 * 2 ** (attempt - 1), 10.0)
        waits = [backoff_seconds(1, request, attempt) for request in range(200)]
        assert 0 <= min(waits) < longest / 10  # full jitter: from zero
        assert longest * 0.9 < max(waits) <= longest


def test_a_backoff_repeats_with_its_seed_and_differs_for_each_attempt_of_each_request() -> None:
    places = [(seed, request, 4) for seed in (1, 2) for request in (1, 2)] + [(1, 1, 5)]
    waits = [backoff_seconds(*place) for place in places]
    assert waits == [backoff_seconds(*place) for place in reversed(places)][::-1]
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize("failing", [1, 2, 9, 10, 11])
def test_a_budget_never_lets_more_than_a_tenth_of_the_requests_be_retries(failing: int) -> None:
    budget = Budget()
    granted = 0
    for number in range(1, 1001):
        budget.deposit()
        granted += number % failing == 0 and budget.withdraw()
        assert granted <= number / 10
    assert granted >= 1000 / 10 - failing


def test_a_budget_saves_up_a_hundred_retries_and_no_more() -> None:
    budget = Budget()
    for _ in range(5000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(500)) == 100


def answer(head: str) -> Answer:
    found = Answer(head_only=False)
    found.feed(f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n{head}\r\n".encode())
    return found


def told(request: int = 1, attempt: int = 1, at: float = 1000.0) -> Sample:
    """A 503 that was complete 4 ms after `at`."""
    return answered(at, status=503)._replace(request=request, attempt=attempt)


@pytest.mark.parametrize("policy", [IMMEDIATE, BACKOFF, RETRY_AFTER])
def test_each_request_has_so_many_retries_at_most(policy: str) -> None:
    retries = Retries(policy, 2, seed=1)
    assert [retries.accept(told(attempt=n), answer("")) for n in (1, 2, 3)] == [True, True, False]
    assert len(retries) == 2


def test_without_a_policy_nothing_is_sent_again() -> None:
    retries = Retries(NO_RETRY, 3, seed=1)
    assert not retries.accept(told(), answer(""))
    assert retries.take(2000) is None


@pytest.mark.parametrize(
    ("policy", "head", "wait"),
    [
        (IMMEDIATE, "Retry-After: 7\r\n", 0.0),
        (BACKOFF, "Retry-After: 7\r\n", backoff_seconds(5, 1, 1)),
        (RETRY_AFTER, "Retry-After: 7\r\n", 7.0),
        (RETRY_AFTER, "retry-after: 0\r\n", 0.0),
        (RETRY_AFTER, "Retry-After: 60\r\n", 60.0),
        (RETRY_AFTER, "Retry-After: 61\r\n", None),
        (RETRY_AFTER, "", backoff_seconds(5, 1, 1)),
        (RETRY_AFTER, "Retry-After: soon\r\n", backoff_seconds(5, 1, 1)),
    ],
)
def test_a_retry_is_due_when_its_policy_says(policy: str, head: str, wait: float | None) -> None:
    retries = Retries(policy, 3, seed=5)
    assert retries.accept(told(at=1000), answer(head)) is (wait is not None)
    if wait is not None:
        due = 1000.004 + wait
        assert retries.next_due == pytest.approx(due)
        assert retries.take(due - 1e-3) is None
        assert retries.take(due + 1e-3) == told(at=1000)
    assert len(retries) == 0


def test_what_got_no_answer_backs_off_under_retry_after() -> None:
    retries = Retries(RETRY_AFTER, 3, seed=5)
    lost = failed(1000, 1.0, "timeout", stood=True)._replace(request=8)
    assert retries.accept(lost, Answer(head_only=False))
    assert retries.next_due == pytest.approx(1001 + backoff_seconds(5, 8, 1))


def test_a_budget_is_shared_by_all_requests() -> None:
    retries = Retries(BUDGET, 3, seed=1)
    accepted = []
    for number in range(1, 31):
        retries.on_request()
        accepted.append(retries.accept(told(request=number), answer("")))
    assert [number for number, again in enumerate(accepted, 1) if again] == [10, 20, 30]


def test_retries_come_back_in_the_order_in_which_they_are_due_each_once() -> None:
    retries = Retries(IMMEDIATE, 1, seed=1)
    for request, at in ((1, 1002.0), (2, 1000.0), (3, 1001.0)):
        retries.accept(told(request=request, at=at), answer(""))
    first = retries.take(1500)
    assert first is not None
    assert [first.request, *(sample.request for sample in retries.rest())] == [2, 3, 1]
    assert (len(retries), retries.take(1e9)) == (0, None)


@pytest.mark.parametrize(
    ("policy", "retries", "attempts"),
    [(NO_RETRY, 0, 100), (IMMEDIATE, 3, 400), (BACKOFF, 1, 200), (BUDGET, 3, 110)],
)
def test_the_worst_case_counts_every_retry_there_can_be(policy: str, retries: int, attempts: int) -> None:
    due = [number / 10 for number in range(100)]
    found = worst_case(due, policy, retries)
    assert len(found) == attempts
    assert found == sorted(found)
    assert set(found) == set(due)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": 101, "retry": "backoff"}, "retries"),
        ({"retries": 1, "retry": "often"}, "retry"),
        ({"retry": "budget"}, "needs retries"),
    ],
)
def test_a_phase_names_what_is_wrong_with_its_retries(fields: dict[str, object], at_fault: str) -> None:
    with pytest.raises(ValueError, match=at_fault):
        Phase(url=URL, rate=1, duration_seconds=1, **fields)  # type: ignore[arg-type]  # a table of fields


def test_a_phase_without_a_policy_has_no_retries_whatever_their_number() -> None:
    phase = Phase(url=URL, rate=1, duration_seconds=1, retries=3)
    assert phase.retries_at_most == 0
    assert Phase.from_json(phase.to_json()) == phase
