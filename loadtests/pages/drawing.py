"""The look of all drawings: colours, style, and SVG for a page.

Knows matplotlib, and colours that colour-blind readers tell apart (Okabe and Ito, 2008). Touches nothing.
The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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

STEPS: Final = ((0.8, tuple(range(1, 10))), (3.0, (1, 2, 5)), (math.inf, (1,)))
"""Of which multiples of a power of ten a logarithmic axis has labels, up to so many decades."""


def label_logarithmic(axis: Axis, told: Callable[[float], str] = "{:g}".format) -> None:
    """Label the ticks of a logarithmic axis by numbers that are read at a glance; once all is drawn on it."""
    low, high = axis.get_view_interval()
    steps = next(steps for decades, steps in STEPS if math.log10(high / low) < decades)
    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))


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
