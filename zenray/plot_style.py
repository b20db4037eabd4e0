"""How our plots look, wherever they are drawn."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with colour-blind eyes.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31", "#000000")
GREY, INK = "#5f6368", "#202124"

STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e3e5e8", "grid.linewidth": 0.8,
    "xtick.color": GREY, "ytick.color": GREY, "axes.labelcolor": "#3c4043", "legend.frameon": False,
}  # fmt: skip
"""For matplotlib's `rc_context`."""

_DPI = 130


@dataclass(frozen=True, slots=True)
class Paper:
    """What a picture of a report is drawn on and with."""

    background: str
    ink: str
    quiet: str
    grid: str
    bars: tuple[str, str, str, str]


LIGHT = Paper("#ffffff", INK, GREY, "#e3e5e8", (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[1]))
DARK = Paper("#16181c", "#e8eaed", "#9aa0a6", "#33363c", ("#56B4E9", "#2bbf95", "#f08a4b", COLOURS[1]))


@contextlib.contextmanager
def new_figure(width_in: float, height_in: float, paper: Paper) -> Iterator[Figure]:
    """An empty figure in our style, and that style while the block draws. Inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = {**STYLE, **_colours(paper), "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(width_in, height_in), layout=layout, facecolor=paper.background)
        FigureCanvasAgg(figure)
        yield figure


def png_bytes(figure: Figure) -> bytes:
    """The same for the same figure (and matplotlib's version)."""
    file = io.BytesIO()
    # The version of the library in a file's metadata would be all that differs between two equal pictures.
    figure.savefig(file, dpi=_DPI, format="png", metadata={"Software": None})
    return file.getvalue()


def _colours(paper: Paper) -> dict[Any, Any]:
    quiet = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "axes.labelcolor"), paper.quiet)
    face = dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), paper.background)
    return {**quiet, **face, "text.color": paper.ink, "axes.titlecolor": paper.ink, "grid.color": paper.grid}
