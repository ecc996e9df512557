"""Keeps a JSON file whole. Touches only the file it is told to write."""

import json
import os
from pathlib import Path


def dump(value: object, indent: int | None) -> str:
    """Return `value` as JSON that every reader takes; Python alone would write `Infinity`."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, separators=separators, indent=indent, allow_nan=False)


def write_json(path: Path, value: object, *, indent: int | None = None) -> None:
    """Write `value` so that a reader sees the whole new file or the old one, never a half.

    rename(2) replaces atomically within one file system, so the temporary file is a neighbour. Raises
    `ValueError` for a number that JSON cannot hold (an infinity, not a number).
    """
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        neighbour.write_text(dump(value, indent) + "\n", encoding="utf-8")
        neighbour.replace(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
