"""Where settings come from: a flag, else a variable, else the file, else the default.

Knows pydantic-settings, TOML and how to tell an operator what is wrong. Reads the environment and the named
file, and keeps nothing: a reload calls it again.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliSettingsSource, EnvSettingsSource, SettingsConfigDict

from service.config.settings import Settings, keywords_of, shown, shown_default
from service.config.types import SHAPES

DESCRIPTION = """\
Serve GET /data, or an aiohttp application of yours, and run its CPU-bound
work off the event loop.

Each setting is a flag, an environment variable and a key of the TOML file
that --config names: --accept-batch is SERVICE_ACCEPT_BATCH and accept_batch.
A flag beats a variable, a variable beats the file, the file beats the default.
"""

WORDING = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "string_unicode": "must be UTF-8",
    "path_type": "must be a path",
}
"""pydantic's error types whose own message is for programmers, and one for operators."""

LISTS = {
    "trusted_peers": "network,...",
    "route_urgency": "route=urgency,...",
    "trust_priority": "network,...",
}
"""What is typed with commas; pydantic would show the Python type."""


class _Sources(BaseSettings, Settings):
    """The schema that pydantic-settings reads sources by. It is never instantiated."""

    model_config = SettingsConfigDict(
        env_prefix="SERVICE_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        enable_decoding=False,  # a list is typed with commas, and not as JSON
        cli_parse_none_str="\0",  # no argument can hold it; Settings reads keywords itself
    )
    config: Path | None = Field(None, description="TOML file of settings, such as accept_batch = 64.")


@dataclass(frozen=True)
class Reading:
    """The settings, and where they are from.

    sources: for each setting "flag", the variable or the path of the file; a missing one has its default.
    unknown_variables: a sentence for each variable SERVICE_* that is no setting.
    show: print the settings and exit (--show-settings).
    """

    settings: Settings
    sources: dict[str, str]
    unknown_variables: tuple[str, ...]
    show: bool


def read_settings(argv: Sequence[str]) -> Settings:
    """The settings alone; see `read`."""
    return read(argv).settings


def read(argv: Sequence[str]) -> Reading:
    """Read settings from flags, then the environment, then the file, then defaults.

    Args:
        argv: the command line without the program's name.

    Raises:
        ValueError: everything that is wrong, one sentence per line; a wrong value is named by flag and
            variable.
        SystemExit: 0, --help was asked for and has been printed.
    """
    flags, show, wrong = _flags(argv)
    # Compose passes unset variables as empty ones.
    environment = EnvSettingsSource(_Sources, env_ignore_empty=True)
    variables = environment()
    path = flags.pop("config", variables.pop("config", None))
    file, wrong_in_file = _file(path)
    sources = dict.fromkeys(file, path) | {name: variable(name) for name in variables}
    sources |= dict.fromkeys(flags, "flag")
    wrong += wrong_in_file
    try:
        settings = Settings(**file | variables | flags)
    except ValidationError as error:
        wrong += [_sentence(one, sources) for one in error.errors()]
    if wrong:
        raise ValueError("\n".join(wrong))
    return Reading(settings, sources, _unknown_variables(environment.env_vars), show)


def listing(reading: Reading, *, colors: bool) -> str:
    """The settings as text, a line each: flag and value as an operator types them, and the value's source.

    Args:
        colors: dim the lines of defaults.
    """
    rows = [
        (flag(name), shlex.quote(shown(name, value)), reading.sources.get(name, "default"))
        for name, value in reading.settings
    ]
    first = max(len(typed) for typed, _, _ in rows)
    # A value that is longer than this shifts only its own line.
    second = max(len(value) for _, value, _ in rows if len(value) <= 24)
    lines = []
    for typed, value, source in rows:
        line = f"{typed:{first}}  {value:{second}}  {source}"
        lines.append(f"\033[2m{line}\033[0m" if colors and source == "default" else line)
    return "\n".join(lines).encode(errors="backslashreplace").decode()  # a path may not be UTF-8


