"""Keeps a JSON file whole. Touches only the file it is told to write."""

import json
import os
from pathlib import Path


def write_json(path: Path, value: object, *, indent: int | None = None, by_line: bool = False) -> None:
    """Write `value` so that a reader sees the whole new file or the old one, never a half.

    `by_line`: a line for each item of the value, and for each item of a list in it: as short as without an
    indent, and yet two files can be compared by eye.

    rename(2) replaces atomically within one file system, so the temporary file is a neighbour.
    """
    text = _by_line(value) if by_line else json.dumps(value, separators=_tight(indent), indent=indent)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        neighbour.write_text(text + "\n", encoding="utf-8")
        neighbour.replace(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise


def _tight(indent: int | None) -> tuple[str, str] | None:
    return (",", ":") if indent is None else None


def _by_line(value: object, deeper: bool = True) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(_flat(item) for item in value) + "\n]"
    if isinstance(value, dict) and value and deeper:
        items = (f"{json.dumps(key)}: {_by_line(item, deeper=False)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + "\n}"
    return _flat(value)


def _flat(value: object) -> str:
    return json.dumps(value, separators=_tight(None))
