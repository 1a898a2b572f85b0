"""Figures as PNG files, drawn without a display."""

from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.artifacts.files import atomic


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Make a figure without a window or global state; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 100, cropped: bool = False) -> None:
    """Write the PNG without the version of matplotlib, so that equal figures are equal files."""
    box = "tight" if cropped else None
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=dpi, bbox_inches=box, metadata={"Software": None})
