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
from tests.process.browser_support import Page, chromium, page_at
from tests.process.support import ROOT
from tests.unit.synthetic import plan_of, summary_of

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
    [("controlled", "light"), ("accept-all-we-can", "dark"), ("threads", "light")],
)
def test_a_browser_shows_verdicts_and_figures_and_asks_for_nothing_else(
    tmp_path: Path, preset: str, scheme: str
) -> None:
    RunFolder(tmp_path).write("summary.json", Summary, summary_of(plan_of(preset)))
    summary, _ = report.draw(RunFolder(tmp_path))
    url = (tmp_path / "report.html").as_uri()

    async def visit(address: str) -> tuple[Any, Page, bytes]:
        async with page_at(address) as page:
            await page.open(url, width=WIDTH, scheme=scheme)
            return await page.evaluate(LOOK), page, await page.screenshot()

    with chromium(tmp_path / "browser") as address:
        seen, page, shot = asyncio.run(visit(address))
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    (ARTEFACTS / f"report-{preset}-{scheme}.png").write_bytes(shot)

    assert page.complaints == []
    # The icon is `data:,` so that the browser asks nobody for one; Chromium reports it all the same.
    assert [asked for asked in page.requests if not asked.startswith("data:")] == [url]
    verdicts = judge(summary)
    assert verdicts
    assert seen["claims"] == [verdict.claim for verdict in verdicts]
    assert seen["verdicts"] == [verdict.verdict.capitalize() for verdict in verdicts]
    assert seen["figures"].keys() == {path.stem for path in tmp_path.glob("*.svg")} != set()
    for name, (left, right, height, texts) in seen["figures"].items():
        assert 0 <= left < right <= WIDTH, name
        assert height > 100, name
        assert texts > 5, name
    assert seen["wide"] <= WIDTH, "the page scrolls sideways"
    assert seen["cut"] == [], "a table is wider than its place"
    assert seen["weak"] == [], "text that cannot be read on this paper"
    dark = sum(int(part) for part in seen["paper"].strip("rgb()").split(",")) < 3 * 128
    assert dark == (scheme == "dark")
