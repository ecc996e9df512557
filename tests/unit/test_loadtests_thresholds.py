"""What a run has to reach."""

from typing import Any

import pytest

from loadtests.load.thresholds import Threshold, evaluate

SUMMARY: dict[str, Any] = {
    "latency_seconds": {"p50": 0.004, "p90": 0.01, "p99": 0.1, "p99_9": None, "max": 1.5},
    "error_share": 0.01,
    "achieved_per_second": 199.5,
    "goodput_per_second": 180.0,
}


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("p50<5ms", True),
        ("p50 < 4000us", False),
        ("p50<=4ms", True),
        ("p90<0.011s", True),
        ("p99<100ms", False),
        ("p99<=100ms", True),
        ("max<1s", False),
        ("max>1s", True),
        ("errors<1%", False),
        ("errors<=1%", True),
        ("achieved>=199.5", True),
        ("goodput>=200", False),
        ("goodput>=180/s", True),
        ("p99.9<1h".replace("1h", "3600s"), False),  # no samples, no pass
    ],
)
def test_a_threshold_compares_in_the_unit_of_the_summary(text: str, passed: bool) -> None:
    (result,) = evaluate([Threshold.parse(text)], SUMMARY)
    assert result["passed"] is passed
    assert result["threshold"] == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p99", "is not METRIC<VALUE"),
        ("p99<", "is not METRIC<VALUE"),
        ("p99=100ms", "is not METRIC<VALUE"),
        ("p99<-1ms", "is not METRIC<VALUE"),
        ("", "is not METRIC<VALUE"),
        ("p95<1s", "unknown metric 'p95', choose from p50, p90"),
        ("p99<100", "p99 is measured in us or ms or s, not a bare number"),
        ("errors<1", "errors is measured in %, not a bare number"),
        ("goodput>=1ms", "goodput is measured in no unit or /s, not ms"),
    ],
)
def test_a_threshold_that_cannot_be_read_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below, literally
        Threshold.parse(text)
    assert words in str(caught.value)
