"""Every command that a page shows is run, or, where that costs too much, held to what it would run.

A table says how commands of each kind are checked; a command of no kind fails. docs/load-test-tools.md and
docs/your-own-service.md have tests of their own, which run all of theirs.
"""

from __future__ import annotations

import argparse
import configparser
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from gunicorn.config import KNOWN_SETTINGS

from docs import reading
from loadtests import __main__ as loadtests
from loadtests.arguments import Parser
from service.config.settings import Settings
from service.config.sources import flag
from tests.support import ROOT
from tests.support.child import Child, service
from tests.support.tools import need

FOLLOWED = {"load-test-tools.md": "test_tools.py", "your-own-service.md": "test_docs_your_own_service.py"}
PAGES = [page for page in reading.PAGES if page.name not in FOLLOWED]
TEXTS = [page.read_text("utf-8") for page in PAGES]
COMMANDS = sorted(
    {command for text in TEXTS for command in reading.commands(text)}
    | {found for text in TEXTS for found in re.findall(r"`(\.venv/bin/python -m [^`]+)`", text)}
)
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
LANGUAGES = {"console", "dockerfile", "ini", "mermaid", "python", "text", "yaml"}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A service for whatever asks one."""
    with service(tmp_path_factory.mktemp("docs") / "log", "--work-units", "10") as started:
        started.ready()
        yield started
        assert started.end() == 0


def ended(words: list[str], **env: str) -> str:
    """What a command says that ends by itself, and well."""
    found = subprocess.run(
        words, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def makes(words: list[str], child: Child) -> None:
    """make knows the target; what it would run is there, and is checked in its turn if it is of a kind."""
    need("make", "make")
    lines = ended(["make", "--dry-run", *words[1:]]).replace("\\\n", " ").splitlines()
    recipe = [shlex.split(line) for line in lines if line.startswith(".venv/bin/")]
    assert recipe
    for parts in recipe:
        assert Path(sys.executable).with_name(Path(parts[0]).name).exists()
        if kind(parts) in CHECKS:
            CHECKS[kind(parts)](parts, child)


def variables_of(words: list[str]) -> dict[str, str]:
    """What a command gives to its environment."""
    return dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))


def serves(words: list[str], _: Child) -> None:
    """`--help` and `--show-settings` are run; of a service that would serve, the settings are read."""
    variables = variables_of(words)
    flags = words[words.index("service") + 1 :]
    more = [] if {"--help", "--show-settings"} & set(flags) else ["--show-settings"]
    said = ended([sys.executable, "-m", "service", *flags, *more], **variables)
    assert "--accept-batch" in said


class _ReadError(Exception):
    """The command line has been read; carries the parser."""


def reader(*words: str) -> Parser:
    """The parser of `python -m loadtests`, once it has read these words; nothing else happens."""
    parse = Parser.parse_args

    def read(self: Parser, argv: list[str]) -> NoReturn:
        parse(self, argv)
        raise _ReadError(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", read)
        with pytest.raises(_ReadError) as found:
            loadtests.main(words)
    parser: Parser = found.value.args[0]
    return parser


def measures(words: list[str], _: Child) -> None:
    """The command line is read; nothing is sent."""
    if "--help" in words:
        assert "usage: " in ended([sys.executable, *words[1:]])
    else:
        reader(*words[words.index("loadtests") + 1 :])


def asks(words: list[str], child: Child) -> None:
    """curl gets an answer; 8081 is the admin port."""
    curl = need("curl", "curl")
    for at, word in enumerate(words):
        if word.startswith("http://"):
            words[at] = word.replace(
                f"http://{urlsplit(word).netloc}", child.ready()[urlsplit(word).port == 8081]
            )
    assert ended([curl, "--silent", "--show-error", "--fail", *words[1:]])


def forks(words: list[str], _: Child) -> None:
    """gunicorn reads the configuration."""
    gunicorn = Path(sys.executable).with_name("gunicorn")
    ended([str(gunicorn), "--check-config", *words[1:]])


def composes(words: list[str], _: Child) -> None:
    """Profiles and services are those of the file; a Docker engine runs them in .ci/stack."""
    assert words[1] == "compose"
    known = set(re.findall(r"^  (\w+):$", COMPOSE, re.MULTILINE))
    for before, word in itertools.pairwise(words):
        if before == "--profile":
            assert f"profiles: [{word}]" in COMPOSE
        if before == "--rm":
            assert word in known
        if before == "--scale":
            assert word.partition("=")[0] in known
    if "up" in words:
        named = words[words.index("up") + 1 :]
        assert {word for word in named if re.fullmatch(r"\w+", word)} <= known


def parses(words: list[str], _: Child) -> None:
    """A shell script is there, can be started, and is a shell script."""
    assert os.access(ROOT / words[0], os.X_OK)
    ended(["bash", "-n", words[0]])


def balances(words: list[str], _: Child) -> None:
    """HAProxy reads the configuration."""
    ended([need("haproxy", "haproxy"), "-c", *words[words.index("haproxy") + 1 :]], **variables_of(words))


CHECKS: dict[str, Callable[[list[str], Child], None]] = {
    "make": makes,
    ".venv/bin/python -m service": serves,
    ".venv/bin/python -m loadtests": measures,
    "curl": asks,
    ".venv/bin/gunicorn": forks,
    "docker": composes,
    "haproxy": balances,
    ".ci/run": parses,
}


def kind(words: list[str]) -> str:
    """The beginning of a command that says how it is checked; variables before it count for nothing."""
    plain = " ".join(word for word in words if not re.match(r"[A-Z_]+=", word))
    return next((one for one in CHECKS if plain == one or plain.startswith(f"{one} ")), "no kind")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_does_what_it_can_without_a_machine_of_its_own(
    command: str, child: Child
) -> None:
    words = shlex.split(command, comments=True)
    assert kind(words) in CHECKS, "say how a command of this kind is checked"
    CHECKS[kind(words)](words, child)


def test_every_kind_is_there_and_every_other_page_is_followed() -> None:
    assert {kind(shlex.split(command, comments=True)) for command in COMMANDS} == CHECKS.keys()
    for page, test in FOLLOWED.items():
        assert (ROOT / "docs" / page).exists()
        assert page in (Path(__file__).parent / test).read_text("utf-8")


def flags() -> set[str]:
    """All that service, instrument and gunicorn know, and a few of the other tools that pages name."""
    known = {
        "--cases",
        "--resume",
        "--config",
        "--show-settings",
        "--build",
        "--master",
        "--processes",
        "--worker",
    }
    known |= {flag(name) for name in Settings.model_fields}
    for action in reader("self-test")._actions:
        if isinstance(action, argparse._SubParsersAction):
            known |= {word for parser in action.choices.values() for word in parser._option_string_actions}
    return known | {word for setting in KNOWN_SETTINGS for word in setting.cli or ()}


def test_every_flag_that_prose_names_exists() -> None:
    known = flags()
    for page in reading.PAGES:
        if page.name != "CHANGELOG.md":  # that tells of what is gone, too
            for span in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")):
                assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) <= known, span


@pytest.mark.parametrize("page", reading.PAGES, ids=lambda page: page.name)
def test_a_block_is_of_a_language_that_is_checked(page: Path) -> None:
    for block in reading.blocks(page.read_text("utf-8")):
        assert block.language in LANGUAGES
        match block.language:
            case "python":
                compile(block.text, page.name, "exec")
            case "ini":
                units = configparser.ConfigParser(strict=True, interpolation=None)
                units.optionxform = str  # type: ignore[assignment,method-assign]  # systemd minds the case
                with_unit = re.sub(r"^Environment=", iter_names(), block.text, flags=re.MULTILINE)
                units.read_string(with_unit)
                assert units.sections()
            case "console":
                assert block.commands, "a console without a command"
                assert block.text.startswith("$ ")
            case "text" | "mermaid":
                assert "\n$ " not in f"\n{block.text}", "a command that no test would see"


def iter_names() -> Callable[[re.Match[str]], str]:
    """systemd takes `Environment=` several times, and a configparser a key once."""
    numbers = iter(range(100))
    return lambda _: f"Environment{next(numbers)}="
