"""Each alert has a paragraph that says what to do, and each paragraph an alert that leads there."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT
from tests.support.prometheus import hastened

RULES = (ROOT / "metrics/prometheus/rules.yml").read_text("utf-8")
PAGE = (ROOT / "docs/alerts.md").read_text("utf-8")
PARAGRAPHS = dict(re.findall(r"^## (\w+)\n\n((?:.+\n)+)", PAGE, re.MULTILINE))
RUNBOOKS = re.findall(r'- alert: (\w+)\n(?:(?!      - ).*\n)*?          runbook: "(.+)"\n', RULES)


def test_each_alert_has_its_paragraph_and_each_paragraph_its_alert() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert alerts
    assert sorted(alerts) == sorted(PARAGRAPHS)
    assert [(name, f"docs/alerts.md#{name.lower()}") for name in alerts] == RUNBOOKS


@pytest.mark.parametrize("name", PARAGRAPHS)
def test_a_paragraph_is_more_than_the_message(name: str) -> None:
    (rule,) = re.findall(rf"- alert: {name}\n((?:(?!      - ).*\n)*)", RULES)
    action = rule.partition("action:")[2].split()
    assert len(PARAGRAPHS[name].split()) > max(len(action), 30)


@pytest.mark.parametrize(
    ("text", "quicker"),
    [
        ("rate(a[15s])", "rate(a[3000ms])"),
        ("for: 1m", "for: 12000ms"),
        ("scrape_interval: 500ms", "scrape_interval: 100ms"),
        ("record: a:mean15s", "record: a:mean15s"),
        ("expr: a > 50 # not 5s", "expr: a > 50 # not 5s"),
    ],
)
def test_only_durations_are_hastened(text: str, quicker: str) -> None:
    assert hastened(text, 5) == quicker
