"""From blocks to what people see: pairs, ratios, tables and the drawing."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.peers import figure, report
from loadtests.peers.block import Block, Conditions
from loadtests.peers.plan import OURS, TITLES, Plan, Work
from loadtests.peers.results import Results
from loadtests.peers.rows import Row, pairs

KEPT = Path(__file__).parents[2] / "docs/proofs/peers.json"
FINE = Conditions(
    stolen_share=0.0, foreign_share=0.01, generator_share=0.3, late_seconds=0.002, failed_here=0
)
VOID = dataclasses.replace(FINE, foreign_share=0.5)
SPEEDS = (1.0, 1.9, 0.8, 1.3, 2.0, 1.1)  # of the machine, cycle by cycle
WORTH = {OURS: 250.0, "bounded": 200.0, "pool": 20.0}


def block(design: str, cycle: int, goodput: float, **changed: object) -> Block:
    made = Block(
        work_ms=4.0,
        times=3.0,
        cycle=cycle,
        design=design,
        answers=int(goodput * 2.5),
        goodput_per_second=goodput,
        cpu_seconds=4.0,
        answers_p99_seconds=0.25,
        trivial_p99_seconds=0.007,
        quiet_after_seconds=0.5,
        started_anew=False,
        conditions=FINE,
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]  # a name that is none fails here


def results(blocks: list[Block], cycles: int = 6) -> Results:
    plan = Plan(
        cores=2,
        designs=tuple(WORTH),
        works=(Work(work_ms=4.0, work_units=5000, s_seconds=0.00398712),),
        times=(3.0, 10.0),
        cycles=cycles,
        warm_seconds=0.5,
        measured_seconds=2.0,
        seed=1,
    )
    return Results({"cpu": "one"}, plan, tuple(blocks), {"hyper": "there is no compiler"})


def drifting(cycles: int = 6) -> list[Block]:
    return [
        block(design, cycle + 1, round(worth * SPEEDS[cycle], 3))
        for cycle in range(cycles)
        for design, worth in WORTH.items()
    ]


def row(found: Results, design: str) -> Row:
    (it,) = (row for row in found.rows if row.design == design)
    return it


def test_a_ratio_is_of_pairs_and_does_not_see_the_machine_drift() -> None:
    ratio = row(results(drifting()), "bounded").goodput_ratio
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.25, 1.25, 1.25))


def test_only_blocks_of_one_cycle_make_a_pair_and_void_ones_none() -> None:
    blocks = [
        block(OURS, 1, 100),
        block(OURS, 2, 300, conditions=VOID),
        block(OURS, 2, 200),  # its replacement
        block(OURS, 4, 900),
        block("bounded", 3, 1),
        block("bounded", 2, 100),
        block("bounded", 1, 100, conditions=VOID),
        block("bounded", 4, 1, conditions=VOID),
    ]
    (only,) = pairs(blocks, "bounded")
    assert [b.goodput_per_second for b in only] == [200, 100]
    found = row(results(blocks), "bounded")
    assert (found.pairs, found.blocks, found.void) == (1, 4, 2)
    assert results(blocks).invalid


def test_cpu_of_the_whole_tree_is_the_price_of_an_answer() -> None:
    blocks = [dataclasses.replace(b, cpu_seconds=8.0) if b.design == "bounded" else b for b in drifting()]
    ratio = row(results(blocks), "bounded").per_cpu_ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(2.5, rel=0.01)


def test_no_answer_at_all_gives_a_bound_and_not_infinity() -> None:
    blocks = [block(b.design, b.cycle, 0) if b.design == "pool" else b for b in drifting()]
    found = row(results(blocks), "pool")
    assert found.at_least
    assert found.goodput_ratio is not None
    assert 250 / 0.25 * 0.79 <= found.goodput_ratio.low <= found.goodput_ratio.high <= 250 / 0.25 * 2.01
    assert report.ratios(found, " to ")[0].startswith("> ")


def test_a_price_that_was_cut_short_gives_a_bound() -> None:
    blocks = [dataclasses.replace(b, started_anew=b.design == "pool") for b in drifting()]
    goodput, per_cpu = report.ratios(row(results(blocks), "pool"), "-")
    assert goodput == "12.5 (12.5-12.5)"
    assert per_cpu == "> 12.5 (12.5-12.5)"


def test_the_kept_rows_are_those_of_the_kept_blocks() -> None:
    kept = json.loads(KEPT.read_text())
    assert json.loads(json.dumps(Results.from_json(kept).to_json())) == kept


def test_a_short_form_has_no_interval_and_says_so() -> None:
    few = results(drifting(2), cycles=2)
    assert report.ratios(row(few, "bounded"), "-")[0] == "1.25"
    assert "2 pairs of blocks: too few for an interval" in " ".join(report.notes(few))
    assert "95 %" in " ".join(report.notes(results(drifting())))
    json.dumps(few.to_json(), allow_nan=False)  # an infinite end is no JSON


def test_results_are_read_back_as_they_were_written() -> None:
    blocks = [dataclasses.replace(b, cpu_seconds=4.25, conditions=VOID) for b in drifting()]
    blocks.append(block("pool", 3, 0, answers_p99_seconds=None, started_anew=True))
    found = results(blocks)
    kept = json.loads(json.dumps(found.to_json()))
    assert Results.from_json(kept) == found
    assert json.loads(json.dumps(Results.from_json(kept).to_json())) == kept  # rows are those of the blocks


def test_figures_are_kept_to_five_digits() -> None:
    kept = results([block(OURS, 1, 123.456789, answers_p99_seconds=0.0123456789)]).to_json()
    (values,) = kept["blocks"]
    named = dict(zip(kept["columns"], values, strict=True))
    assert (named["goodput_per_second"], named["answers_p99_seconds"]) == (123.46, 0.012346)


def test_every_figure_is_legible_on_80_columns() -> None:
    blocks = [dataclasses.replace(b, started_anew=b.design == "pool") for b in drifting()]
    blocks.append(block("pool", 7, 0, conditions=VOID))
    lines = printed(results(blocks))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "4 ms at 3x the limit, 1505 requests/s" in text
    assert "offloop 300 1 1 250 7" in text
    assert "process pool, 64 max 240 1.25 (1.25-1.25) 1.25 (1.25-1.25) 250 7" in text
    assert "aiohttp, process pool 24 12.5 (12.5-12.5) > 12.5 (12.5-12.5) 250 7" in text
    assert "1 of 19 blocks were void and do not count" in text
    assert "Skipped: 'hyper, spawn_blocking': there is no compiler." in text


def test_the_table_of_the_docs_has_a_line_for_each_row() -> None:
    lines = report.markdown(results(drifting())).splitlines()
    assert len(lines) == 2 + len(WORTH)
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[:5] == ["4 ms", "3x", TITLES["bounded"], "240/s", "1.25 (1.25 to 1.25)"]
    assert cells[-1] == "6"


def test_the_drawing_is_the_same_each_time_and_tells_each_ratio(tmp_path: Path) -> None:
    found = results(drifting())
    for name in ("one", "two"):
        figure.draw(found, tmp_path / name)
    drawn = (tmp_path / "one").read_text()
    assert drawn == (tmp_path / "two").read_text()
    for ratio in ("1.25 (1.25 to 1.25)", "12.5 (12.5 to 12.5)", TITLES["pool"], "4 ms at 3x the limit"):
        assert ratio in drawn
    assert TITLES[OURS] not in drawn.replace("offloop beside", "").replace("offloop / this", "")


def printed(found: Results) -> list[str]:
    written = io.StringIO()
    for table in report.tables(found):
        Console(width=80, file=written).print(table)
    return written.getvalue().splitlines()
