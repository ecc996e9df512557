"""Who alone owns what, held by reading imports. Who may import whom is in pyproject.toml: `make lint`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from aiohttp import web

from service.web.protocol import Protocol
from tests.support import ROOT

PACKAGES = ("service", "metrics", "loadtests")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# What decides by what it is told, and never by the clock.
TIMELESS = (
    *("statistics", "plan", "presets", "metastable", "ledger", "blocks", "results", "recovery"),
    *("evidence", "amounts", "queues", "comebacks", "finding", "claims", "verdict", "tables"),
    *("folder", "figures", "recovery_figure", "page", "report", "progress"),
)

# Where argv and the environment come in.
ENTRANCES = {"__main__", "exporter", "gunicorn_conf"}

# A folder owns for all that is in it.
OWNERS = {
    "psutil": {
        "loadtests/neighbours.py",
        "loadtests/sessions.py",
        "loadtests/load/witness.py",
        "loadtests/experiment/speed.py",
        "loadtests/experiment/testbed.py",
        "loadtests/peers",
    },
    "pydantic": {
        *("service/config", "service/app/query.py"),
        *("loadtests/load/schema.py", "loadtests/experiment/folder.py", "loadtests/peers"),
        "loadtests/capacity/folder.py",
    },
    "rich": {
        *("loadtests/load/commands.py", "loadtests/load/live.py", "loadtests/load/render.py"),
        *("loadtests/load/run.py", "loadtests/load/steps.py", "loadtests/peers"),
        *("loadtests/capacity/commands.py", "loadtests/experiment/commands.py"),
        *("loadtests/experiment/progress.py", "loadtests/experiment/run.py"),
        "loadtests/experiment/calibration.py",
        *("loadtests/capacity/run.py", "loadtests/capacity/self_test.py"),
    },
    "prometheus_client": {"metrics"},
    "multiprocessing": {"service/offload"},
    # The executor pool knows futures and starts nothing. The designs are programs of their own, and not ours.
    "concurrent": {
        "service/offload",
        "loadtests/peers/designs.py",
    },
    "distributed": {"service/offload/engines.py"},
    "dask": {"service/offload/engines.py"},
    "loky": {"service/offload/engines.py", "loadtests/peers/designs.py"},
    "anyio": {"loadtests/peers/designs.py"},
    "argparse": {"service/config/sources.py", "loadtests/arguments.py"},
    "pydantic_settings": {"service/config/sources.py"},
    "tomllib": {"service/config/sources.py"},
    "gunicorn": {"service/multi/io_process.py"},
    "uvloop": {"service/loops.py", "loadtests/peers/__main__.py"},
    "fastapi": {"loadtests/peers/designs.py"},
    "uvicorn": {"loadtests/peers/__main__.py"},
    "matplotlib": {
        *("loadtests/pages/drawing.py", "loadtests/load/figures.py", "loadtests/experiment/figures.py"),
        *("loadtests/capacity/figure.py", "loadtests/peers/figure.py"),
        "loadtests/experiment/recovery_figure.py",
    },
    "jinja2": {"loadtests/pages/frame.py"},
    "locust": {"loadtests/scripts"},
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


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_has_one_owner_is_imported_by_it_alone(path: Path) -> None:
    here = path.relative_to(ROOT)
    places = {here.as_posix(), *(above.as_posix() for above in here.parents)}
    for full in imports(path):
        owners = OWNERS.get(full.partition(".")[0])
        assert owners is None or owners & places, full


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in ENTRANCES], ids=name)
def test_argv_and_environment_are_read_only_at_the_entrances(path: Path) -> None:
    text = path.read_text()
    assert not imports(path) & {"sys.argv", "os.environ", "os.getenv"}
    assert "sys.argv" not in text
    assert "os.environ" not in text
    assert "getenv" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "loadtests/load").glob("*.py")), ids=name)
def test_in_the_load_only_the_driver_knows_the_clock(path: Path) -> None:
    assert ("time" in imports(path)) == (path.stem == "driver")


@pytest.mark.parametrize("module", TIMELESS)
def test_in_the_experiment_what_decides_knows_no_clock(module: str) -> None:
    assert not imports(ROOT / f"loadtests/experiment/{module}.py") & {"time", "datetime"}


CHASSIS = ROOT / "service"


def test_the_map_of_the_chassis_names_every_module() -> None:
    text = (CHASSIS / "__init__.py").read_text()
    for path in CHASSIS.rglob("*.py"):
        if path.stem != "__init__":
            assert path.name in text, name(path)
    named = set(re.findall(r"\b(\w+/\w+\.py)\b", text))
    assert {(CHASSIS / one).exists() for one in named} == {True}, named


def test_the_map_of_the_instrument_names_every_file() -> None:
    text = (ROOT / "loadtests/__init__.py").read_text()
    for room in ("pages", "load", "experiment", "capacity"):
        named = re.findall(r"^ +(\w+)\.py ", text[text.index(f"{room}/") :].split("\n\n")[0], re.MULTILINE)
        files = {path.stem for path in (ROOT / "loadtests" / room).glob("*.py")} - {"__init__"}
        assert sorted(named) == sorted(files)


def test_our_protocol_takes_no_private_name_of_its_base() -> None:
    overridden = {"connection_lost", "connection_made", "data_received", "finish_response", "handle_error"}
    overridden |= {"pause_writing", "log_exception", "resume_writing", "start"}
    ours = {name for name in vars(Protocol) if not name.startswith("__")}
    assert ours & set(dir(web.RequestHandler)) == overridden
