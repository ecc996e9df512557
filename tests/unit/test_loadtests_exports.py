"""What other tools read of a run, read back by other readers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from junitparser import JUnitXml

from loadtests.load.exports import (
    TABLE,
    by_second,
    junit,
    latency_log,
    latency_table,
    per_second,
    write_exports,
)
from loadtests.load.phase import Phase
from loadtests.load.sample import NOT_SENT, OK, STATUS, STOPPED, Sample
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold
from tests.support import samples
from tests.support.samples import retried
from tests.support.synthetic import FACTS

START = FACTS.started_monotonic
PHASE = Phase(url="http://127.0.0.1:1/", rate=100, duration_seconds=4)


def sample(number: int, seconds: float, outcome: str = OK, status: int | None = 200) -> Sample:
    due = START + number / 100
    return Sample(due, due, due, due, due + seconds, outcome, status, None, 40_000 + number, 0.0)


SAMPLES = [sample(n, 0.1 + n * 1e-5) for n in range(400)]
MIXED = [
    *SAMPLES[:390],
    *(sample(n, 0.001, STATUS, 503) for n in range(390, 395)),
    *(Sample(START + n / 100, None, None, None, None, NOT_SENT, None, STOPPED) for n in range(395, 400)),
]


def test_the_log_gives_the_same_quantiles_to_its_own_reader(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(latency_log(SAMPLES, FACTS))
    reader = HistogramLogReader(str(file), HdrHistogram(1, 3_600_000_000, 3))
    total, intervals = HdrHistogram(1, 3_600_000_000, 3), 0
    while (interval := reader.get_next_interval_histogram()) is not None:
        total.add(interval)
        intervals += 1
    reader.close()
    summary = summarise(SAMPLES, FACTS, PHASE)
    assert intervals == 4
    assert total.get_total_count() == 400
    assert total.get_value_at_percentile(99) / 1e6 == pytest.approx(summary.latency_seconds.p99, rel=2e-3)


def test_the_table_gives_the_same_p99_to_whoever_reads_its_columns() -> None:
    rows = [
        line.split()
        for line in latency_table(SAMPLES).splitlines()
        if line.strip() and line.strip()[0].isdigit()
    ]
    p99 = next(float(row[0]) for row in rows if float(row[1]) >= 0.99)
    summary = summarise(SAMPLES, FACTS, PHASE)
    assert p99 / 1e3 == pytest.approx(summary.latency_seconds.p99, rel=2e-3)


def test_what_never_came_stands_at_the_hour() -> None:
    row = next(
        line for line in latency_table([sample(0, 0.001, STATUS, 503)]).splitlines()[1:] if line.strip()
    )
    assert float(row.split()[0]) == pytest.approx(3600 * 1e3, rel=2e-3)


def test_seconds_add_up_to_the_summary() -> None:
    lines = list(per_second(MIXED, FACTS))
    summary = summarise(MIXED, FACTS, PHASE)
    assert [line["second"] for line in lines] == [0, 1, 2, 3]
    assert sum(line["planned"] for line in lines) == summary.ledger.planned == 400
    assert sum(line["sent"] for line in lines) == summary.ledger.sent == 395
    assert sum(line["ok"] for line in lines) == summary.outcomes["ok"] == 390
    outcomes: dict[str, int] = {}
    for line in lines:
        for label, count in line["outcomes"].items():
            outcomes[label] = outcomes.get(label, 0) + count
    assert outcomes == summary.outcomes


def test_a_request_belongs_to_the_second_in_which_it_was_due() -> None:
    late = sample(99, 5.0)
    assert [second for second, _ in by_second([late], FACTS)] == [0]
    rounded = sample(100, 0.001)._replace(intended=START + 1 - 4e-7)  # of a start with more digits
    assert [second for second, _ in by_second([rounded], FACTS)] == [1]


def test_thresholds_are_test_cases_for_a_reader_of_junit() -> None:
    thresholds = [Threshold.parse(text) for text in ("p50<1s", "p50<1us", "p99.9<10s", "errors<5%")]
    summary = summarise(SAMPLES, FACTS, PHASE, thresholds=thresholds)
    read = JUnitXml.fromstring(junit(summary))
    (suite,) = read
    cases = {case.name: [type(result).__name__ for result in case.result] for case in suite}
    assert cases["p50<1s"] == []
    assert cases["p50<1us"] == ["Failure"]
    assert cases["p99.9<10s"] == ["Error"]
    assert cases["errors<5%"] == []
    assert suite.tests == len(cases) == 5
    assert (suite.failures, suite.errors) == (1, 1)
    told = {case.name: [result.message for result in case.result] for case in suite}
    assert told["p50<1us"] == ["observed 102 ms, with 400 samples of 6 needed"]


def test_all_files_are_written_into_the_folder(tmp_path: Path) -> None:
    write_exports(tmp_path, MIXED, FACTS)
    assert {path.name for path in tmp_path.iterdir()} == {"latency.hlog", "latency.hgrm", "seconds.ndjson"}
    lines = [json.loads(line) for line in (tmp_path / "seconds.ndjson").read_text().splitlines()]
    assert [line["second"] for line in lines] == [0, 1, 2, 3]


def test_with_retries_requests_are_exported_and_their_attempts_counted_beside_them(tmp_path: Path) -> None:
    lines = list(per_second(retried(), samples.FACTS))
    assert [(line["planned"], line["sent"], line["attempts"]) for line in lines] == [(100, 100, 114)] * 10
    assert lines[0]["outcomes"] == {"ok": 96, "status_503": 4}
    write_exports(tmp_path, retried(), samples.FACTS)
    assert re.search(r"TotalCount *= *1000\.", (tmp_path / TABLE).read_text())
