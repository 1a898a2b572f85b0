"""The sections `datasets` and `preprocess` of params.yaml."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.artifacts.record import Fit, Frozen, Record
from pipeline.data.readers.reader import Columns
from pipeline.redaction import holds_secret, redact

# Names become folders, DVC stages and registered models.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
# Of `group`: images that nearly repeat one another are in one split.
NEAR_DUPLICATES = "near_duplicates"
Side = Annotated[int, Field(ge=4, le=1024)]


class ImageFolder(Frozen):
    """An own dataset: a folder or archive laid out as `<class>/…` or `train|test/<class>/…`.

    Attributes:
        source: a directory, a `.zip` or `.tar(.gz)`, or where one is: a URL, or an address in an
            object store, such as `s3://bucket/pets`; several are tried in turn.
            A relative path is looked for in the mirror as `<dataset>/<file>`, then from here.
        sha256: the sha256 of the archive's content: of the `.zip`, or of the decompressed `.tar`.
        image_size: height and width to which every image is resized; left out, 224 by 224, which
            most backbones were trained on.
        fit: what happens to images of another aspect ratio: `crop`, `pad` or `stretch`.
        test_fraction: share that becomes the test split where the folder has none.
        seed: another one chooses another test split.
        images: the folder or archive, or where one is, that the files of a table are in; without
            it they are beside the table.
        columns: the columns of a table of labels, where their names are not the usual ones.
        group: a pattern that finds the group `group` in a file's name; images of one group, say of
            a patient or a burst, are in one split; or `near_duplicates`, by their looks.
        ignore: names of folders whose images are left out.
        recipes: another dataset whose recipes these images take.
        intended_use: what models of these images are for; model cards say it.
    """

    source: str | tuple[str, ...]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    image_size: tuple[Side, Side] = (224, 224)
    color: Literal["rgb", "gray"] = "rgb"
    fit: Fit = "crop"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    images: str | None = None
    columns: Columns = Columns()
    group: str | None = None
    ignore: tuple[str, ...] = ()
    recipes: Name | None = None
    licence: str = "not stated"
    intended_use: str = ""

    @field_validator("source", "images")
    @classmethod
    def _no_login(cls, source: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        sources = (source or "",) if not isinstance(source, tuple) else source
        if shown := [redact(one) for one in sources if holds_secret(one)]:
            raise ValueError(
                f"{shown[0]} has a password or a token in it, which would be stored with every "
                "model; leave it out: a login for the host is read from ~/.netrc or the "
                "environment, and DATASET_MIRROR names another place"
            )
        return source

    @field_validator("group")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is None or pattern == NEAR_DUPLICATES:
            return pattern
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        if "group" not in groups:
            raise ValueError(
                f"{pattern!r} has no group named `group`, such as (?P<group>[^_]+)_, and is not "
                f"{NEAR_DUPLICATES}"
            )
        return pattern

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources in the order in which they are tried."""
        return (self.source,) if isinstance(self.source, str) else self.source


class Preprocess(Frozen):
    """The validation split: its share of the training part, and the seed that draws it."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class DatasetPlan(Record):
    """`plan/<dataset>/dataset.json`: which dataset, and its entry where params.yaml has one."""

    name: str
    entry: ImageFolder | None
