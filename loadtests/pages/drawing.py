"""The look of all drawings: colours, style, and SVG for a page.

Knows matplotlib, and colours that colour-blind readers tell apart (Okabe and Ito, 2008). Touches nothing.
The same figure gives the same bytes.
"""

from __future__ import annotations

import io
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

# A page replaces these colours by its own, light or dark.
COLOURS: Final = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "vermilion": "#d55e00",
    "grey": "#6b6b6b",
    "grid": "#e6e6e6",
    "ink": "#1c1d21",
    "paper": "#fefefe",  # of text on a bar
}
BLUE, ORANGE, GREEN, VERMILION, GREY, GRID, INK, PAPER = COLOURS.values()
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # keeps text as text: smaller, selectable, in the page's colour
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(name: str, figure: Figure, *, transparent: bool) -> str:
    """The figure as SVG text; `name`: unique among the figures of a page."""
    buffer = io.StringIO()
    # The salt makes ids reproducible, and different from those of other figures on the page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None})
    return buffer.getvalue()


def themed(drawing: str) -> str:
    """The SVG with the page's colours, light or dark, and without the XML prologue."""
    for name, colour in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing[drawing.index("<svg") :]
