"""Draws report.html of a search from what is in its folder alone.

Knows the template. Touches that page. Never measures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.capacity import figure, folder
from loadtests.capacity.results import Capacity
from loadtests.capacity.tell import sentences, told
from loadtests.files import write_whole
from loadtests.pages import frame

TEMPLATE: Final = Path(__file__).with_name("capacity.html.j2")
CLASSES: Final = {
    "complete": "held",
    "invalid": "invalid",
    "out of time": "inconclusive",
    "interrupted": "inconclusive",
}


def draw(path: Path) -> Path:
    """Write the page; returns its path. `ValueError` if the folder holds no readable result."""
    write_whole(path / folder.PAGE, of(folder.read(path)))
    return path / folder.PAGE


def of(found: Capacity) -> str:
    """The page as HTML."""
    return frame.render(
        TEMPLATE,
        {"search": figure.of_search(found)},
        found=found,
        answers=_grouped(found),
        trials=[(trial, told(trial)) for trial in found.trials],
        verdict=CLASSES[found.state],
    )


def _grouped(found: Capacity) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for head, sentence in sentences(found):
        if head:
            groups.append((head, []))
        groups[-1][1].append(sentence)
    return groups
