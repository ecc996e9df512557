"""Where settings come from: a flag, else a variable, else the file, else the default.

Knows pydantic-settings, TOML and how to tell an operator what is wrong. Touches the environment and the file
that is named, nothing else: whoever wants the settings anew calls it again.
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

from service.config.settings import SHAPES, Settings, shown, shown_default, word_of

DESCRIPTION = """\
Answer GET /data, or serve an application, with work that runs off the event
loop.

Each setting is a flag, a variable of the environment and a key of the file
that --config names: --accept-batch is SERVICE_ACCEPT_BATCH and accept_batch.
A flag beats a variable, a variable the file, the file the default.
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
"""What pydantic words for programmers."""


class _Sources(BaseSettings, Settings):
    """What sources are asked for. None is ever made."""

    model_config = SettingsConfigDict(
        env_prefix="SERVICE_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_parse_none_str="\0",  # what nobody can type: Settings reads the words itself
    )
    config: Path | None = Field(None, description="TOML file of settings, by their names: accept_batch = 64")


@dataclass(frozen=True)
class Reading:
    """What was read: the settings, and how they came about.

    sources: "flag", the variable or the path of the file; a setting that is not there has its default.
    unknown_variables: a sentence for each variable SERVICE_* that is no setting.
    show: the settings are to be printed, and nothing is to be served.
    """

    settings: Settings
    sources: dict[str, str]
    unknown_variables: tuple[str, ...]
    show: bool


def read_settings(argv: Sequence[str]) -> Settings:
    """The settings alone; see `read`."""
    return read(argv).settings


def read(argv: Sequence[str]) -> Reading:
    """Settings from flags, then the environment, then the file, then defaults.

    Raises:
        ValueError: all that is wrong, one sentence a line; a wrong value is named by flag and variable.
        SystemExit: 0, --help was asked for and has been printed.
    """
    flags, show, wrong = _flags(argv)
    environment = EnvSettingsSource(_Sources, env_ignore_empty=True)  # compose passes unset ones as empty
    variables = environment()
    path = flags.pop("config", variables.pop("config", None))
    file, amiss = _file(path)
    sources = dict.fromkeys(file, path) | {name: variable(name) for name in variables}
    sources |= dict.fromkeys(flags, "flag")
    wrong += amiss
    try:
        settings = Settings(**file | variables | flags)
    except ValidationError as error:
        wrong += [_sentence(one, sources) for one in error.errors()]
    if wrong:
        raise ValueError("\n".join(wrong))
    return Reading(settings, sources, _unknown_variables(environment.env_vars), show)


def listing(reading: Reading, *, colors: bool) -> str:
    """A line for each setting: its flag and value as they can be typed, and where the value is from."""
    rows = [
        (flag(name), shlex.quote(shown(name, value)), reading.sources.get(name, "default"))
        for name, value in reading.settings
    ]
    first = max(len(typed) for typed, _, _ in rows)
    second = max(len(value) for _, value, _ in rows if len(value) <= 24)  # a longer one is out of line alone
    lines = []
    for typed, value, source in rows:
        line = f"{typed:{first}}  {value:{second}}  {source}"
        lines.append(f"\033[2m{line}\033[0m" if colors and source == "default" else line)
    return "\n".join(lines).encode(errors="backslashreplace").decode()  # a path may be no UTF-8


def flag(name: str) -> str:
    """A setting on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """A setting in the environment."""
    return f"SERVICE_{name.upper()}"


def _flags(argv: Sequence[str]) -> tuple[dict[str, str], bool, list[str]]:
    """Settings by name, whether they shall be shown, and a sentence for each flag that is none."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        usage="%(prog)s [--SETTING VALUE]...",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--show-settings",
        action="store_true",
        help="print each setting with its value and where that is from, and exit",
    )
    source = CliSettingsSource[argparse.ArgumentParser](
        _Sources, root_parser=parser, add_argument_method=_add_setting
    )
    try:
        given, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        # Where a value is missing, nobody can tell what the flags after it were meant to be.
        raise ValueError(f"{error.argument_name}: {error.message}") from error
    flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    wrong = [_unknown(one, one.strip("-"), flag) for one in flags or unknown]
    return source(parsed_args=given)(), given.show_settings, wrong


def _add_setting(parser: argparse.ArgumentParser, *names: str, **how: Any) -> argparse.Action:
    """What pydantic-settings makes of a setting, with the words and the default that an operator knows."""
    name, default = how["dest"], "none"
    if name in Settings.model_fields:
        default = shown_default(name)
        if (word := word_of(name)) is not None:
            how["metavar"] += f"|{word.text}"
    how["help"] = f"{_Sources.model_fields[name].description} (default: {default})"
    return parser.add_argument(*names, **how)


def _file(path: str | None) -> tuple[dict[str, Any], list[str]]:
    """Settings by name, and a sentence for whatever is wrong with the file or its keys."""
    if path is None:
        return {}, []
    try:
        with Path(path).open("rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        return {}, [f"--config (SERVICE_CONFIG): {path!r} cannot be read: {error.strerror}"]
    except ValueError as error:  # TOML says line and column; what is not UTF-8 ends here too
        return {}, [f"--config (SERVICE_CONFIG): {path!r} is not TOML: {error}"]
    settings = {name: given.pop(name) for name in Settings.model_fields if name in given}
    return settings, [f"{path}: {_unknown(key, key, str)}" for key in given]


def _unknown_variables(names: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each variable with our prefix that is no setting."""
    prefix = variable("")
    ours = {variable(name) for name in _Sources.model_fields}
    found = [name.upper() for name in names if name.upper().startswith(prefix)]
    return tuple(_unknown(one, one.removeprefix(prefix), variable) for one in found if one not in ours)


def _unknown(typed: str, name: str, form: Callable[[str], str]) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), _Sources.model_fields, 1)
    meant = [form(one) for one in close if form(one) != typed]  # a file cannot name another: config
    return f"{typed} is not a setting" + "".join(f"; did you mean {one}?" for one in meant)


def _sentence(error: ErrorDetails, sources: dict[str, str]) -> str:
    name = str(error["loc"][0])
    source = sources.get(name, "default")
    subject = f"{flag(name)} ({variable(name)})"
    if source not in ("default", "flag", variable(name)):
        subject += f" in {source}"
    if error["type"] == "value_error":  # a rule of ours, which says it all
        return f"{subject}: {error['msg'].removeprefix('Value error, ')}"
    said = _wording(error)
    if (word := word_of(name)) is not None:
        said += f" or {word.text}"
    said += f", not {error['input']!r:.80}"  # a line that can be read, whatever was typed
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
