"""The load-test tools people have, run as their page says, against the service's own counters.

The commands come from docs/load-test-tools.md, so the page cannot say what does not work. What a tool
counted and what the service counted must agree to the connection; where they may differ, the class is
named and counted as well.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.books import Books, books, check_wrk, option
from tests.support.child import Child, service
from tests.support.tools import need, run
from tests.support.waiting import until

PAGE = (ROOT / "docs/load-test-tools.md").read_text()
SCRIPTS = ROOT / "loadtests/scripts"
FILES = sorted(
    path for path in SCRIPTS.iterdir() if path.is_file()
)  # Locust leaves a __pycache__ beside them
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
RUN_HERE = [command for command in COMMANDS if not command.startswith(("k6 ", "locust "))]
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One service for all tools; its work is small, so that they make many connections in little time, and it
    refuses nobody: while a machine stands still for longer than --queue-wait, it would."""
    folder = tmp_path_factory.mktemp("tools")
    with service(folder / "log", "--work-units", "2000", "--queue-wait", "off") as started:
        started.ready()
        yield started
        assert started.end() == 0
    shutil.rmtree(folder)


def settled(child: Child) -> dict[str, float]:
    """The counters once nothing is queued, held or running.

    Twice in a row, because one scrape reads its gauges one after the other: a connection that is taken
    from the kernel's queue in between is in none of them.
    """
    idle = (
        "http_connections_active",
        "listener_backlog_connections",
        "offload_queue_depth",
        "offload_running",
    )
    rows: list[dict[str, float]] = []

    def at_rest() -> bool:
        rows.append(child.scrape())
        return len(rows) > 1 and not any(row[name] for row in rows[-2:] for name in idle)

    until(at_rest, "the service is at rest")
    return rows[-1]


def check_siege(command: str, said: str, server: Books) -> None:
    """siege with -r ends when every user has its last answer: nothing is under way."""
    document = json.loads(said[said.index("{") : said.rindex("}") + 1])
    planned = option(command, "c") * option(command, "r")
    assert document["failed_transactions"] == 0
    assert document["transactions"] == document["successful_transactions"] == planned
    assert server["accepted"] == server["tasks"] == server["answers"] == planned


def check_hey(command: str, said: str, server: Books) -> None:
    """hey waits for what is under way, with -n and with -z, so all counts are one number."""
    if "-o csv" in command:
        header, *lines = [line for line in said.splitlines() if "," in line]
        statuses = [line.split(",")[header.split(",").index("status-code")] for line in lines]
        answered = len(statuses)
        assert set(statuses) == {"200"}
    else:
        ((status, count),) = re.findall(r"\[(\d{3})\]\s+(\d+) responses", said)
        answered = int(count)
        assert status == "200"
        assert answered == option(command, "n")
    assert "Error distribution" not in said
    assert server["accepted"] == server["tasks"] == server["answers"] == answered


def check_loadtests(command: str, said: str, server: Books) -> None:  # noqa: ARG001  # the shape of the others
    """Waits for every answer or its time-out; connected is what the service's kernel saw."""
    found = re.search(r"sent = connected (\d+)\s+connected = answered (\d+) \+ unanswered 0", said)
    assert found, said
    connected, answered = map(int, found.groups())
    assert connected > 0
    assert server["accepted"] == connected
    assert server["tasks"] == server["answers"] == answered


# What to look for, the Debian package it is in, and how its books are compared. Exit code 3 of our own
# is INVALID, the machine was too busy for its figures to mean anything: the books close all the same.
TOOLS: dict[str, tuple[str, set[int], Callable[[str, str, Books], None]]] = {
    "wrk": ("wrk", {0}, check_wrk),
    "siege": ("siege", {0}, check_siege),
    "loadtests/scripts/hey.sh": ("hey", {0}, check_hey),
    ".venv/bin/python": (sys.executable, {0, 3}, check_loadtests),
}


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_tool_counts_what_the_service_counts(command: str, child: Child, tmp_path: Path) -> None:
    words = shlex.split(command)
    tool, codes, check = TOOLS[words[0]]
    need(tool, tool)
    if words[0] == ".venv/bin/python":  # the environment of these tests may be another
        words[0] = sys.executable
    address = child.ready()[0]
    before = settled(child)

    code, said = run([word.replace(ADDRESS, address) for word in words], tmp_path)

    assert code in codes, said
    server = books(before, settled(child))
    check(command, said, server)
    assert server["completed"] == server["accepted"]
    # wrk alone leaves in the middle of things: what it has asked for last is then not started.
    assert server["left"] <= (option(command, "c") if tool == "wrk" else 0)
    others = server["requests"] - server["answers"] - server["left"]
    assert others == 0, "an answer other than 200, or for another route"


