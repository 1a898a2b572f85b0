"""`data/forgotten.csv`, kept in git: the images that are kept out of every dataset, by content."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts.files import atomic
from pipeline.artifacts.record import Frozen
from pipeline.errors import ArtifactError

FORGOTTEN = Path("data/forgotten.csv")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ForgottenImage(Frozen):
    """An image that is kept out.

    Attributes:
        content: the sha256 of its file; of its pixels, where a dataset has no files.
        reason: why.
        who: asked for it.
        when: UTC, ISO 8601.
    """

    content: str
    reason: str
    who: str
    when: str


COLUMNS = tuple(ForgottenImage.model_fields)


def load(path: Path = FORGOTTEN) -> tuple[ForgottenImage, ...]:
    """Read the list; without the file there is none.

    Raises:
        ArtifactError: it is not such a list: an image that was to be kept out might come back.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"cannot read {path}: {error}; git checkout {path}") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ArtifactError(f"{path} does not begin with {','.join(COLUMNS)}; git checkout {path}")
    images = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or not _SHA256.fullmatch(row[0]):
            raise ArtifactError(
                f"{path}, line {number}: received {','.join(row)[:80]!r}; needed are "
                f"{','.join(COLUMNS)}, the content as a sha256 of 64 hexadecimal digits"
            )
        images.append(ForgottenImage(**dict(zip(COLUMNS, row, strict=True))))
    return tuple(images)


def contents(path: Path = FORGOTTEN) -> frozenset[str]:
    """Return the sha256 of each image that is kept out."""
    return frozenset(image.content for image in load(path))


def save(images: Sequence[ForgottenImage], path: Path = FORGOTTEN) -> None:
    """Write the list, one line an image; line breaks in a reason become spaces."""
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(
            [" ".join(getattr(image, name).split()) for name in COLUMNS] for image in images
        )
