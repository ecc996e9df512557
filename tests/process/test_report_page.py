"""The report in a real browser, as a reader sees it: light and dark, at the width of a laptop.

The screenshots stay in `runs/test-artefacts/`, to be looked at.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from loadtests.experiment import report
from loadtests.experiment.folder import RunFolder
from loadtests.experiment.results import Summary
from loadtests.experiment.verdict import judge
from loadtests.load import page
from tests.support import ROOT
from tests.support.browser import Page, chromium, page_at
from tests.support.run_folders import RUNS, keep, keep_steps
from tests.support.samples import steady
from tests.support.synthetic import plan_of, summary_of

ARTEFACTS = ROOT / "runs/test-artefacts"
WIDTH = 1280

# What is in the page and can be seen: its text with its contrast to the paper, its figures with their size.
# Three to one is the least contrast of large text and of a figure's parts (WCAG 2.2, 1.4.3 and 1.4.11).
LOOK = """(() => {
  const paper = getComputedStyle(document.body).backgroundColor;
  const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(value => channel(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = colour => {
    const [high, low] = [light(colour), light(paper)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const seen = element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 &&
      element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  };
  const weak = [];
  const texts = "h1, h2, p, li span, td, th, dd, dt, figcaption, svg text";
  for (const element of document.querySelectorAll(texts)) {
    const style = getComputedStyle(element);
    const colour = element.ownerSVGElement ? style.fill : style.color;
    const isOnBar = colour === paper;  // words in the paper's own colour stand on a bar
    if (seen(element) && !isOnBar && contrast(colour) < 3)
      weak.push([element.textContent.trim(), colour]);
  }
  return {
    paper, weak,
    wide: document.documentElement.scrollWidth,
    cut: [...document.querySelectorAll(".scroll")].filter(e => seen(e) && e.scrollWidth > e.clientWidth)
      .map(e => e.textContent.trim().slice(0, 40)),
    claims: [...document.querySelectorAll(".claim")].filter(seen).map(e => e.firstChild.textContent.trim()),
    verdicts: [...document.querySelectorAll(".verdict")].filter(seen).map(e => e.textContent.trim()),
    figures: Object.fromEntries([...document.querySelectorAll("figure")].map(figure => {
      const box = figure.querySelector("svg").getBoundingClientRect();
      const words = [...figure.querySelectorAll("svg text")].filter(seen).length;
      return [figure.id, [box.left, box.right, box.height, words]];
    })),
  };
})()"""


@pytest.mark.parametrize(
    ("preset", "scheme"),
    [("controlled", "light"), ("accept-all-we-can", "dark"), ("threads", "light"), ("metastable", "dark")],
)
def test_a_browser_shows_verdicts_and_figures_and_asks_for_nothing_else(
    tmp_path: Path, preset: str, scheme: str
) -> None:
    RunFolder(tmp_path).write("summary.json", Summary, summary_of(plan_of(preset)))
    summary, _ = report.draw(RunFolder(tmp_path))
    seen = look(tmp_path / "report.html", f"report-{preset}-{scheme}", scheme, tmp_path / "browser")
    verdicts = judge(summary)
    assert verdicts
    assert seen["claims"] == [verdict.claim for verdict in verdicts]
    assert seen["verdicts"] == [verdict.verdict.capitalize() for verdict in verdicts]
    assert seen["figures"].keys() == {path.stem for path in tmp_path.glob("*.svg")} != set()


@pytest.mark.parametrize(("kind", "scheme"), [("one rate", "dark"), ("several rates", "light")])
def test_a_browser_shows_the_page_of_a_run(tmp_path: Path, kind: str, scheme: str) -> None:
    if kind == "one rate":
        of = RUNS["every kind"]
        folder = keep(tmp_path / "run", **{**of, "thresholds": ["p99<100ms", "errors<1%"]})
    else:
        steps = {"100": steady(), "200": steady(took=0.5)}
        folder = keep_steps(tmp_path / "run", [*steps], steps, thresholds=["p99<100ms"], slo_seconds=0.1)
    name = f"run-{kind.replace(' ', '-')}-{scheme}"
    seen = look(page.draw(folder), name, scheme, tmp_path / "browser")
    if kind == "one rate":
        assert seen["claims"] == ["p99<100ms", "errors<1%"]
        assert seen["figures"].keys() == {"latency", "rates", "quantiles"}
    else:
        assert seen["verdicts"] == ["MISSED", "OK", "MISSED"]
        assert seen["figures"].keys() == {"steps"}


def look(file: Path, name: str, scheme: str, profile: Path) -> Any:
    """What a reader sees of a page, after what holds for every page was found to hold."""
    url = file.as_uri()

    async def visit(address: str) -> tuple[Any, Page, bytes]:
        async with page_at(address) as tab:
            await tab.open(url, width=WIDTH, scheme=scheme)
            return await tab.evaluate(LOOK), tab, await tab.screenshot()

    with chromium(profile) as address:
        seen, tab, shot = asyncio.run(visit(address))
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    (ARTEFACTS / f"{name}.png").write_bytes(shot)

    assert tab.complaints == []
    # The icon is `data:,` so that the browser asks nobody for one; Chromium reports it all the same.
    assert [asked for asked in tab.requests if not asked.startswith("data:")] == [url]
    for figure, (left, right, height, texts) in seen["figures"].items():
        assert 0 <= left < right <= WIDTH, figure
        assert height > 100, figure
        assert texts > 5, figure
    assert seen["wide"] <= WIDTH, "the page scrolls sideways"
    assert seen["cut"] == [], "a table is wider than its place"
    assert seen["weak"] == [], "text that cannot be read on this paper"
    dark = sum(int(part) for part in seen["paper"].strip("rgb()").split(",")) < 3 * 128
    assert dark == (scheme == "dark")
    return seen
