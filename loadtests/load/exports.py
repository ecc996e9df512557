"""A run in the formats of other tools: HdrHistogram's log and table, a line of JSON per second, JUnit XML.

Knows these formats, those of histograms through their own library. Touches the files that it is given. Never
computes a figure that is in the summary.
"""

import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from loadtests.files import dump, write_whole
from loadtests.load.facts import GeneratorFacts
from loadtests.load.histogram import Quantiles
from loadtests.load.results import MISSED, TOO_FEW, RunSummary, StepsSummary, ThresholdResult
from loadtests.load.sample import OK, STOPPED, Sample, requests
from loadtests.load.summary import waits
from loadtests.load.tell import observed

LOG: Final = "latency.hlog"
TABLE: Final = "latency.hgrm"
SECONDS: Final = "seconds.ndjson"

# Microseconds, in a resolution of one in a thousand, up to an hour. A histogram cannot hold an infinite
# value: a request without the expected answer is recorded at the hour, so that a quantile of `never` reads
# 3600 s.
NEVER_SECONDS: Final = 3600
DIGITS: Final = 3
NEVER_COMMENT: Final = "a request without the expected answer counts as 3600 s"


def write_exports(folder: Path, samples: Sequence[Sample], facts: GeneratorFacts) -> None:
    """Write the latency log, its table, and a line per second into a run folder."""
    due = [sample for sample in requests(samples) if sample.reason != STOPPED]
    write_whole(folder / LOG, latency_log(due, facts))
    write_whole(folder / TABLE, latency_table(due))
    write_whole(folder / SECONDS, "\n".join(dump(line) for line in per_second(samples, facts)))


def latency_log(due: Iterable[Sample], facts: GeneratorFacts) -> str:
    """Latencies from the intended time, an interval histogram for each second.

    HdrHistogram's log, version 1.2, with histograms of encoding V2.
    """
    text = io.StringIO()
    writer = HistogramLogWriter(text)
    writer.output_log_format_version()
    writer.output_comment(NEVER_COMMENT)
    # The library's own methods for these two lines are wrong: they take milliseconds for seconds.
    started = datetime.fromtimestamp(facts.started_epoch, UTC).isoformat()
    text.write(f"#[StartTime: {facts.started_epoch:.3f} (seconds since epoch), {started}]\n")
    text.write(f"#[BaseTime: {facts.started_epoch:.3f} (seconds since epoch)]\n")
    writer.output_legend()
    for second, group in by_second(due, facts):
        writer.output_interval_histogram(_histogram(group), second, second + 1)
    return text.getvalue().rstrip()


def latency_table(due: Iterable[Sample]) -> str:
    """Latencies from the intended time as a table of percentiles, milliseconds: what HdrHistogram's plotter
    reads."""
    table = io.BytesIO()
    _histogram(due).output_percentile_distribution(table, 1000)
    return table.getvalue().decode("ascii")


def per_second(samples: Iterable[Sample], facts: GeneratorFacts) -> Iterator[dict[str, Any]]:
    """A dict for each second of intended starts; the counts add up to those of the summary."""
    for second, attempts in by_second(samples, facts):
        group = requests(attempts)
        due = [sample for sample in group if sample.reason != STOPPED]
        found = Quantiles.of(waits(due))
        yield {
            "second": second,
            "planned": len(group),
            "due": len(due),
            "sent": sum(sample.started is not None for sample in group),
            "attempts": sum(sample.started is not None for sample in attempts),
            "ok": sum(sample.outcome == OK for sample in group),
            "outcomes": dict(Counter(sample.label for sample in group).most_common()),
            "latency_p50_seconds": found.p50,
            "latency_p99_seconds": found.p99,
            "latency_max_seconds": found.max,
        }


def by_second(samples: Iterable[Sample], facts: GeneratorFacts) -> Iterator[tuple[int, list[Sample]]]:
    """Samples by the second of the run in which they were meant to start."""
    groups: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        # Moments are rounded to microseconds, so a request due on the second may lie just below it.
        groups[math.floor(sample.intended - facts.started_monotonic + 1e-6)].append(sample)
    for second in sorted(groups):
        yield second, groups[second]


def junit(summary: RunSummary) -> str:
    """The thresholds as JUnit XML, a test case each, after one that says whether the run is valid.

    A missed threshold is a failure; one with too few samples is an error, and so is an INVALID run.
    """
    return _suite(f"{summary.workload} {summary.url}", {"": summary})


def junit_of_steps(found: StepsSummary) -> str:
    """The same for several steps, in one suite; the name of each case begins with that of its step."""
    name = f"{len(found.steps)} steps {found.steps[0].summary.url}"
    return _suite(name, {f"step {step.name}: ": step.summary for step in found.steps})


def _suite(name: str, runs: Mapping[str, RunSummary]) -> str:
    seconds = sum(summary.window_seconds for summary in runs.values())
    suite = ElementTree.Element("testsuite", name=name, time=f"{seconds:.3f}")
    for step, summary in runs.items():
        _add_cases(suite, step, summary)
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode")


def _add_cases(suite: ElementTree.Element, step: str, summary: RunSummary) -> None:
    valid = ElementTree.SubElement(suite, "testcase", classname="loadtests", name=f"{step}the run is valid")
    if summary.invalid_because:
        ElementTree.SubElement(
            valid, "error", message=summary.invalid_because[0], type="invalid"
        ).text = "\n".join(summary.invalid_because)
    for result in summary.thresholds:
        case = ElementTree.SubElement(
            suite, "testcase", classname="loadtests.threshold", name=f"{step}{result.threshold}"
        )
        if result.state == MISSED:
            ElementTree.SubElement(case, "failure", message=_observed(result), type="missed")
        elif result.state == TOO_FEW:
            ElementTree.SubElement(case, "error", message=_observed(result), type="too few samples")


def _observed(result: ThresholdResult) -> str:
    value = observed(result.threshold, result.observed)
    return f"observed {value}, with {result.samples} samples of {result.samples_needed} needed"


def _histogram(samples: Iterable[Sample]) -> HdrHistogram:
    histogram = HdrHistogram(1, NEVER_SECONDS * 1_000_000, DIGITS)
    for wait in waits(samples):
        histogram.record_value(max(1, round(min(wait, NEVER_SECONDS) * 1e6)))
    return histogram
