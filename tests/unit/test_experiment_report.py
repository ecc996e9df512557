"""What is drawn from a summary: text, page and figures, for every preset and however the run ended."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from loadtests.experiment import figures, page, report, tables
from loadtests.experiment.evidence import ledger_gaps
from loadtests.experiment.figures import as_svg
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.presets import PRESETS
from loadtests.experiment.results import Status, Summary
from loadtests.experiment.verdict import answer, judge
from loadtests.pages.drawing import COLOURS
from tests.support.html import read
from tests.support.synthetic import books, plan_of, quick, summary_of, with_blocks, with_phases, with_recovery

STATES = {
    "complete": Status(state="complete", seconds=150.0),
    "invalid": Status(
        state="invalid",
        invalid_because="7 of 9 blocks were disturbed: other processes of this machine used 31% of its "
        "CPU time",
    ),
    "interrupted": Status(state="interrupted", seconds=12.0),
    "failed": Status(state="failed"),
    "running": Status(state="running"),
}
FIGURES = {
    "quick": {"cycles", "queues", "cpu"},
    "controlled": {"cycles", "queues", "cpu", "latency"},
    "accept-all-we-can": {"ramp"},
    "batches": {"queues", "cpu"},
    "threads": {"cycles", "cpu"},
    "a-a": {"cycles", "cpu"},
    "metastable": {"recovery"},
}


def spoilt(summary: Summary) -> Summary:
    """The same run with everything that may go wrong in it: void, invalid, unexplained, unanswered."""
    first = summary.plan.variants[0].name
    summary = with_blocks(
        summary,
        first,
        lambda block: (
            block
            if block.cycle % 3
            else replace(block, void_because=("other processes of this machine used 31% of its CPU time",))
        ),
    )
    if summary.phases:
        never = replace(summary.phases[0].latency_seconds, p50=None, p99=None)
        summary = with_phases(
            summary,
            first,
            0,
            invalid_because=("1 % of the requests were sent more than 61 ms late: the machine is too busy",),
            ledger=books(unexplained=-2, server_gap=1, active=3),
            latency_seconds=never,
            demand_seconds=None,
            pressure=None,
            lateness_p99_seconds=None,
            goodput_per_second=0.0,
        )
    if summary.recoveries:
        why = ("the generator was late",)
        book = books(unexplained=1)
        summary = with_recovery(summary, "offloop-immediate", void_because=why, ledger=book)
    return summary


def cut_off(summary: Summary, kept: int) -> Summary:
    return replace(
        summary,
        blocks=summary.blocks[:kept],
        phases=summary.phases[:kept],
        recoveries=summary.recoveries[:kept],
        kills=(),
        status=STATES["interrupted"],
    )


SUMMARIES = {
    **{
        f"{preset}, {state}": replace(summary_of(plan_of(preset)), status=STATES[state])
        for preset in PRESETS
        for state in STATES
        if preset == "quick" or state in ("complete", "invalid", "interrupted")
    },
    **{f"{preset}, spoilt": spoilt(summary_of(plan_of(preset))) for preset in PRESETS},
    **{
        f"{preset}, first {kept}": cut_off(summary_of(plan_of(preset)), kept)
        for preset in PRESETS
        for kept in (0, 5)
    },
    **{
        f"{preset}, {cores:g} cores": summary_of(plan_of(preset, cores))
        for preset in PRESETS
        for cores in (1.0, 64.0)
    },
}
every_summary = pytest.mark.parametrize("summary", SUMMARIES.values(), ids=SUMMARIES)


@every_summary
def test_text_fits_80_columns_and_nothing_in_it_touches(summary: Summary) -> None:
    text = report.as_text(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    assert not re.search(r" \n", text), "a line ends in blanks"
    assert not re.search(r"\)\d", text), "two estimates touch"


@every_summary
def test_text_says_what_was_judged_and_how_it_ended(summary: Summary) -> None:
    text = report.as_text(summary)
    state = summary.status.state
    assert (state.upper() in text.splitlines()[0]) == (state != "complete")
    said = re.findall(r"^[+?-] (HELD|DID NOT HOLD|INCONCLUSIVE) ", text, re.MULTILINE)
    expected = [] if state == "invalid" else [verdict.verdict.upper() for verdict in judge(summary)]
    assert said == expected
    assert ("Where does the 5.2x come from?" in text) == (state != "invalid" and answer(summary) is not None)
    assert ("No connection is unexplained." in text) == (not ledger_gaps(summary))


def test_an_invalid_run_says_why_first_and_judges_nothing() -> None:
    text = report.as_text(replace(quick(), status=STATES["invalid"]))
    assert text.startswith("Accept All We Can, preset quick: INVALID\n")
    assert " ".join(text.split()).count("This run says nothing about the service: 7 of 9 blocks") == 1


def test_what_was_thrown_away_is_told() -> None:
    text = " ".join(report.as_text(spoilt(quick())).split())
    assert "4 of 56 blocks were void and do not count, most often: other processes" in text
    assert "Phase 001-overload-inline-350 is invalid and not judged: 1 % of the requests" in text
    assert "connections -2 unexplained, 1 missing from the service's own books, 3 still active" in text


def test_only_books_and_machine_make_a_run_invalid_not_its_verdicts() -> None:
    assert not report.is_invalid(quick())
    assert not report.is_invalid(cut_off(quick(), 5))
    assert report.is_invalid(replace(quick(), status=STATES["invalid"]))
    assert report.is_invalid(with_phases(quick(), "inline", 0, ledger=books(unexplained=1)))


def test_a_void_case_is_told_and_its_books_are_kept() -> None:
    text = report.as_text(spoilt(summary_of(plan_of("metastable"))))
    assert re.search(r"^offloop, immediate .* void$", text, re.MULTILINE)
    assert "Case offloop-immediate is void and not judged: the generator was late." in text
    assert "offloop-immediate: connections 1 unexplained" in text


def test_the_cases_of_a_trigger_are_told_with_how_they_ended_and_how_often_was_retried() -> None:
    text = report.as_text(summary_of(plan_of("metastable")))
    assert text.startswith("The failure that does not go away, preset metastable\n")
    told = {row[0]: row[1:] for row in (re.split(" {2,}", line) for line in text.splitlines())}
    assert told["process pool, no retries"] == ["120", "30", "60", "120", "back after 15 s"]
    assert told["process pool, immediate"] == ["120", "30", "0", "480", "down for 30 s"]
    assert told["offloop, immediate"] == ["120", "30", "120", "120", "back at once"]
    assert "sent + retried 3600 = connected" in " ".join(text.split())
    assert "retried" not in report.as_text(quick())


def test_gains_are_over_the_first_variant_with_the_same_kind_of_work() -> None:
    pairs = {(row.variant, row.baseline) for row in tables.gains(summary_of(plan_of("threads")))}
    assert pairs == {
        ("thread-cores-holds", "inline-holds"),
        ("executor-cores-holds", "inline-holds"),
        ("thread-cores-releases", "inline-releases"),
        ("executor-cores-releases", "inline-releases"),
    }
    assert {row.baseline for row in tables.gains(quick())} == {"inline"}


def test_the_row_of_a_variant_holds_its_typical_figures() -> None:
    row = tables.variants(quick())[0]
    assert (row.title, row.workers, row.blocks) == ("inline, 4 ms", 1, 12)
    assert row.utilisation == pytest.approx(0.82, rel=0.01)
    assert row.throughput_per_second == pytest.approx(row.utilisation / row.demand_seconds, rel=0.01)
    assert row.left == pytest.approx(0.82 / (2 - 0.05 - 0.15), rel=0.01)


def test_what_the_stock_executor_costs_is_told_with_its_killed_worker() -> None:
    said = str(tables.beside(quick()))
    assert "4 pairs" in said
    assert "One killed worker: 0 requests failed" in said
    assert "killed" not in str(tables.beside(replace(quick(), kills=())))
    assert tables.beside(summary_of(plan_of("a-a"))) is None
    assert tables.beside(cut_off(quick(), 0)) is None


@every_summary
def test_the_page_renders_and_loads_nothing(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "as_svg", lambda _: {"cycles": '<?xml?><svg fill="#0072b2"></svg>'})
    html = page.render(summary)  # an undefined name in the template raises
    tags = read(html)
    assert all(link.startswith(("#", "data:")) for link in tags.asked), tags.asked
    assert "url(" not in html
    assert "<script" not in html
    assert "None" not in tags.text
    assert not re.search(r"\bnan\b|\binf\b", tags.text)
    verdicts = [] if summary.status.state == "invalid" else judge(summary)
    for verdict in verdicts:
        assert escape(verdict.claim) in html
    assert html.count('class="verdict"') == len(verdicts)
    assert (f"This run is {summary.status.state}" in html) == (summary.status.state != "complete")


def test_the_page_says_the_caution_and_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "as_svg", lambda _: {})
    text = read(page.render(spoilt(quick()))).text
    assert (
        "4 blocks were void and do not count: other processes of this machine used 31% of its CPU time."
        in text
    )
    assert "connections -2 unexplained" in text
    assert "Generator, service and workers shared 2 cores" in text
    assert "Outcomes as the clients saw them: ok 6800." in re.sub(r"\s+", " ", text)


Draw = Callable[[str], dict[str, bytes]]


def drawn(folder: Path, summary: Summary) -> dict[str, bytes]:
    """All files of a run folder, drawn from its summary alone."""
    folder.mkdir()
    RunFolder(folder).write("summary.json", Summary, summary)
    report.draw(RunFolder(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Draw]:
    """The files of a preset's usual run; drawn once, for it takes seconds."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 40)  # a sixteenth of the pixels to paint and to pack
        yield functools.cache(lambda preset: drawn(root / preset, summary_of(plan_of(preset))))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_its_figures_in_page_and_folder(draw: Draw, preset: str) -> None:
    files = draw(preset)
    found = {name.removesuffix(".svg") for name in files if name.endswith(".svg")}
    assert found == FIGURES[preset]
    html = files["report.html"].decode()
    assert html.count("<figure") == html.count("<svg") == len(found)
    for name in found:
        assert f'id="{name}"' in html
        assert len(files[f"{name}.png"]) > 2_000
        svg = files[f"{name}.svg"].decode()
        read(svg[svg.index("<svg") :])
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", html)
    assert all(link.startswith(("#", "data:", "url(#")) for link in links), links


