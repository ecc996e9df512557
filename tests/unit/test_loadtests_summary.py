"""From samples to a verdict, on samples made by hand."""

from dataclasses import replace

import pytest

from loadtests.load.phase import Phase
from loadtests.load.results import ClientLedger
from loadtests.load.sample import Sample
from loadtests.load.summary import ledger, summarise
from loadtests.load.thresholds import Threshold
from tests.support.samples import (
    EVERY_KIND,
    FACTS,
    PHASE,
    RETRYING,
    answered,
    failed,
    retried,
    steady,
    unsent,
)


def closes(books: ClientLedger) -> bool:
    """Whether its equations hold: in requests, in attempts, and in attempts that connected."""
    never_connected = books.connect_failed + books.connect_timeout + books.connect_aborted
    return (
        books.planned == books.sent + books.not_sent
        and books.attempts == books.connected + never_connected
        and books.connected == books.answered + books.unanswered
    )


def test_a_steady_run_is_summed_up_in_rates_and_quantiles() -> None:
    summary = summarise(steady(), FACTS, PHASE)
    assert summary.state == "ok"
    assert summary.offered_per_second == 100
    assert summary.achieved_per_second == 100
    assert summary.goodput_per_second == 100
    assert summary.error_share == 0
    assert summary.latency_seconds.p99 == pytest.approx(0.004, rel=2e-3)
    assert summary.connect_seconds.max == pytest.approx(0.001, rel=2e-3)
    assert summary.lateness_seconds.max == 0
    assert summary.outcomes == {"ok": 1000}
    assert summary.generator.cpu_share == pytest.approx(0.1)


def test_latency_counts_from_the_intended_time_and_service_from_the_start() -> None:
    summary = summarise(steady(took=0.5, late=0.02), FACTS, PHASE)
    assert summary.latency_seconds.p50 == pytest.approx(0.52, rel=2e-3)
    assert summary.service_seconds.p50 == pytest.approx(0.5, rel=2e-3)
    assert summary.lateness_seconds.p50 == pytest.approx(0.02, rel=2e-3)


def test_the_ledger_sums_up_line_by_line() -> None:
    books = ledger(EVERY_KIND)
    assert books == ClientLedger(
        planned=13, sent=11, not_sent=2, attempts=11, connected=8, connections=8,
        connect_failed=1, connect_timeout=1, connect_aborted=1,
        answered=2, unanswered=6,
    )  # fmt: skip
    assert closes(books)


