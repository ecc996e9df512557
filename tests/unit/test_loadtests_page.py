"""The pages of a run folder, from what is in it alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtests.exits import UsageError
from loadtests.load import figures, page
from loadtests.load.folder import holds_run, holds_steps, read_run, read_steps
from loadtests.pages.drawing import COLOURS
from loadtests.report import redraw
from tests.support.html import read
from tests.support.run_folders import RUNS, keep, keep_steps
from tests.support.samples import EVERY_KIND, PHASE, RETRYING, answered, retried, steady


@pytest.mark.parametrize("of", RUNS.values(), ids=RUNS)
def test_every_run_has_a_page_however_it_ended_and_it_loads_nothing(
    of: dict[str, Any], tmp_path: Path
) -> None:
    drawn = page.draw(keep(tmp_path, **of))
    html = drawn.read_text()
    tags = read(html)  # an undefined name in the template raises, and so does a warning of matplotlib
    summary = read_run(tmp_path).summary
    text = " ".join(tags.text.split())
    assert f"{summary.state.upper()}{' (interrupted)' if summary.interrupted else ''}" in text
    for sentence in (*summary.invalid_because, *summary.cautions, *summary.outcomes):
        assert sentence in text
    for result in summary.thresholds:
        assert result.threshold in text
    assert not re.search(r"\bnan\b|\binf\b|None", tags.text)
    assert (
        html.count("<figure") == html.count("<svg") == (0 if summary.outcomes.keys() == {"not_sent"} else 3)
    )
    assert all(asked.startswith(("#", "data:")) for asked in tags.asked)
    assert "<script" not in html


def test_a_page_takes_on_the_colours_of_its_reader_and_is_drawn_again_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    folder = keep(tmp_path, **RUNS["with an SLO"])
    first = page.draw(folder).read_bytes()
    assert page.draw(folder).read_bytes() == first
    pictures = first.decode()
    pictures = pictures[pictures.index("<svg") :]
    assert "var(--blue)" in pictures
    assert not [colour for colour in COLOURS.values() if colour in pictures]


def test_a_page_may_be_passed_on_for_it_shows_no_secret(tmp_path: Path) -> None:
    phase = replace(PHASE, headers=(("Authorization", "Bearer hush"),), body="a password", method="POST")
    html = page.draw(keep(tmp_path, steady(), phase=phase)).read_text()
    assert "Authorization (value not shown)" in html
    assert "10 bytes" in html
    assert "hush" not in html
    assert "password" not in html


def test_what_a_server_or_a_person_said_is_text_and_no_markup(tmp_path: Path) -> None:
    phase = replace(PHASE, url="http://127.0.0.1:8080/<script>alert(1)</script>")
    assert "<script" not in page.draw(keep(tmp_path, steady(), phase=phase)).read_text()


def test_however_many_requests_there_were_a_page_stays_small(tmp_path: Path) -> None:
    samples = [answered(1000 + n / 5000, took=0.0005 * (1 + n % 997)) for n in range(50_000)]
    assert page.draw(keep(tmp_path, samples)).stat().st_size < 1_000_000


def test_steps_have_a_page_of_their_own_and_one_of_them_all_that_leads_there(tmp_path: Path) -> None:
    steps = {"100": steady(), "200": steady(took=0.5), "100-2": EVERY_KIND}
    folder = keep_steps(tmp_path / "run", [*steps, "300"], steps, thresholds=["p50<100ms"], slo_seconds=0.1)
    tags = read(page.draw(folder).read_text())
    for name in steps:
        assert f"{name}/report.html" in tags.asked
        assert (folder / name / "report.html").exists()
    assert "300/report.html" not in tags.asked
    text = " ".join(tags.text.split())
    assert "MISSED (interrupted) 3 of 4 steps" in text
    assert "p50<100ms MISSED" in text
    assert not re.search(r"\bnan\b|\binf\b|None", text)


def test_steps_are_summed_up_from_what_is_there(tmp_path: Path) -> None:
    gone = RUNS["unreachable"]
    folder = keep_steps(tmp_path / "run", ["100", "200"], {"100": steady()})
    keep(folder / "200", **gone)
    found = read_steps(folder)
    assert [(step.name, step.rate, step.summary.state) for step in found.steps] == [("100", 100, "ok")]
    assert (found.state, found.interrupted, found.planned) == ("ok", True, 2)
    with pytest.raises(ValueError, match="not one step was run"):
        read_steps(keep_steps(tmp_path / "empty", ["100"], {}))


def test_a_folder_is_known_by_what_it_holds(tmp_path: Path) -> None:
    one = keep(tmp_path / "one", steady())
    several = keep_steps(tmp_path / "several", ["100"], {"100": steady()})
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/plan.json").write_text('{"preset": "quick"}')
    assert (holds_run(one), holds_steps(one)) == (True, False)
    assert (holds_run(several), holds_steps(several)) == (True, True)
    assert not holds_run(tmp_path / "experiment")
    assert not holds_run(tmp_path / "nowhere")


def test_the_command_shows_and_draws_again_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = keep(tmp_path / "one", steady(), thresholds=["p50<1ms"])
    several = keep_steps(tmp_path / "two", ["100", "200"], {"100": steady(20)}, thresholds=["p99<1s"])
    for folder, code, first in ((one, 1, "MISSED"), (several, 3, "INVALID (interrupted)  1 of 2 steps")):
        assert redraw(folder) == code
        text = capsys.readouterr().out
        assert text.startswith(first)
        assert text.endswith(f"Page: {folder / 'report.html'}\n")
        assert (folder / "report.html").exists()
    (one / "samples.json").unlink()
    with pytest.raises(UsageError, match="does not hold a readable run"):
        redraw(one)


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    folder = keep(tmp_path, steady())
    (folder / "samples.json").unlink()
    with pytest.raises(ValueError, match=r"does not hold a readable run: samples\.json: No such file"):
        page.draw(folder)


def test_a_page_of_clients_that_retry_tells_attempts_and_amplification(tmp_path: Path) -> None:
    html = page.draw(keep(tmp_path, retried(), phase=RETRYING)).read_text()
    text = " ".join(read(html).text.split())
    for words in (
        "amplification 1.14 (attempts / requests)", "status_503 120, timeout 60",
        "attempts 1,140 = sent + retries 140", "immediate, at most 2",
    ):  # fmt: skip
        assert words in text
    assert "attempts 1,140" not in page.draw(keep(tmp_path / "without", steady())).read_text()


def test_figures_draw_requests_by_their_last_attempt_and_attempts_beside_them(tmp_path: Path) -> None:
    drawn = figures.of_run(read_run(keep(tmp_path / "with", retried(), phase=RETRYING)))
    assert "beyond: 4.00% never answered" in drawn["quantiles"]
    assert "attempts" in drawn["rates"]
    without = figures.of_run(read_run(keep(tmp_path / "without", steady())))
    assert "never answered" not in without["quantiles"]
    assert "attempts" not in without["rates"]
