"""Who may import whom, and who alone owns what: the direction of the design, held by reading imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from aiohttp import web

from service.protocol import Protocol

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "metrics", "loadtests")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# A file of the chassis may import only files of ours that stand before it in this list.
CHASSIS = [
    *(
        "shield",
        "background",
        "work",
        "binding",
        "settings",
        "sources",
        "volume",
        "logs",
        "tls",
        "tcp",
        "tokens",
    ),
    *("deadlines", "fates", "listener", "states", "orders", "watch", "loops", "share"),
    *("identity", "request_log"),
    *(
        "accept",
        "admission",
        "runner",
        "lane",
        "crew",
        "workers",
        "stock_pool",
        "executor_pool",
        "offload",
        "refusal",
        "protocol",
        "connection",
        "drain",
        "app",
        "loading",
        "server",
        "serve",
        "command",
        "__main__",
        "worker",
        "exporter",
        "gunicorn_conf",
    ),
]

OWNERS = {
    "prometheus_client": {"metrics"},
    "multiprocessing": {"service/lane.py", "service/stock_pool.py", "service/runner.py"},
    # The executor pool knows futures and starts nothing. The designs are programs of their own, and not ours.
    "concurrent": {
        "service/lane.py",
        "service/stock_pool.py",
        "service/executor_pool.py",
        "loadtests/peers/designs.py",
    },
    "argparse": {"service/sources.py", "loadtests/__main__.py"},
    "pydantic_settings": {"service/sources.py"},
    "tomllib": {"service/sources.py"},
    "gunicorn": {"service/worker.py"},
    "uvloop": {"service/loops.py", "loadtests/peers/__main__.py"},
    "fastapi": {"loadtests/peers/designs.py"},
    "uvicorn": {"loadtests/peers/__main__.py"},
    "matplotlib": {"loadtests/experiment/figures.py", "loadtests/peers/report.py"},
    "jinja2": {"loadtests/experiment/page.py"},
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at any depth; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(path: Path) -> set[str]:
    """The modules of ours among them."""
    return {full for full in imports(path) if (ROOT / (full.replace(".", "/") + ".py")).exists()}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_packages_do_not_reach_into_each_other(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0]
    allowed = {
        "service": {"service", "metrics"},
        "metrics": {"metrics"},
        "loadtests": {"loadtests", "metrics"},
    }
    reached = {full.partition(".")[0] for full in imports(path)} & {*PACKAGES, "tests"}
    assert reached <= allowed[here]


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("service/")], ids=name)
def test_the_chassis_imports_in_one_direction(path: Path) -> None:
    if path.stem == "__init__":
        assert not modules(path)
        return
    before = set(CHASSIS[: CHASSIS.index(path.stem)])
    assert {full.split(".")[1] for full in modules(path) if full.startswith("service.")} <= before


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_has_one_owner_is_imported_by_it_alone(path: Path) -> None:
    for full in imports(path):
        owners = OWNERS.get(full.partition(".")[0])
        if owners is not None:
            assert name(path) in owners or path.relative_to(ROOT).parts[0] in owners, full


@pytest.mark.parametrize("path", FILES, ids=name)
def test_argv_and_environment_are_read_only_at_the_entrances(path: Path) -> None:
    text = path.read_text()
    if path.stem not in {"__main__", "exporter", "gunicorn_conf"}:
        assert not imports(path) & {"sys.argv", "os.environ", "os.getenv"}
        assert "sys.argv" not in text
        assert "os.environ" not in text
        assert "getenv" not in text


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("loadtests/")], ids=name)
def test_in_the_load_tests_only_the_driver_sends_by_the_clock(path: Path) -> None:
    schedule = {
        "schedule",
        "sample",
        "connection",
        "histogram",
        "summary",
        "verdict",
        "ledger",
        "evidence",
        "matrix",
    }
    if path.stem in schedule:
        assert "time" not in imports(path)


def test_our_protocol_takes_no_private_name_of_its_base() -> None:
    overridden = {"connection_lost", "connection_made", "data_received", "finish_response", "handle_error"}
    overridden |= {"pause_writing", "log_exception", "resume_writing", "start"}
    ours = {name for name in vars(Protocol) if not name.startswith("__")}
    assert ours & set(dir(web.RequestHandler)) == overridden
