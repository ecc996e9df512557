"""The summary as others read it: JSON, and the schema of it."""

import json
from dataclasses import replace

from pydantic import TypeAdapter

from loadtests.files import dump
from loadtests.load.results import RunSummary
from loadtests.load.schema import PATH, STEPS_PATH, steps_schema, summary_schema
from loadtests.load.summary import summarise
from loadtests.load.thresholds import Threshold
from tests.support.samples import EVERY_KIND, FACTS, PHASE, steady


def test_the_committed_schema_is_that_of_the_types() -> None:
    assert json.loads(PATH.read_text()) == summary_schema(), "run: python -m loadtests.load.schema"
    assert json.loads(STEPS_PATH.read_text()) == steps_schema(), "run: python -m loadtests.load.schema"


def test_a_summary_survives_its_json_form_and_holds_what_the_schema_demands() -> None:
    thresholds = [Threshold.parse(text) for text in ("p99<1ms", "errors<50%", "goodput>=1")]
    calm = summarise(steady(), FACTS, PHASE, slo_seconds=0.1, thresholds=thresholds)
    bad = summarise(EVERY_KIND, replace(FACTS, interrupted=True), PHASE, thresholds=thresholds[:2])
    for summary in (calm, bad):
        text = dump(summary.to_json(), indent=2)  # refuses infinities
        assert TypeAdapter(RunSummary).validate_json(text, strict=True) == summary
        assert json.loads(text).keys() == summary_schema()["properties"].keys()


def test_the_names_that_scripts_rely_on_stay() -> None:
    names = summary_schema()["properties"].keys()
    assert {"state", "outcomes", "ledger", "latency_seconds", "service_seconds", "lateness_seconds"} <= names
    quantiles = summary_schema()["$defs"]["Quantiles"]["properties"]
    assert quantiles.keys() == {"p50", "p90", "p95", "p99", "p99_9", "max"}
