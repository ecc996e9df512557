"""The folder of a search: capacity.json with all trials, and the page.

Knows the files. Touches that folder. Never measures.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from loadtests.capacity.results import Capacity
from loadtests.exits import UsageError
from loadtests.files import write_json

RESULT: Final = "capacity.json"
PAGE: Final = "report.html"


@contextlib.contextmanager
def kept(out: Path | None) -> Iterator[Callable[[Capacity], None]]:
    """A function that writes the result into a folder, which is made before anything is measured.

    Raises `UsageError` if the folder cannot be written, or already holds a result.
    """
    if out is None:
        yield lambda _: None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / RESULT).exists():
            raise UsageError(f"{out} already holds a result: choose another folder")
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {out}: {error.strerror}") from None
    yield lambda found: write_json(out / RESULT, found.to_json(), indent=2)


def holds_capacity(folder: Path) -> bool:
    """Whether `capacity` wrote a folder."""
    return (folder / RESULT).exists()


def read(folder: Path) -> Capacity:
    """The result that `kept` wrote; a `ValueError` says why it cannot be read."""
    try:
        return TypeAdapter(Capacity).validate_json((folder / RESULT).read_bytes())
    except (OSError, ValidationError) as error:
        reason = (
            error.strerror
            if isinstance(error, OSError)
            else f"{error.error_count()} fields are not as written"
        )
        raise ValueError(f"{folder / RESULT} does not hold a readable result: {reason}") from error
