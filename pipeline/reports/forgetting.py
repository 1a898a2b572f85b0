"""What forgetting images means, for people and for machines."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.data.forgotten import FORGOTTEN
from pipeline.production.forget import Forgetting
from pipeline.reports.wording import forgotten_text

NEXT = (
    f"now commit {FORGOTTEN}, run dvc repro, and promote a version that is made without them; the "
    "pixels stay at the source, in DVC's cache, and in the models that were trained on them"
)


def as_json(planned: Forgetting) -> dict[str, Any]:
    """Return what forgetting images means, for machines."""
    return {
        "images": [
            {
                "file": image.file,
                "content": image.content,
                "places": [asdict(place) for place in image.places],
            }
            for image in planned.images
        ],
        "added": [image.model_dump() for image in planned.added],
        "versions": [
            {
                "name": version.name,
                "version": version.version,
                "aliases": list(version.aliases),
                "forgotten": version.forgotten,
            }
            for version in planned.made_with
        ],
        "not_recorded": [version.spec for version in planned.not_recorded],
    }


def render(planned: Forgetting) -> Iterator[RenderableType]:
    """Yield what forgetting images means, for a terminal."""
    for image in planned.images:
        yield Text(image.file, "bold")
        for place in image.places:
            where = f"{place.dataset}: {place.split}, {place.label}, {place.file}"
            kept = "" if place.how != "looks like it" else "; it is kept, unless it is named too"
            yield Text(f"  {where}: {place.how}{kept}")
        if not image.places:
            yield Text("  in no dataset here; it will not come in either")
    if not planned.added:
        yield Text(f"{FORGOTTEN} has all of them already")
    table = Table("version", "", "is flagged", box=SIMPLE)
    for version in planned.made_with:
        told = forgotten_text(version.forgotten)
        table.add_row(*map(Text, [version.spec, ", ".join(version.aliases), told]))
    yield table if planned.made_with else Text("no version is known to be made with them")
    if planned.not_recorded:
        specs = ", ".join(version.spec for version in planned.not_recorded)
        yield Text(f"registered before versions had a record of their images: {specs}")