def test_the_drawings_take_on_the_colours_of_the_page(draw: Draw) -> None:
    html = draw("controlled")["report.html"].decode()
    pictures = html[html.index("<svg") :]
    for name in ("blue", "vermilion", "orange", "grey"):
        assert f"var(--{name})" in pictures
    assert not [colour for colour in COLOURS.values() if colour in pictures]


def test_a_summary_alone_is_drawn_again_to_the_same_bytes(draw: Draw, tmp_path: Path) -> None:
    first = draw("quick")
    (tmp_path / "summary.json").write_bytes(first["summary.json"])
    summary, text = report.draw(RunFolder(tmp_path))
    assert summary == quick()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert first["verdict.txt"].decode() == text


@pytest.mark.parametrize(
    "name", [*(f"{preset}, spoilt" for preset in PRESETS), "quick, first 0", "controlled, first 5"]
)
def test_what_is_missing_or_spoilt_is_drawn_as_far_as_it_goes(name: str) -> None:
    as_svg(SUMMARIES[name])  # a warning of matplotlib is an error here


def test_a_void_block_without_one_task_is_drawn_as_well() -> None:
    summary = summary_of(plan_of("a-a"))
    first, *rest = summary.blocks
    stalled = replace(first, tasks=0, work_cpu_seconds=0.0, void_because=("not one unit of work was done",))
    assert "cycles" in as_svg(replace(summary, blocks=(stalled, *rest)))
