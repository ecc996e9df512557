"""What a load test tool counted, held against what the service counted."""

from __future__ import annotations

import re

from metrics.exposition import total

Books = dict[str, int]
"""How far the service's counters moved: accepted, completed, answers (200), others, tasks."""


def books(before: dict[str, float], after: dict[str, float]) -> Books:
    names = {
        "accepted": "http_connections_accepted_total",
        "completed": "http_connections_completed_total",
        "requests": "http_requests_total",
        "tasks": "offload_tasks_total",
    }
    moved = {short: int(total(after, name) - total(before, name)) for short, name in names.items()}
    for short, status in (("answers", 200), ("left", 499)):
        key = f"http_requests_total{{method=GET,route=/data,status={status}}}"
        moved[short] = int(after.get(key, 0) - before.get(key, 0))
    return moved


def option(command: str, letter: str) -> int:
    """The number after `-c`, joined to it or not."""
    found = re.search(rf" -{letter} ?(\d+)", command)
    assert found, command
    return int(found[1])


def check_wrk(command: str, said: str, server: Books) -> None:
    """wrk ends in the middle of things: it stops its loops and leaves, and what was under way is cut off.

    Connections: one with which its resolver tries the address; one for each slot at the start; one
    after each answer, because the service closes. A connect on loopback is complete when it returns, so
    also the last ones are accepted. Requests: what was cut off was sent (Lua counts each as it is
    written, and a request fits into one write), so it is read and worked on: tasks = sent. Whether its
    answer still counts as written depends on whether wrk had left by then: answers lie in between.
    """
    found = re.search(r"^books: sent (\d+) answered (\d+) failed (\d+)$", said, re.MULTILINE)
    assert found, said
    sent, answered, failed = map(int, found.groups())
    slots = option(command, "c")
    assert failed == 0
    assert answered > slots
    assert server["accepted"] == answered + slots + 1
    assert server["tasks"] == sent
    assert 0 <= sent - answered <= slots
    assert answered <= server["answers"] <= sent
    # wrk's own summary counts what its script counts.
    assert f" {answered} requests in " in said