def kept(count: int = 1000) -> list[Sample]:
    """The same steady run, every tenth request on a new connection, the others where an earlier one was."""
    return [
        sample._replace(local_port=40_000 + n // 10, secured=1000 + n / 100 + 0.002)
        if n % 10 == 0
        else sample._replace(local_port=40_000 + n // 10, connected=sample.started, reused=True)
        for n, sample in enumerate(steady(count))
    ]


def test_of_kept_connections_the_ledger_counts_requests_and_connections_beside_them() -> None:
    summary = summarise(kept(), FACTS, replace(PHASE, keep_alive=True))
    books = summary.ledger
    assert (books.planned, books.sent, books.connected, books.answered) == (1000,) * 4
    assert books.connections == summary.ports.connections == summary.ports.distinct == 100
    assert summary.keep_alive


def test_of_kept_connections_only_new_ones_have_times_to_connect() -> None:
    summary = summarise(kept(), replace(FACTS, late_port_parity=1), replace(PHASE, keep_alive=True))
    assert summary.connect_seconds.p50 == pytest.approx(0.001)
    assert summary.tls_seconds.p50 == pytest.approx(0.001)
    assert summary.first_byte_seconds.p50 == pytest.approx(0.004)  # from the start
    assert summary.first_byte_seconds.p50 != summary.connect_seconds.p50
    assert summary.ports.half_gone_after == 2  # connections, not requests


def test_a_connection_that_was_dropped_is_a_failure_and_told() -> None:
    dropped = failed(1009, 0, "dropped", "FIN", stood=True)._replace(reused=True)
    summary = summarise([*kept(), dropped], FACTS, replace(PHASE, keep_alive=True))
    assert (summary.infinitely_late, summary.outcomes["dropped"], summary.ledger.unanswered) == (1, 1, 1)
    assert any(caution.startswith("1 requests went out on a kept") for caution in summary.cautions)


def test_outcomes_add_up_to_what_was_planned() -> None:
    outcomes = summarise(EVERY_KIND, FACTS, PHASE).outcomes
    assert sum(outcomes.values()) == len(EVERY_KIND)
    assert outcomes["status_503"] == outcomes["connect_ECONNREFUSED"] == 1
    assert outcomes["timeout"] == outcomes["aborted"] == outcomes["not_sent"] == 2


def test_a_request_that_failed_waits_for_ever_in_the_latencies() -> None:
    samples = steady(980) + [failed(1009.8 + n / 100, 10, "timeout", stood=True) for n in range(20)]
    summary = summarise(samples, FACTS, PHASE)
    assert summary.latency_seconds.p95 == pytest.approx(0.004)
    assert summary.latency_seconds.p99 is summary.service_seconds.p99 is None
    assert summary.infinitely_late == 20
    assert summary.error_share == 0.02
    assert summary.answered_latency_seconds.max == pytest.approx(0.004)


def test_a_refusal_within_a_millisecond_is_no_fast_answer() -> None:
    samples = [answered(1000 + n / 100, took=0.001, status=503 if n % 5 < 3 else 200) for n in range(1000)]
    thresholds = [Threshold.parse("p99<100ms"), Threshold.parse("max<1s"), Threshold.parse("p50<1s")]
    summary = summarise(samples, FACTS, PHASE, thresholds=thresholds)
    assert summary.state == "missed"
    assert [(result.state, result.observed) for result in summary.thresholds] == [("missed", None)] * 3


def test_a_request_that_was_held_back_got_no_answer_either() -> None:
    samples = steady(900) + [unsent(1009 + n / 100, "max_in_flight") for n in range(100)]
    summary = summarise(samples, FACTS, PHASE, thresholds=[Threshold.parse("p99<1s")])
    assert summary.latency_seconds.p99 is None
    assert summary.service_seconds.p99 == pytest.approx(0.004)  # it was never sent
    assert summary.state == "missed"


def test_what_was_aborted_with_the_run_is_no_failure() -> None:
    samples = [*steady(900), failed(1009, 0.3, "aborted", stood=True)]
    summary = summarise(samples, replace(FACTS, interrupted=True, wall_seconds=9.3), PHASE)
    assert summary.infinitely_late == 0
    assert summary.latency_seconds.max == pytest.approx(0.3)


def test_errors_are_a_share_of_what_came_due_and_was_not_aborted() -> None:
    # 13 planned, 2 aborted and 1 never due: of 10 only one was answered 200.
    assert summarise(EVERY_KIND, FACTS, PHASE).error_share == 0.9


def test_answers_after_the_end_of_the_window_are_no_capacity() -> None:
    # Ten a second too many for the server: the queue is answered during two seconds after the end.
    samples = [answered(1000 + n / 100, took=0.002 * n) for n in range(1000)]
    summary = summarise(samples, FACTS, PHASE)
    inside = sum(n / 100 + 0.002 * n <= 10 for n in range(1000))
    assert summary.achieved_per_second == inside / 10
    assert summary.outcomes == {"ok": 1000}


def test_goodput_counts_answers_within_the_slo_from_the_intended_time() -> None:
    samples = steady(500) + [answered(1005 + n / 100, took=0.09, late=0.02) for n in range(400)]
    summary = summarise(samples, FACTS, PHASE, slo_seconds=0.1)
    assert summary.achieved_per_second == 90
    assert summary.goodput_per_second == 50


def test_a_stopped_run_is_measured_over_the_time_it_had() -> None:
    samples = steady(400) + [unsent(1004 + n / 100, "stopped") for n in range(600)]
    summary = summarise(samples, replace(FACTS, interrupted=True, wall_seconds=4.0), PHASE)
    assert summary.interrupted is True
    assert summary.offered_per_second == 100
    assert summary.achieved_per_second == 100
    assert summary.error_share == 0


@pytest.mark.parametrize(
    ("late", "took", "state"),
    [
        (0.009, 0.004, "ok"),  # under the floor
        (0.020, 0.004, "invalid"),  # over the floor, and most of the latency is our own doing
        (0.020, 0.300, "ok"),  # over the floor, but lost in what the server took
        (0.050, 0.300, "invalid"),
    ],
)
def test_a_late_generator_invalidates_a_run_when_it_distorts_the_figures(
    late: float, took: float, state: str
) -> None:
    assert summarise(steady(late=late, took=took), FACTS, PHASE).state == state


@pytest.mark.parametrize(
    ("late", "state"), [(0.009, "ok"), (0.020, "invalid")], ids=["within the floor", "above it"]
)
def test_a_generator_that_looks_late_at_answers_invalidates_a_run(late: float, state: str) -> None:
    samples = [sample._replace(receive_lateness_seconds=late) for sample in steady()]
    summary = summarise(samples, FACTS, PHASE)
    assert summary.receive_lateness_seconds.p99 == late
    assert summary.state == state


@pytest.mark.parametrize(("cpu_seconds", "state"), [(7.9, "ok"), (8.1, "invalid")])
def test_a_generator_without_cpu_to_spare_invalidates_a_run(cpu_seconds: float, state: str) -> None:
    assert summarise(steady(), replace(FACTS, sending_cpu_seconds=cpu_seconds), PHASE).state == state


def test_a_generator_that_was_saturated_while_it_sent_cannot_hide_that_by_waiting() -> None:
    facts = replace(FACTS, wall_seconds=20.0, cpu_seconds=9.5, sending_seconds=10.0, sending_cpu_seconds=9.5)
    summary = summarise(steady(), facts, PHASE)
    assert summary.generator.cpu_share == pytest.approx(0.95)  # and not 9.5 of 20 s
    assert "95% of its one core while it sent" in summary.invalid_because[0]


def test_a_saturated_second_is_named_though_the_mean_is_calm() -> None:
    summary = summarise(steady(), replace(FACTS, busiest_second_cpu_share=0.97), PHASE)
    assert summary.state == "ok"
    assert any("busiest second the generator used 97%" in caution for caution in summary.cautions)


def test_a_closed_loop_offers_nothing_and_is_never_late() -> None:
    phase = Phase(url=PHASE.url, clients=3, duration_seconds=10)
    summary = summarise(steady(), FACTS, phase)
    assert summary.offered_per_second is summary.lateness_seconds.max is None
    assert summary.achieved_per_second == 100
    assert any("coordinated omission" in caution for caution in summary.cautions)


def test_connections_that_the_server_left_open_are_named() -> None:
    summary = summarise(steady(), replace(FACTS, not_closed_by_server=7), PHASE)
    assert summary.not_closed_by_server == 7
    assert any("7 connections were left open" in caution for caution in summary.cautions)


def test_other_statuses_that_were_expected_succeed_under_their_own_name() -> None:
    samples = [sample._replace(status=204) if n % 2 else sample for n, sample in enumerate(steady())]
    summary = summarise(samples, FACTS, replace(PHASE, expect="2xx"))
    assert summary.outcomes == {"ok": 500, "ok_204": 500}
    assert summary.achieved_per_second == 100
    assert summary.error_share == 0


@pytest.mark.parametrize("errno_name", ["EADDRNOTAVAIL", "EADDRINUSE", "EMFILE", "ENFILE"])
def test_an_error_of_this_machine_invalidates_a_run(errno_name: str) -> None:
    samples = [*steady(), failed(1009, 0, "connect_error", errno_name, stood=False)]
    summary = summarise(samples, FACTS, PHASE)
    assert summary.state == "invalid"
    assert errno_name in summary.invalid_because[0]


def test_an_error_of_the_server_does_not_invalidate_a_run() -> None:
    samples = [*steady(), failed(1009, 0, "connect_error", "ECONNREFUSED", stood=False)]
    assert summarise(samples, FACTS, PHASE).state == "ok"


def test_a_missed_threshold_is_missed_and_an_invalid_run_is_invalid_before_that() -> None:
    thresholds = [Threshold.parse("p99<1ms"), Threshold.parse("errors<1%")]
    summary = summarise(steady(), FACTS, PHASE, thresholds=thresholds)
    assert summary.state == "missed"
    assert [result.passed for result in summary.thresholds] == [False, True]
    assert summarise(steady(late=0.1), FACTS, PHASE, thresholds=thresholds).state == "invalid"


def test_a_run_too_short_for_its_thresholds_is_invalid_and_says_what_it_lacks() -> None:
    thresholds = [Threshold.parse("p99<100ms"), Threshold.parse("errors<1%"), Threshold.parse("max<1s")]
    summary = summarise(steady(20), FACTS, PHASE, thresholds=thresholds)
    assert summary.state == "invalid"
    assert summary.invalid_because == (
        "too few samples to judge p99<100ms: 20 of 368",
        "too few samples to judge errors<1%: 20 of 300",
    )
    assert [result.state for result in summary.thresholds] == ["too few samples"] * 2 + ["passed"]


def test_what_a_short_run_has_found_out_comes_before_what_it_has_not() -> None:
    thresholds = [Threshold.parse("p99<100ms"), Threshold.parse("max<1ms")]
    summary = summarise(steady(20), FACTS, PHASE, thresholds=thresholds)
    assert summary.state == "missed"
    assert summary.invalid_because == ()


def test_goodput_without_an_slo_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="needs --slo"):
        summarise(steady(), FACTS, PHASE, thresholds=[Threshold.parse("goodput>=10")])


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (steady(300), "300 samples are too few"),
        ([*steady(), answered(1009, status=500)], "of the requests failed"),
        ([*steady(), unsent(1009, "max_in_flight")], "1 requests were held back by --max-in-flight"),
        ([*steady(), failed(1009, 0.2, "timeout", stood=False)], "of the requests failed"),
        ([*steady(), answered(1009, late=0.2)], "stood still once for 200 ms"),
        ([*steady(), Sample(1009, 1009, 1010.1, 1010.2, 1010.2, "ok", 200, None)], "SYN retransmissions"),
    ],
)
def test_a_reader_is_told_what_the_figures_hide(samples: list[Sample], words: str) -> None:
    assert any(words in caution for caution in summarise(samples, FACTS, PHASE).cautions)


