"""The files of a raw dataset: `files.parquet`, and all of them put into place together."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import COLUMN, RawDataset, Split
from pipeline.artifacts.files import atomic, contents_of
from pipeline.errors import ArtifactError

METADATA = "metadata.json"
# Of files.parquet, so that it is read a part at a time.
ROWS_PER_GROUP = 2**15


class SplitFiles:
    """What `files.parquet` says of the images of one split.

    Attributes:
        file: names, in the order of the rows.
        height: in the file, (n,); 0 where not known, as is width.
        width: likewise.
        mode: Pillow's.
        error: why an image could not be decoded; empty where it could.
        key: what decides the split of an image; empty where its dataset does.
        content: the sha256 of the file, or of the pixels where there are no files.
        columns: what a table of labels says of each image besides.
    """

    def __init__(
        self,
        file: list[str],
        key: list[str],
        content: list[str],
        columns: Sequence[Mapping[str, str] | None] = (),
    ) -> None:
        self.file, self.key, self.content = file, key, content
        self.columns = columns or [None] * len(file)
        self.height: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.width: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.mode, self.error = [""] * len(file), [""] * len(file)


def save_files(described: Mapping[Split, SplitFiles], path: Path) -> None:
    """Write the table: a row per image, split by split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: dict[str, Any] = {
        "split": np.repeat(list(described), [len(each.file) for each in described.values()]),
        "file": [name for each in described.values() for name in each.file],
        "height": np.concatenate([each.height for each in described.values()]),
        "width": np.concatenate([each.width for each in described.values()]),
        "mode": [mode for each in described.values() for mode in each.mode],
        "error": [error for each in described.values() for error in each.error],
        "key": [key for each in described.values() for key in each.key],
        "content": [sha256 for each in described.values() for sha256 in each.content],
    }
    columns = [row or {} for each in described.values() for row in each.columns]
    for name in dict.fromkeys(name for row in columns for name in row):
        table[f"{COLUMN}{name}"] = [row.get(name, "") for row in columns]
    with atomic(path) as part:
        pq.write_table(pa.table(table), part, row_group_size=ROWS_PER_GROUP)


@contextmanager
def replacing(output: Path) -> Iterator[RawDataset]:
    """Yield a temporary dataset whose files replace those of `output` if the block succeeds.

    Raises:
        ArtifactError: the folder is read-only, …
    """
    part = output.with_name(f".{os.getpid()}-{output.name}")
    try:
        try:
            yield RawDataset(part)
            output.mkdir(parents=True, exist_ok=True)
            (output / METADATA).unlink(missing_ok=True)
            new = sorted(contents_of(part), key=lambda name: name == METADATA)
            for file in new:
                (part / file).replace(output / file)
            for file in set(contents_of(output)) - set(new):
                (output / file).unlink()
        except OSError as error:
            raise ArtifactError(f"cannot write {output}: {error.strerror or error}") from error
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(part), str(output))) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
