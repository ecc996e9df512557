"""The values of flags: from text to what it means.

Touches the file of a body. Raises `WrongValue` with one sentence for the user.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.arguments import WrongValue

if TYPE_CHECKING:
    from loadtests.load.thresholds import Threshold


def rates(text: str) -> tuple[float, ...]:
    """A rate, or several with commas; the phase judges whether a rate makes sense."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise WrongValue(f"{text!r} is not a rate, nor several with commas") from None


def header(text: str) -> tuple[str, str]:
    """Name and value of a header line."""
    name, colon, value = text.partition(":")
    if not colon:
        raise WrongValue(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def body_of_file(name: str) -> str:
    """The content of a file; bytes that are not UTF-8 become surrogates (PEP 383)."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise WrongValue(f"cannot read {name}: {error.strerror}") from None
    return content.decode("utf-8", "surrogateescape")


def threshold(text: str) -> Threshold:
    """A threshold such as `p99<100ms`."""
    from loadtests.load.thresholds import Threshold

    try:
        return Threshold.parse(text)
    except ValueError as error:
        raise WrongValue(str(error)) from None


def duration(text: str) -> float:
    """Seconds of `100ms` or `1.5s`."""
    from loadtests.load.thresholds import parse_seconds

    try:
        return parse_seconds(text)
    except ValueError as error:
        raise WrongValue(str(error)) from None


def success(text: str) -> Threshold:
    """A share such as `99.9%`, as the threshold on errors that it stands for."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 <= share < 100:
        raise WrongValue(f"{text!r} is not a share below 100 %, such as 99.9%")
    return threshold(f"errors<={100 - share:.6g}%")