def test_an_address_nobody_listens_on_is_named_with_errno_and_remedy() -> None:
    samples = [failed(1000 + n / 100, 0, "connect_error", "ECONNREFUSED", stood=False) for n in range(20)]
    sentence = summarise(samples, replace(FACTS, unreachable=True), PHASE).unreachable
    assert sentence is not None
    assert sentence.startswith("no connection to 127.0.0.1:8080: ECONNREFUSED, nothing listens")


def test_a_run_that_sent_nothing_is_summed_up_all_the_same() -> None:
    facts = replace(FACTS, interrupted=True, wall_seconds=0.001)
    summary = summarise([unsent(1000, "stopped")], facts, PHASE)
    assert summary.latency_seconds.p99 is None
    assert summary.error_share is None
    assert summary.offered_per_second == 0


def test_a_stall_shows_in_the_open_load_as_arithmetic_demands() -> None:
    """Coordinated omission with a known answer: 100/s for 10 s, the server stands still for one of them.

    The hundred requests due in that second wait 1.00, 0.99, ... 0.01 s. One per cent of a thousand
    is ten, so the p99 is the eleventh longest wait: 0.90 s. A closed loop of one client would have
    sent a single request into the stall, and its p99 would be the ordinary 4 ms.
    """
    begin, end = 1005.0, 1006.0
    open_load = [
        answered(due, took=max(0.004, end - due)) if begin <= due < end else answered(due)
        for due in (1000 + n / 100 for n in range(1000))
    ]
    closed_loop = [*steady(999), answered(begin, took=1.0)]
    assert summarise(open_load, FACTS, PHASE).latency_seconds.p99 == pytest.approx(0.90, abs=0.011)
    assert summarise(closed_loop, FACTS, PHASE).latency_seconds.p99 == pytest.approx(0.004, rel=2e-3)


