"""Renders a page from a template: one self-contained file that loads nothing.

Knows the frame that all pages share, frame.html.j2, and how templates are read. Reads templates only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests.pages.drawing import themed


def render(template: Path, drawings: Mapping[str, str], **values: Any) -> str:
    """The page as HTML. `drawings`: our own SVG, by name; it gets the page's colours."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {name: Markup(themed(svg)) for name, svg in drawings.items()}
    return environment.get_template(template.name).render(drawings=pictures, **values)
