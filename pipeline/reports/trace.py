"""trace: an image file -> the datasets that have it, and the versions that were made with it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.data.places import Datasets, Found
from pipeline.registry.uses import NOT_RECORDED, Records, Use


@dataclass(frozen=True)
class Traced:
    """An image file, where it is, and what versions did with it."""

    image: Found
    uses: tuple[Use, ...]

    @property
    def found(self) -> bool:
        """Whether a dataset has it, or a version is known to have used it."""
        return bool(self.image.places) or any(use.what != NOT_RECORDED for use in self.uses)


def trace(files: Sequence[Path], root: Path = Path()) -> list[Traced]:
    """Find images in the datasets that were ingested here, and in registered versions.

    Args:
        files: image files.
        root: the project.

    Raises:
        ImageError: a file cannot be read.
        ArtifactError: a dataset, or what a version says of its images, is torn.
        TrackingError: the MLflow store cannot be reached.
    """
    datasets, records = Datasets(root), Records()
    found = [datasets.find(file) for file in files]
    return [Traced(image, tuple(records.uses(image.contents))) for image in found]


def as_json(traced: Sequence[Traced]) -> dict[str, Any]:
    """Return what was found, for machines."""
    return {
        "images": [
            {
                "file": one.image.file,
                "content": one.image.content,
                "found": one.found,
                "places": [asdict(place) for place in one.image.places],
                "uses": [asdict(use) for use in one.uses],
            }
            for one in traced
        ]
    }


def render(traced: Sequence[Traced]) -> Iterator[RenderableType]:
    """Yield what was found, for a terminal."""
    for one in traced:
        yield Text.assemble((one.image.file, "bold"), f"  sha256 {one.image.content[:16]}…")
        places = Table("dataset", "split", "class", box=SIMPLE)
        places.add_column("file", overflow="fold")
        places.add_column("how")
        for place in one.image.places:
            row = [place.dataset, place.split, place.label, place.file, place.how]
            places.add_row(*map(Text, row))
        yield places if one.image.places else Text("  in no dataset here")
        uses = Table("version", "", "what", "by", box=SIMPLE)
        for use in one.uses:
            named = f"{use.name}/{use.version}"
            uses.add_row(*map(Text, [named, ", ".join(use.aliases), use.what, use.how]))
        yield uses if one.uses else Text("  in no registered version")