def test_the_page_has_a_command_for_every_tool_and_every_script() -> None:
    assert {shlex.split(command)[0] for command in RUN_HERE} == TOOLS.keys()
    text = "\n".join(COMMANDS)
    assert {path.name for path in FILES if path.name not in text} == set()


@pytest.mark.parametrize("script", FILES, ids=lambda path: path.name)
def test_a_script_begins_with_its_command_and_says_what_it_cannot_tell(script: Path) -> None:
    text = script.read_text()
    comments = [line.lstrip("-/# ") for line in text.splitlines() if re.match(r"(--|//|#)(?!!)", line)]
    assert comments[0] in COMMANDS
    head = " ".join(comments[:6])
    assert "Tells how " in head
    assert re.search(r"[Cc]annot ", head)
    assert re.search(r"\((a closed|an open) loop\)", head)


def test_the_links_of_the_page_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_k6_would_send_the_published_phases_one_connection_per_request(tmp_path: Path) -> None:
    """k6 cannot be had here; node reads its language, and what the script asks of k6 is a few names."""
    node = need("node", "nodejs")
    script = (SCRIPTS / "k6.js").read_text()
    (tmp_path / "k6.mjs").write_text(script)
    code, said = run([node, "--check", tmp_path / "k6.mjs"], tmp_path)
    assert code == 0, said

    module = tmp_path / "node_modules/k6"
    module.mkdir(parents=True)
    exports = {".": "./index.mjs", "./http": "./http.mjs"}
    (module / "package.json").write_text(json.dumps({"name": "k6", "exports": exports}))
    (module / "index.mjs").write_text(
        "export const check = (answer, tests) => {"
        "  for (const name in tests) seen.checks.push([name, tests[name](answer)])"
        "};"
    )
    (module / "http.mjs").write_text(
        "export default { get: (url, how) => (seen.requests.push([url, how]), { status: 200 }) };"
    )
    (tmp_path / "main.mjs").write_text(
        "globalThis.seen = { requests: [], checks: [] }; globalThis.__ENV = { URL: 'http://x/data' };"
        "const script = await import('./k6.mjs'); script.default();"
        "console.log(JSON.stringify({ options: script.options, ...seen }));"
    )
    code, said = run([node, tmp_path / "main.mjs"], tmp_path)
    assert code == 0, said
    seen = json.loads(said)
    scenarios = list(seen["options"]["scenarios"].values())

    published = [20, 60, 100, 120, 160, 180, 200, *range(210, 351, 10)]
    assert [scenario["rate"] for scenario in scenarios] == published
    assert [scenario["startTime"] for scenario in scenarios] == [f"{20 * n}s" for n in range(22)]
    assert {(s["executor"], s["timeUnit"], s["duration"]) for s in scenarios} == {
        ("constant-arrival-rate", "1s", "20s")
    }
    assert seen["options"]["noConnectionReuse"] is True
    assert seen["requests"] == [["http://x/data", {"timeout": "10s"}]]
    assert [passed for _, passed in seen["checks"]] == [True]
    assert len(scenarios) * 20 == 7 * 60 + 20
    assert "7 minutes and 20 seconds" in PAGE


def test_locust_would_ask_for_data_and_close_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locust is no dependency; what the script asks of it is a few names."""
    locust = types.ModuleType("locust")
    locust.__dict__.update(FastHttpUser=object, constant_throughput=float, task=lambda function: function)
    monkeypatch.setitem(sys.modules, "locust", locust)
    user = runpy.run_path(str(SCRIPTS / "locustfile.py"))["Client"]()
    asked: list[tuple[str, dict[str, str]]] = []
    user.client = types.SimpleNamespace(get=lambda path, headers: asked.append((path, headers)))
    user.data()
    assert asked == [("/data", {"Connection": "close"})]
    assert user.wait_time == 10
    assert "20 users, 10 requests a second each" in PAGE