def test_the_ledger_closes_by_request_and_by_attempt() -> None:
    books = ledger(retried())
    assert books == ClientLedger(
        planned=1000, sent=1000, not_sent=0, attempts=1140, connected=1100, connections=1100,
        connect_failed=0, connect_timeout=40, connect_aborted=0,
        answered=1080, unanswered=20,
    )  # fmt: skip
    assert closes(books)


def test_a_request_has_one_outcome_and_waits_from_its_first_intended_send() -> None:
    summary = summarise(retried(), FACTS, RETRYING)
    assert summary.outcomes == {"ok": 960, "status_503": 40}
    assert summary.attempt_outcomes == {"ok": 960, "status_503": 120, "timeout": 60}
    assert summary.amplification == 1.14
    assert summary.infinitely_late == 40
    assert summary.error_share == 0.04
    assert summary.latency_seconds.p95 == pytest.approx(1.104)  # the attempt before is part of it
    assert summary.answered_latency_seconds.max == pytest.approx(1.104)


def test_service_is_that_of_attempts_and_lateness_that_of_first_ones() -> None:
    summary = summarise(retried(), FACTS, RETRYING)
    assert summary.state == "ok"
    assert summary.service_seconds.p90 is None  # 180 of 1,140 had no answer
    assert summary.service_seconds.p50 == pytest.approx(0.004)
    assert summary.lateness_seconds.max == 0
    assert summary.offered_per_second == 100  # retries are nobody's plan


def test_a_run_that_sent_nothing_has_no_amplification() -> None:
    assert summarise([unsent(1000, "stopped")], FACTS, RETRYING).amplification is None
