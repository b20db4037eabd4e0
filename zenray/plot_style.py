"""How our plots look, wherever they are drawn."""

from __future__ import annotations

from typing import Any

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
