"""Keeps a JSON file whole. Touches only the file it is told to write."""

import json
import os
from pathlib import Path


def dump(value: object, indent: int | None = None) -> str:
    """Return `value` as JSON that every reader takes; Python alone would write `Infinity`."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, separators=separators, indent=indent, allow_nan=False)


def by_line(value: object, *, deeper: bool = True) -> str:
    """Return `value` as JSON with a line for each of its items, and for each item of a list in it.

    As short as without an indent, and yet two files can be compared by eye.
    """
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(dump(item) for item in value) + "\n]"
    if isinstance(value, dict) and value and deeper:
        items = (f"{json.dumps(key)}: {by_line(item, deeper=False)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + "\n}"
    return dump(value)


def write_json(path: Path, value: object, *, indent: int | None = None) -> None:
    """Write `value` so that a reader sees the whole new file or the old one, never a half.

    Raises `ValueError` for a number that JSON cannot hold (an infinity, not a number).
    """
    write_whole(path, dump(value, indent))


def write_whole(path: Path, text: str) -> None:
    """Write `text` and a newline; rename(2) replaces atomically within one file system."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        neighbour.write_text(text + "\n", encoding="utf-8")
        neighbour.replace(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