def flag(name: str) -> str:
    """The flag of the setting `name`."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return f"SERVICE_{name.upper()}"


def _flags(argv: Sequence[str]) -> tuple[dict[str, str], bool, list[str]]:
    """Settings by name, whether to show them, and a sentence for each unknown flag."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        usage="%(prog)s [--SETTING VALUE]...",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Print this help and exit.")
    parser.add_argument(
        "--show-settings",
        action="store_true",
        help="Print each setting with its value and where that is from, and exit.",
    )
    source = CliSettingsSource[argparse.ArgumentParser](
        _Sources, root_parser=parser, add_argument_method=_add_setting
    )
    try:
        given, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        # After a flag without its value the rest of the line cannot be interpreted.
        raise ValueError(f"{error.argument_name}: {error.message}") from error
    flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    wrong = [_unknown(one, one.strip("-"), flag) for one in flags or unknown]
    return source(parsed_args=given)(), given.show_settings, wrong


def _add_setting(parser: argparse.ArgumentParser, *names: str, **how: Any) -> argparse.Action:
    """Add a setting as pydantic-settings has prepared it, with keyword and default in an operator's terms."""
    name, default = how["dest"], "none"
    if name in Settings.model_fields:
        default = shown_default(name)
        kind = LISTS.get(name, how["metavar"])
        how["metavar"] = "|".join([kind, *(keyword.text for keyword in keywords_of(name))])
    how["help"] = f"{_Sources.model_fields[name].description} (default: {default})"
    return parser.add_argument(*names, **how)


def _file(path: str | None) -> tuple[dict[str, Any], list[str]]:
    """Settings by name, and a sentence for each error of the file or its keys."""
    if path is None:
        return {}, []
    try:
        with Path(path).open("rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        return {}, [f"--config (SERVICE_CONFIG): {path!r} cannot be read: {error.strerror}"]
    except ValueError as error:  # not TOML (the message has line and column) or not UTF-8
        return {}, [f"--config (SERVICE_CONFIG): {path!r} is not TOML: {error}"]
    settings = {name: given.pop(name) for name in Settings.model_fields if name in given}
    return settings, [f"{path}: {_unknown(key, key, str)}" for key in given]


def _unknown_variables(names: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each variable that has the prefix and is no setting."""
    prefix = variable("")
    known = {variable(name) for name in _Sources.model_fields}
    found = [name.upper() for name in names if name.upper().startswith(prefix)]
    return tuple(_unknown(one, one.removeprefix(prefix), variable) for one in found if one not in known)


def _unknown(typed: str, name: str, form: Callable[[str], str]) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), _Sources.model_fields, 1)
    meant = [form(one) for one in close if form(one) != typed]  # "config" in a file: close to itself
    return f"{typed} is not a setting" + "".join(f"; did you mean {one}?" for one in meant)


def _sentence(error: ErrorDetails, sources: dict[str, str]) -> str:
    name = str(error["loc"][0])
    source = sources.get(name, "default")
    subject = f"{flag(name)} ({variable(name)})"
    if source not in ("default", "flag", variable(name)):
        subject += f" in {source}"
    if error["type"] == "value_error":  # of a validator in Settings: a whole sentence
        return f"{subject}: {error['msg'].removeprefix('Value error, ')}"
    said = _wording(error)
    said += "".join(f" or {keyword.text}" for keyword in keywords_of(name))
    said += f", not {error['input']!r:.80}"  # cut, so that the line stays readable
    if source == variable(name) and error["input"].startswith("tcp://"):
        said += (
            "; Kubernetes sets it for a Service of that name: set it in the pod, or enableServiceLinks: false"
        )
    return f"{subject}: {said}"


def _wording(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return f"must be {SHAPES[error['ctx']['pattern']]}"
    said = WORDING.get(error["type"], error["msg"].replace("Input should be", "must be"))
    return said.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
