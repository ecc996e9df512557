"""The run folder: what is written can be read back, and what is something else is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.experiment import report
from loadtests.experiment.blocks import Block
from loadtests.experiment.folder import FolderError, RunFolder, holds_experiment
from loadtests.experiment.ledger import HalfOpen
from loadtests.experiment.plan import Plan
from loadtests.experiment.results import STRETCHES, Kill, Raw, Status, Summary
from loadtests.files import by_line, write_json
from loadtests.load.phase import Phase
from loadtests.load.sample import to_columns
from loadtests.machine import Environment
from tests.support.synthetic import ENVIRONMENT, FACTS, plan_of, quick, reading, sample, summary_of

BEGIN = FACTS.started_monotonic

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_lines_are_json_and_the_same_value(value: Any) -> None:
    assert json.loads(by_line(value)) == value


@given(st.lists(JSON, min_size=1))
def test_a_list_has_a_line_for_each_item(items: list[Any]) -> None:
    first, *lines, last = by_line(items).splitlines()
    assert (first, last) == ("[", "]")
    assert [json.loads(line.removesuffix(",")) for line in lines] == items


def test_lists_one_level_down_have_lines_as_well() -> None:
    text = by_line({"a": [1, {"b": [2, 3]}], "c": {"d": 4}})
    assert text == '{\n"a": [\n1,\n{"b":[2,3]}\n],\n"c": {"d":4}\n}'


def raw_of(kind: Any, variant: str, number: int, **more: Any) -> Raw:
    return Raw(
        id=f"{number:03d}-{kind}-{variant}",
        kind=kind,
        variant=variant,
        phase=Phase(url="http://127.0.0.1:1/data", rate=400.0, duration_seconds=5.0),
        readings=tuple(
            reading(seconds=BEGIN + tenth / 10, accepted=tenth, completed=tenth, tasks=25 * tenth,
                    task_cpu_seconds=0.1 * tenth, busy_seconds=0.1 * tenth, ours_seconds=0.1 * tenth)
            for tenth in range(-1, 60)
        ),
        half_open=HalfOpen(before=frozenset({7}), after=frozenset({8, 9}), overflows=3),
        **more,
    )  # fmt: skip


def keep(folder: RunFolder, raw: Raw) -> None:
    """A measured phase, as a testbed leaves it."""
    samples = [sample(BEGIN + n / 10, port=1000 + n) for n in range(50)]
    write_json(folder.samples_of(raw.id), {**to_columns(samples), "generator": FACTS.to_json()})
    folder.write_raw(raw)


def measured(path: Path, plan: Plan, *raws: Raw) -> RunFolder:
    """A folder as it is before the summary is written."""
    folder, summary = RunFolder.create(path), summary_of(plan)
    folder.write("status.json", Status, Status(state="interrupted", seconds=3.0))
    folder.write("environment.json", Environment, ENVIRONMENT)
    folder.write("plan.json", Plan, plan)
    blocks = tuple(block for block in summary.blocks if block.part != "ramp")
    folder.write("blocks.json", tuple[Block, ...], blocks)
    folder.write("kills.json", tuple[Kill, ...], summary.kills)
    for raw in raws:
        keep(folder, raw)
    return folder


def test_what_was_read_of_a_phase_comes_back_as_it_was(tmp_path: Path) -> None:
    folder, raw = RunFolder.create(tmp_path / "run"), raw_of("overload", "inline", 1)
    keep(folder, raw)
    assert folder.read(f"phases/{raw.id}/raw.json", Raw) == raw


def test_a_summary_is_built_from_the_files_and_comes_back_as_it_was(tmp_path: Path) -> None:
    raws = (raw_of("overload", "inline", 1), raw_of("overload", "executor-1", 2))
    folder = measured(tmp_path / "run", plan_of("quick"), *raws)
    summary = folder.build()
    assert [phase.id for phase in summary.phases] == [raw.id for raw in raws]
    assert summary.blocks == quick().blocks
    assert summary.kills == quick().kills
    assert folder.summary() == summary
    folder.write("summary.json", Summary, summary)
    assert folder.summary() == summary


def test_a_phase_without_one_of_its_sides_is_left_out(tmp_path: Path) -> None:
    folder = measured(tmp_path / "run", plan_of("quick"), raw_of("overload", "inline", 1))
    folder.samples_of("002-overload-executor-1")  # interrupted before anything was kept
    assert len(folder.build().phases) == 1


def test_phases_of_the_ramp_are_cut_into_blocks_that_pair_by_rate(tmp_path: Path) -> None:
    raws = [
        raw_of("ramp", name, number)
        for number, name in enumerate(("executor-1", "inline", "inline", "executor-1"), 1)
    ]
    blocks = measured(tmp_path / "run", plan_of("accept-all-we-can"), *raws).build().blocks
    cycles = {
        name: [block.cycle for block in blocks if block.variant == name] for name in ("inline", "executor-1")
    }
    assert cycles["inline"] == cycles["executor-1"] == [*range(2 * STRETCHES)]


def test_a_folder_that_was_never_measured_has_a_summary_of_nothing(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write("status.json", Status, Status(state="failed"))
    folder.write("environment.json", Environment, ENVIRONMENT)
    folder.write("plan.json", Plan, plan_of("quick"))
    summary = folder.build()
    assert (summary.blocks, summary.phases, summary.kills) == ((), (), ())
    assert "FAILED" in report.as_text(summary).splitlines()[0]


def test_a_folder_is_never_measured_into_twice(tmp_path: Path) -> None:
    measured(tmp_path / "run", plan_of("a-a"))
    with pytest.raises(FolderError, match=r"already holds a run; choose another folder with --out$"):
        RunFolder.create(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"^cannot write the run folder .*/file/run: Not a directory$"):
        RunFolder.create(tmp_path / "file/run")


def old_format(folder: Path) -> None:
    """A run of the version before, whose phases were dictionaries."""
    (folder / "plan.json").write_text('{"preset": "quick", "cores": 2, "steps": [], "variants": {}}')
    (folder / "summary.json").write_text('{"status": {"state": "complete"}, "phases": [], "plan": {}}')


def without_summary(folder: Path) -> None:
    (folder / "plan.json").write_text('{"preset": "quick", "cores": 2, "steps": [], "variants": {}}')


def torn(folder: Path) -> None:
    (folder / "plan.json").write_text('{"preset": "qui')
    (folder / "summary.json").write_text('{"status": {"st')


def of_a_run(folder: Path) -> None:
    (folder / "plan.json").write_text('{"phase": {}}')
    (folder / "samples.json").write_text("{}")
    (folder / "summary.json").write_text("{}")


def of_somebody_else(folder: Path) -> None:
    (folder / "summary.json").write_text("[1, 2]")


def not_text(folder: Path) -> None:
    (folder / "plan.json").write_bytes(b"\xff\xfe\x00")
    (folder / "summary.json").write_bytes(b"\xff\xfe\x00")


def samples_lost(folder: Path) -> None:
    shutil.rmtree(folder)
    raw = raw_of("overload", "inline", 1)
    made = measured(folder, plan_of("quick"), raw)
    made.samples_of(raw.id).unlink()


def samples_torn(folder: Path) -> None:
    shutil.rmtree(folder)
    raw = raw_of("overload", "inline", 1)
    made = measured(folder, plan_of("quick"), raw)
    made.samples_of(raw.id).write_text('{"columns": ["x"], "rows": [], "generator": {}}')


def unknown_variant(folder: Path) -> None:
    shutil.rmtree(folder)
    measured(folder, plan_of("quick"), raw_of("overload", "unheard-of", 1))


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    "fill",
    [
        old_format,
        without_summary,
        torn,
        of_a_run,
        of_somebody_else,
        not_text,
        samples_lost,
        samples_torn,
        unknown_variant,
        nothing,
    ],
)
def test_what_is_no_run_of_this_version_is_refused_in_one_sentence(tmp_path: Path, fill: Any) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    fill(folder)
    with pytest.raises(FolderError) as caught:
        report.draw(RunFolder(folder))
    said = str(caught.value)
    assert "\n" not in said
    assert said.count(str(folder)) == 1
    assert len(said) < 200 + len(str(folder))
    assert not (folder / "verdict.txt").exists()


def test_a_run_of_another_version_is_called_that(tmp_path: Path) -> None:
    old_format(tmp_path)
    with pytest.raises(FolderError, match="did another version write it"):
        report.draw(RunFolder(tmp_path))


def test_a_summary_alone_is_an_experiment(tmp_path: Path) -> None:
    RunFolder(tmp_path).write("summary.json", Summary, quick())
    assert holds_experiment(tmp_path)
    assert not holds_experiment(tmp_path / "nowhere")


def test_states_that_no_run_has_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("status.json", Status, replace(Status(state="complete"), seconds=1.5))
    assert folder.read("status.json", Status).seconds == 1.5
    (tmp_path / "status.json").write_text('{"state": "splendid"}')
    with pytest.raises(FolderError, match=r"status.json"):
        folder.read("status.json", Status)
