"""How every drawing looks: its colours, its style, and the SVG that a page takes in.

Knows matplotlib, and colours that colour-blind readers tell apart (Okabe and Ito, 2008). Touches nothing.
The same figure gives the same bytes.
"""

from __future__ import annotations

import io
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

# Each colour means one thing in every figure; the page replaces them by its own, light or dark.
COLOURS: Final = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "vermilion": "#d55e00",
    "grey": "#6b6b6b",
    "grid": "#e6e6e6",
    "ink": "#1c1d21",
    "paper": "#fefefe",  # of words that stand on a bar
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
    "svg.fonttype": "none",  # text stays text: smaller, selectable, and it takes on the page's colour
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(name: str, figure: Figure, *, transparent: bool) -> str:
    """The figure as SVG text; `name`: its own among those of a page."""
    buffer = io.StringIO()
    # The salt makes ids repeatable and, by its name, different from another figure's on the same page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None})
    return buffer.getvalue()


def themed(drawing: str) -> str:
    """The SVG with the page's colours, light or dark, instead of its own, and without the XML prologue."""
    for name, colour in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing[drawing.index("<svg") :]
