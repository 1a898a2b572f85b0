"""Pictures as PNG files; nothing is ever shown on a screen."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.artifacts.files import atomic


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that belongs to no window and to no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write the PNG; without the date, so that an equal picture is an equal file."""
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=100, metadata={"Software": None})
