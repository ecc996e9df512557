"""The limits of HAProxy and of the service agree, as the page about replicas says they must."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import pytest

from docs import reading
from service.config.settings import Settings
from service.config.sources import flag
from tests.support import ROOT

CONFIGURATION = (ROOT / "deploy/haproxy.cfg").read_text("utf-8")
SET = re.sub(r"^\s*#.*$", "", CONFIGURATION, flags=re.MULTILINE)
PAGE = (ROOT / "docs/replicas.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \| (\w+) (?:to )?`(--[\w-]+)` \(([\d.]+)\) \|", PAGE, re.MULTILINE)
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "equal": operator.eq,
    "above": operator.gt,
    "below": operator.lt,
}
WITHOUT_A_FLAG = {"timeout connect", "timeout check", "timeout tunnel"}
"""Between HAProxy and a replica, or of what is no request."""


def our_value(name: str) -> float:
    """A setting of a replica as the page starts it, else its default."""
    (command,) = [command for command in reading.commands(PAGE) if " -m service " in command]
    given = re.search(rf" {name} (\S+)", command)
    (field,) = [key for key in Settings.model_fields if flag(key) == name]
    return float(given[1] if given else Settings.model_fields[field].default)


def their_value(directive: str) -> float:
    """Seconds or a number; of the checks, how long it takes until a replica is down."""
    if checks := re.fullmatch(r"inter (\d+)ms fall (\d+)", directive):
        return int(checks[1]) / 1e3 * int(checks[2])
    number, unit = re.findall(r" (\d+)(ms|s|)$", directive)[0]
    return int(number) / (1e3 if unit == "ms" else 1)


@pytest.mark.parametrize(("directive", "relation", "name", "shown"), ROWS, ids=lambda cell: cell)
def test_a_limit_of_haproxy_agrees_with_ours(directive: str, relation: str, name: str, shown: str) -> None:
    assert re.search(rf"(?m)\b{directive}\b", SET)
    assert float(shown) == our_value(name)
    assert RELATIONS[relation](their_value(directive), our_value(name))


def test_the_page_has_a_row_for_every_limit_that_has_a_flag() -> None:
    rows = {directive.rpartition(" ")[0] for directive, *_ in ROWS}
    found = set(re.findall(r"^\s*(timeout [\w-]+) ", SET, re.MULTILINE))
    assert found - WITHOUT_A_FLAG == {row for row in rows if row.startswith("timeout")}
    assert {"maxconn", "inter 500ms fall"} < rows


def test_the_stack_starts_replicas_as_the_page_does() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    (replica,) = re.findall(r"^  replica:\n((?:    .*\n)+)", compose, re.MULTILINE)
    given = dict(re.findall(r'^      SERVICE_(\w+): "(.+)"$', replica, re.MULTILINE))
    assert given
    (command,) = [command for command in reading.commands(PAGE) if " -m service " in command]
    assert {f"{flag(name.lower())} {value}" for name, value in given.items()} == {
        " ".join(words) for words in re.findall(r"(--(?:max|drain)\S+) (\S+)", command)
    }


def test_one_deadline_of_a_client_is_for_bodies_and_for_answers() -> None:
    assert our_value("--body-timeout") == our_value("--write-timeout") == their_value("timeout client 20s")


def test_haproxy_never_queues_more_than_a_service_holds_by_default() -> None:
    (frontend,) = re.findall(r"^frontend http\n((?:    .*\n|\n)+)", SET, re.MULTILINE)
    (most,) = re.findall(r"^    maxconn (\d+)$", frontend, re.MULTILINE)
    described = Settings.model_fields["max_connections"].description or ""
    assert f"at most {most}" in described


def test_figures_stay_on_loopback_and_nothing_is_sent_twice() -> None:
    assert '"${OFFLOOP_FIGURES-127.0.0.1:8404}"' in SET
    assert re.findall(r"^\s*retry-on (.+)$", SET, re.MULTILINE) == ["conn-failure"]
