"""Reads the pages as their readers do: anchors as GitHub makes them, links, fenced blocks, commands. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`]+)`")
_TITLE: Final = re.compile(r"`([\w./-]+)`:\n\n\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `title`: the file that it shows, from a line before it that ends with "`NAME`:"."""

    language: str
    text: str
    title: str | None

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Of a console: each command after `$ `, and what the page shows of its output."""
        parts = re.split(r"^\$ (.+)\n", self.text, flags=re.MULTILINE)
        return tuple(zip(parts[1::2], parts[2::2], strict=True))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for fence in _FENCE.finditer(page):
        title = _TITLE.search(page, 0, fence.start())
        found.append(Block(fence[1], fence[2], title[1] if title else None))
    return found


def commands(page: str) -> list[str]:
    """The commands of all consoles of a page, in order."""
    return [command for block in blocks(page) if block.language == "console" for command, _ in block.commands]


def anchors(page: str) -> set[str]:
    """What a link may name after `#`.

    GitHub takes the text of a heading in lower case, keeps letters, digits, `_` and `-`, and writes `-` for
    each space. The second heading of the same text gets `-1`, the next one `-2`.
    """
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def links(page: str) -> list[str]:
    """The targets of all links and pictures of a page."""
    return _LINK.findall(_FENCE.sub("", page))


def make_targets(page: str) -> set[str]:
    """The targets of make that a page names: in a command, or in prose as `make TARGET` in back quotes."""
    code = [*commands(page), *(" ".join(span.split()) for span in _CODE.findall(_FENCE.sub("", page)))]
    return {found[1] for text in code if (found := re.match(r"make ([a-z][\w.-]*)", text))}
