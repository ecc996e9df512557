"""Several rates, one after another: names, verdict, table, test cases, ports."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from junitparser import JUnitXml
from rich.console import Console

from loadtests.load import doctor
from loadtests.load.endpoint import make_endpoint
from loadtests.load.exports import junit_of_steps
from loadtests.load.folder import summed_up
from loadtests.load.judgement import all_of
from loadtests.load.phase import Phase
from loadtests.load.ports import PortRules
from loadtests.load.render import render_steps
from loadtests.load.results import Step
from loadtests.load.steps import names_of
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold
from tests.support.samples import EVERY_KIND, FACTS, PHASE, failed, steady

NEVER = [failed(1000 + n / 100, 1, "timeout", stood=True) for n in range(1000)]
GOALS = [Threshold.parse("p99<100ms")]
STEPS = [
    Step(name=name, rate=100.0, summary=summarise(samples, FACTS, PHASE, slo_seconds=0.1, thresholds=GOALS))
    for name, samples in (("12345678.9", steady()), ("200", NEVER), ("300", EVERY_KIND))
]


def test_a_step_is_named_after_its_rate_and_no_two_alike() -> None:
    assert names_of([100.0, 0.5, 100.0, 1e6, 12345678.5, 12345678.25, 100.0]) == [
        "100", "0.5", "100-2", "1000000", "12345678.5", "12345678.25", "100-3",
    ]  # fmt: skip


def test_one_missed_step_refutes_them_all_and_without_one_an_invalid_step_leaves_it_open() -> None:
    assert all_of(["ok", "ok"]) == "ok"
    assert all_of(["ok", "invalid"]) == "invalid"
    assert all_of(["invalid", "missed", "ok"]) == all_of(["missed"]) == "missed"


def test_steps_that_are_missing_or_were_cut_short_are_interrupted() -> None:
    assert not summed_up(STEPS, 3).interrupted
    assert summed_up(STEPS, 4).interrupted
    cut = [replace(STEPS[0], summary=replace(STEPS[0].summary, interrupted=True))]
    assert summed_up(cut, 1).interrupted


def test_the_table_fits_80_columns_and_has_a_row_for_each_step() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(render_steps(summed_up(STEPS, 4)))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("MISSED (interrupted)  3 of 4 steps")
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    assert rows["step"] == ["offered/s", "achieved/s", "goodput/s", "p50", "p99", "errors"]
    assert rows["12345678.9"] == ["100.0", "100.0", "100.0", "4.00", "ms", "4.00", "ms", "0.0%", "OK"]
    assert rows["200"] == ["100.0", "0.0", "0.0", "never", "never", "100.0%", "MISSED"]
    assert "1 of 12345678.9, 2 of 200" in " ".join(" ".join(lines).split())


def test_each_threshold_of_each_step_is_a_test_case_of_one_suite() -> None:
    (suite,) = JUnitXml.fromstring(junit_of_steps(summed_up(STEPS, 3)))
    names = [case.name for case in suite]
    assert len(names) == len(set(names)) == suite.tests == 6
    assert names[:2] == ["step 12345678.9: the run is valid", "step 12345678.9: p99<100ms"]
    assert suite.failures == sum(step.summary.state == "missed" for step in STEPS)


def test_ports_that_one_step_has_used_are_missing_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = PortRules(low=40_000, high=40_099, tw_reuse=0)  # a hundred, each back after a minute
    monkeypatch.setattr(doctor, "port_rules", lambda: rules)
    monkeypatch.setattr(doctor, "held_ports", lambda *_: [])
    steps = [
        Phase(url="http://127.0.0.1:9/", rate=rate, duration_seconds=1, who_closes="client")
        for rate in (60, 90)
    ]
    endpoint = make_endpoint(steps[0])
    for step in steps:
        assert doctor.examine([step], endpoint, ["run"]).suffices
    found = doctor.examine(steps, endpoint, ["run"]).forecast
    assert (found.planned, found.first_without) == (150, 101)
    assert found.at_seconds == pytest.approx(1 + 40 / 90)
