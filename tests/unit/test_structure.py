"""Who may import whom, and who alone owns what: the direction of the design, held by reading imports."""

from __future__ import annotations

import ast
import re
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

# The rooms of the instrument: a file may import only from its own and from those that stand before it.
ROOMS = [
    *("scripts", "files", "neighbours", "machine", "pages"),
    *("load", "experiment", "capacity", "peers", "arguments", "__main__"),
]

# The same for the files of the experiment: what is planned, what is measured, what it means, how it is told.
EXPERIMENT = [
    *("statistics", "plan", "presets"),
    *("child", "counters", "ledger", "blocks", "results", "speed"),
    *("evidence", "claims", "verdict", "tables"),
    *("folder", "figures", "page", "report", "progress"),
    *("testbed", "run", "comparable", "compare"),
]

# What decides by what it is told, and never by the clock.
TIMELESS = {
    *("statistics", "plan", "presets", "ledger", "blocks", "results"),
    *("evidence", "claims", "verdict", "tables"),
    *("folder", "figures", "page", "report", "progress"),
}

# A folder owns for all that is in it.
OWNERS = {
    "psutil": {
        "loadtests/neighbours.py",
        "loadtests/load/witness.py",
        "loadtests/experiment/speed.py",
        "loadtests/experiment/testbed.py",
        "loadtests/peers",
    },
    "pydantic": {
        *("service/settings.py", "service/sources.py", "service/binding.py"),
        *("loadtests/load/schema.py", "loadtests/experiment/folder.py", "loadtests/peers"),
        "loadtests/capacity/folder.py",
    },
    "rich": {
        *("loadtests/__main__.py", "loadtests/load/live.py", "loadtests/load/run.py"),
        *("loadtests/load/steps.py", "loadtests/peers"),
        *("loadtests/experiment/progress.py", "loadtests/experiment/run.py"),
        *("loadtests/capacity/run.py", "loadtests/capacity/self_test.py"),
    },
    "prometheus_client": {"metrics"},
    "multiprocessing": {"service/lane.py", "service/stock_pool.py", "service/runner.py"},
    # The executor pool knows futures and starts nothing. The designs are programs of their own, and not ours.
    "concurrent": {
        "service/lane.py",
        "service/stock_pool.py",
        "service/executor_pool.py",
        "loadtests/peers/designs.py",
    },
    "argparse": {"service/sources.py", "loadtests/arguments.py", "loadtests/__main__.py"},
    "pydantic_settings": {"service/sources.py"},
    "tomllib": {"service/sources.py"},
    "gunicorn": {"service/worker.py"},
    "uvloop": {"service/loops.py", "loadtests/peers/__main__.py"},
    "fastapi": {"loadtests/peers/designs.py"},
    "uvicorn": {"loadtests/peers/__main__.py"},
    "matplotlib": {
        *("loadtests/pages/drawing.py", "loadtests/load/figures.py", "loadtests/experiment/figures.py"),
        *("loadtests/capacity/figure.py", "loadtests/peers/figure.py"),
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


LOADTESTS = [path for path in FILES if name(path).startswith("loadtests/")]


def of_loadtests(path: Path) -> set[tuple[str, ...]]:
    """The modules of the instrument that a file imports, as parts: room, then file."""
    return {tuple(full.split(".")[1:]) for full in modules(path) if full.startswith("loadtests.")}


@pytest.mark.parametrize("path", LOADTESTS, ids=name)
def test_the_rooms_of_the_instrument_import_in_one_direction(path: Path) -> None:
    room = path.relative_to(ROOT / "loadtests").with_suffix("").parts[0]
    if room == "__init__":
        assert not of_loadtests(path)
        return
    assert {parts[0] for parts in of_loadtests(path)} <= set(ROOMS[: ROOMS.index(room) + 1])


@pytest.mark.parametrize("path", sorted((ROOT / "loadtests/experiment").glob("*.py")), ids=name)
def test_the_experiment_imports_in_one_direction(path: Path) -> None:
    reached = {parts[1] for parts in of_loadtests(path) if parts[0] == "experiment"}
    before = [] if path.stem == "__init__" else EXPERIMENT[: EXPERIMENT.index(path.stem)]
    assert reached <= set(before)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_has_one_owner_is_imported_by_it_alone(path: Path) -> None:
    here = path.relative_to(ROOT)
    places = {here.as_posix(), *(above.as_posix() for above in here.parents)}
    for full in imports(path):
        owners = OWNERS.get(full.partition(".")[0])
        assert owners is None or owners & places, full


@pytest.mark.parametrize("path", FILES, ids=name)
def test_argv_and_environment_are_read_only_at_the_entrances(path: Path) -> None:
    text = path.read_text()
    if path.stem not in {"__main__", "exporter", "gunicorn_conf"}:
        assert not imports(path) & {"sys.argv", "os.environ", "os.getenv"}
        assert "sys.argv" not in text
        assert "os.environ" not in text
        assert "getenv" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "loadtests/load").glob("*.py")), ids=name)
def test_in_the_load_only_the_driver_knows_the_clock(path: Path) -> None:
    assert ("time" in imports(path)) == (path.stem == "driver")


@pytest.mark.parametrize("path", sorted((ROOT / "loadtests/experiment").glob("*.py")), ids=name)
def test_in_the_experiment_what_decides_knows_no_clock(path: Path) -> None:
    if path.stem in TIMELESS:
        assert not imports(path) & {"time", "datetime"}


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
