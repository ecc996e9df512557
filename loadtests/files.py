"""Writes JSON files whole. Touches only the file that it is given."""

import json
import os
from pathlib import Path


def dump(value: object, indent: int | None = None) -> str:
    """Return `value` as JSON that every reader accepts; Python would also write `Infinity`."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, separators=separators, indent=indent, allow_nan=False)


def by_line(value: object, *, deeper: bool = True) -> str:
    """Return `value` as JSON with one line for each of its items, and for each item of a list among them.

    As short as without an indent, and two files can still be compared by eye.
    """
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(dump(item) for item in value) + "\n]"
    if isinstance(value, dict) and value and deeper:
        items = (f"{json.dumps(key)}: {by_line(item, deeper=False)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + "\n}"
    return dump(value)


def write_json(path: Path, value: object, *, indent: int | None = None) -> None:
    """Write `value`; a reader sees the whole old file or the whole new one, never a part.

    Raises `ValueError` for a number that JSON does not have (infinite or not a number).
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
