"""What a run has to reach."""

import math

import pytest

from loadtests.load.thresholds import Measured, Threshold, at_least, parse_seconds


def measured(latencies: list[float], *, failed: int = 0) -> Measured:
    """A run of so many requests, of which the last `failed` were not answered as expected."""
    return Measured(
        latencies=sorted(latencies) + [math.inf] * failed,
        judged=len(latencies) + failed,
        failed=failed,
        achieved_per_second=199.5,
        goodput_per_second=180.0,
    )


# 4 ms at p50, 10 ms at p90, 100 ms from p95 to p99; 0.9 % fail.
RUN = measured([0.004] * 2100 + [0.01] * 1600 + [0.1] * 264, failed=36)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("p50<5ms", "passed"),
        ("p50 < 4000us", "missed"),
        ("p50<=4ms", "passed"),
        ("p90<0.011s", "passed"),
        ("p95<0.05s", "missed"),
        ("p95<=100ms", "passed"),
        ("p99<100ms", "missed"),
        ("p99<=100ms", "passed"),
        ("p99.9<3600s", "missed"),
        ("max<1s", "missed"),
        ("max>1s", "passed"),
        ("errors<1%", "passed"),
        ("errors<=0.8%", "missed"),
        ("errors<=0%", "missed"),
        ("achieved>=199.5", "passed"),
        ("goodput>=200", "missed"),
        ("goodput>=180/s", "passed"),
    ],
)
def test_a_threshold_compares_in_the_unit_of_the_summary(text: str, state: str) -> None:
    result = Threshold.parse(text).evaluate(RUN)
    assert result.state == state
    assert result.passed is (state == "passed")
    assert result.threshold == text


@pytest.mark.parametrize(
    ("text", "needed"),
    [("p50<1s", 6), ("p90<1s", 36), ("p95<1s", 72), ("p99<1s", 368), ("p99.9<1s", 3688),
     ("errors<1%", 300), ("errors<=0.1%", 3000), ("errors<5%", 60)],
)  # fmt: skip
def test_a_threshold_passes_from_its_sample_size_on_and_never_before(text: str, needed: int) -> None:
    enough = Threshold.parse(text).evaluate(measured([0.001] * needed))
    short = Threshold.parse(text).evaluate(measured([0.001] * (needed - 1)))
    none = Threshold.parse(text).evaluate(measured([]))
    assert (enough.state, enough.samples, enough.samples_needed) == ("passed", needed, needed)
    assert (short.state, short.samples) == ("too few samples", needed - 1)
    assert (none.state, none.passed) == ("too few samples", False)


@pytest.mark.parametrize("text", ["max<1s", "errors<=0%"])
def test_what_is_said_of_this_run_alone_needs_one_sample(text: str) -> None:
    assert Threshold.parse(text).evaluate(measured([0.001])).state == "passed"
    assert Threshold.parse(text).evaluate(measured([])).state == "too few samples"


@pytest.mark.parametrize(
    ("text", "slow", "failed", "state"),
    [
        ("p99<100ms", 1, 0, "too few samples"),  # one in twenty comes about in 18 % of good runs
        ("p99<100ms", 2, 0, "missed"),  # two in 1.7 %
        ("p99<100ms", 1, 1, "missed"),
        ("p50<100ms", 11, 0, "missed"),  # enough samples for a median: the plain comparison
        ("errors<5%", 0, 3, "too few samples"),  # 7.5 %
        ("errors<5%", 0, 4, "missed"),  # 1.6 %
        ("p99>100ms", 0, 0, "too few samples"),
        ("p99>100ms", 1, 0, "too few samples"),
    ],
)
def test_twenty_requests_can_be_enough_to_miss(text: str, slow: int, failed: int, state: str) -> None:
    run = measured([1.0] * slow + [0.001] * (20 - slow - failed), failed=failed)
    assert Threshold.parse(text).evaluate(run).state == state


@pytest.mark.parametrize(
    ("successes", "count", "share", "probability"),
    [(0, 20, 0.01, 1.0), (1, 20, 0.01, 1 - 0.99**20), (20, 20, 0.5, 0.5**20), (1, 0, 0.5, 0.0),
     (3, 3, 1.0, 1.0), (1, 9, 0.0, 0.0), (300, 3000, 0.5, 1.0)],
)  # fmt: skip
def test_the_tail_of_the_binomial_distribution(
    successes: int, count: int, share: float, probability: float
) -> None:
    assert at_least(successes, count, share) == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p99", "is not METRIC<VALUE"),
        ("p99<", "is not METRIC<VALUE"),
        ("p99=100ms", "is not METRIC<VALUE"),
        ("p99<-1ms", "is not METRIC<VALUE"),
        ("", "is not METRIC<VALUE"),
        ("p98<1s", "unknown metric 'p98', choose from p50, p90, p95"),
        ("p99<100", "p99 is measured in us or ms or s, not a bare number"),
        ("errors<1", "errors is measured in %, not a bare number"),
        ("goodput>=1ms", "goodput is measured in no unit or /s, not ms"),
    ],
)
def test_a_threshold_that_cannot_be_read_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below, literally
        Threshold.parse(text)
    assert words in str(caught.value)


def test_a_duration_has_a_unit() -> None:
    assert [parse_seconds(text) for text in ("100ms", "1.5s", " 250 us ")] == pytest.approx(
        [0.1, 1.5, 0.00025]
    )
    for text in ("100", "ms", "-1s", "0s", "1%", "1/s", ""):
        with pytest.raises(ValueError, match="is not a duration such as 100ms"):
            parse_seconds(text)
