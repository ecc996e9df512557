"""What a person sees."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from loadtests.load.facts import Progress
from loadtests.load.live import Display
from loadtests.load.phase import Phase
from loadtests.load.render import render
from loadtests.load.sample import Sample
from loadtests.load.summary import summarise
from loadtests.load.tell import seconds
from loadtests.load.thresholds import Threshold
from tests.support.samples import FACTS as SUMMARY_FACTS

PHASE = Phase(url="http://127.0.0.1:8080/data", rate=100, duration_seconds=3)
FACTS = replace(SUMMARY_FACTS, started_monotonic=0.0, wall_seconds=3.0, interrupted=True)
PROGRESS = [
    Progress(
        elapsed_seconds=tenth / 10,
        duration_seconds=3,
        planned=300,
        fired=tenth * 10,
        connected=tenth * 10,
        in_flight=2,
        outcomes={"ok": tenth * 9, "status_503": tenth, "connect_ECONNREFUSED": 1, "timeout": 3},
    )
    for tenth in range(0, 31, 2)
]


def shown(*, terminal: bool, step: str = "", retried: int = 0) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    with Display(PHASE, console, step) as display:
        for progress in PROGRESS:
            display.update(replace(progress, retried=retried), 12)
    return stream.getvalue()


def test_without_a_terminal_there_is_one_plain_line_per_second() -> None:
    text = shown(terminal=False)
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines()] == ["0/3", "1/3", "2/3", "3/3"]


def test_on_a_terminal_the_counts_are_redrawn_and_taken_away_at_the_end() -> None:
    text = shown(terminal=True)
    assert "\x1b[" in text
    assert "300 of 300" in text
    assert "connect_ECONNREFUSED" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_retries_are_told_beside_what_was_sent_by_the_schedule(terminal: bool) -> None:
    assert f"300{' of 300' if terminal else ''} + 40 retries" in shown(terminal=terminal, retried=40)
    assert "retries" not in shown(terminal=terminal)


def test_a_step_is_told_with_its_rate_first() -> None:
    assert "step 2 of 3: 100/s constant  GET http://" in shown(terminal=True, step="step 2 of 3: ")


def test_a_summary_fits_80_columns_and_25_lines_and_names_its_units() -> None:
    samples = [
        Sample(n / 100, n / 100, n / 100, n / 100, n / 100 + 0.004, "ok", 200, None) for n in range(300)
    ]
    thresholds = [Threshold.parse("p99<1ms"), Threshold.parse("errors<1%")]
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    console.print(render(summarise(samples, FACTS, PHASE, slo_seconds=0.1, thresholds=thresholds)))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 27
    text = "\n".join(lines)
    for words in ("MISSED (interrupted)", "4.00 ms", "p99<1ms", "planned 300 = sent 300", "caution"):
        assert words in text


def test_a_closed_loop_is_called_one_and_nothing_is_said_of_an_offered_rate_or_of_lateness() -> None:
    phase = Phase(url=PHASE.url, clients=8, duration_seconds=3)
    samples = [
        Sample(n / 100, n / 100, n / 100, n / 100, n / 100 + 0.004, "ok", 200, None) for n in range(300)
    ]
    stream = io.StringIO()
    Console(file=stream, width=80).print(render(summarise(samples, FACTS, phase)))
    text = stream.getvalue()
    assert "closed loop, 8 clients  achieved 100.0/s" in text
    assert "service (from sending)" in text
    for words in ("offered 1", "late sending", "due time"):
        assert words not in text


@pytest.mark.parametrize("keep_alive", [True, False])
def test_of_kept_connections_it_is_told_how_many_there_were(keep_alive: bool) -> None:
    samples = [
        Sample(n, n, n, n, n + 0.004, "ok", 200, None, reused=keep_alive and n > 1) for n in range(1, 4)
    ]
    stream = io.StringIO()
    phase = replace(PHASE, keep_alive=keep_alive)
    Console(file=stream, width=80).print(render(summarise(samples, FACTS, phase)))
    assert ("the ledger counts requests; connections 1" in stream.getvalue()) is keep_alive


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0 us"),
        (0.00085, "850 us"),
        (0.00421, "4.21 ms"),
        (0.0421, "42.1 ms"),
        (0.421, "421 ms"),
        (1.2, "1.20 s"),
        (3599.0, "3599 s"),
    ],
)
def test_a_duration_has_three_digits_and_a_fitting_unit(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("retry", "attempts", "words"),
    [
        (
            "backoff",
            2,
            (
                "amplification 2.00 (attempts / requests)",
                "retries backoff, at most 1;",
                "attempts status_503 6",
                "attempts 6 = sent + retries 3 attempts = connected 6 connected = answered 6",
            ),
        ),
        (
            "none",
            1,
            (
                "amplification 1.00 (attempts / requests)",
                "retries none",
                "attempts status_503 3",
                "attempts 3 = sent + retries 0 attempts = connected 3 connected = answered 3",
            ),
        ),
    ],
)
def test_a_summary_of_clients_that_retry_tells_attempts_and_amplification(
    retry: str, attempts: int, words: tuple[str, ...]
) -> None:
    samples = [
        Sample(n, n, n, n, n + 0.004, "status", 503, None, request=n, attempt=k, last=k == attempts)
        for n in range(1, 4)
        for k in range(1, attempts + 1)
    ]
    stream = io.StringIO()
    phase = replace(PHASE, retries=1, retry=retry)
    Console(file=stream, width=80).print(render(summarise(samples, FACTS, phase)))
    text = " ".join(stream.getvalue().split())
    for expected in words:
        assert expected in text
