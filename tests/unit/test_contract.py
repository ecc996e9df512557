"""What users, dashboards and alerts rely on. It changes on purpose alone, with docs/contract.json.

Flags, variables, metrics, log events with their fields, exit codes, the main routes. Written anew by
`python -m tests.unit.test_contract`.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "docs/contract.json"
LEVELS = {"debug", "info", "warning", "error", "exception"}


def log_events(folder: Path) -> dict[str, list[str]]:
    """Each event that is logged, as "level event", and the fields that it may bear."""
    events: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(ast.Name("log"), level), args=[ast.Constant(str(event))]
                ) if level in LEVELS:
                    fields = events.setdefault(f"{level} {event}", set())
                    fields |= {keyword.arg or "**" for keyword in node.keywords}
    return {event: sorted(fields) for event, fields in sorted(events.items())}


def loggers(folder: Path) -> list[str]:
    """The names that lines bear."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="get_logger"), args=[ast.Constant(str(name))]):
                    found.add(name)
    return sorted(found)


def contract() -> dict[str, Any]:
    """All of it, from the code as it stands."""
    from metrics.catalogue import CATALOGUE
    from metrics.instruments import ConnectionEnd, RestartReason, TaskOutcome
    from service.config.settings import Settings, shown_default
    from service.config.sources import flag, variable
    from service.lifecycle import states

    return {
        "settings": {
            flag(name): {"variable": variable(name), "default": shown_default(name).replace("the cores", "")}
            for name in Settings.model_fields
        },
        "metrics": {
            row.name: {"type": row.type, "labels": list(row.labels), "buckets": list(row.buckets)}
            for row in CATALOGUE
        },
        "connection ends": list(ConnectionEnd),
        "task outcomes": list(TaskOutcome),
        "restart reasons": list(RestartReason),
        "log events": log_events(ROOT / "service"),
        "loggers": loggers(ROOT / "service"),
        "readiness": [state.value for state in states.State],
        "exit codes": {name: code for name, code in vars(states).items() if name.startswith("EXIT_")},
    }


def test_the_contract_is_what_it_was() -> None:
    assert contract() == json.loads(CONTRACT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    CONTRACT.write_text(json.dumps(contract(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit()
