"""Figures as PNG files, drawn without a display."""

import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from pipeline.artifacts.files import atomic


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Make a figure without a window or global state; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


# Fonts with scripts that matplotlib's own lacks, where they are installed.
_MORE_FONTS = (
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "IPAGothic",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Symbola",
)
_INSTALLED = {font.name for font in fontManager.ttflist}
matplotlib.rcParams["font.family"] = ["DejaVu Sans", *_INSTALLED.intersection(_MORE_FONTS)]


def save_figure(figure: Figure, path: Path, dpi: int = 100, cropped: bool = False) -> None:
    """Write the PNG without the version of matplotlib, so that equal figures are equal files."""
    box = "tight" if cropped else None
    with atomic(path) as part, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(part, format="png", dpi=dpi, bbox_inches=box, metadata={"Software": None})
    if any("Glyph" in str(warning.message) for warning in caught):
        _name_a_font_package()


@cache
def _name_a_font_package() -> None:
    """Say once why characters are drawn as boxes."""
    print(
        "note: no installed font has some characters of the class names, which figures show as "
        "boxes; packages that have them: fonts-noto-cjk, fonts-noto-core, fonts-noto-color-emoji",
        file=sys.stderr,
    )
