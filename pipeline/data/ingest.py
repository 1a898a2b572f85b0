"""ingest: a known dataset, or a folder or archive of images -> arrays of one shape.

An image that cannot be decoded does not stop it: `validate` names all such images at once.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.datasets import DatasetInfo, Images, RawDataset, Split
from pipeline.artifacts.files import atomic, write_array
from pipeline.data import datasets
from pipeline.data.datasets import KnownDataset, SourceFile
from pipeline.data.layout import Labelled, Layout, layout
from pipeline.data.locate import Found, locate, locate_images
from pipeline.data.packing import SplitFiles, pack
from pipeline.data.readers.arrays import Arrays
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import prefetched
from pipeline.data.readers.listing import Listing, list_images
from pipeline.data.readers.reader import Columns
from pipeline.data.readers.readers import entries
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.data.sources.addresses import file_name
from pipeline.data.splits import by_content
from pipeline.errors import ArtifactError, DatasetError

METADATA = "metadata.json"
# Of files.parquet, so that it is read a part at a time.
ROWS_PER_GROUP = 2**15


def ingest(
    plan: DatasetPlan, output: Path, progress: bool = True, caps: Caps | None = None
) -> RawDataset:
    """Fetch a dataset and pack it into arrays.

    Args:
        plan: the dataset, and its entry where params.yaml has one.
        output: `data/raw/<dataset>/`; replaced only on success.
        progress: whether to show a bar where stderr is a terminal.
        caps: limits of what is read from an archive.

    Raises:
        ParamsError: the dataset is neither known nor has an entry.
        DatasetError: it cannot be fetched, or its layout is wrong.
        ArtifactError: the output cannot be written.
    """
    if plan.entry is None:
        return ingest_known(datasets.get(plan.name), output, progress, caps)
    return ingest_folder(plan.name, plan.entry, output, progress, caps)


def ingest_known(
    dataset: KnownDataset, output: Path, progress: bool = True, caps: Caps | None = None
) -> RawDataset:
    """Ingest a dataset of the catalogue; for the arguments see `ingest`."""
    found = [locate(dataset.name, f, caps=caps, progress=progress) for f in dataset.files]
    arrays = dataset.read([each.path for each in found], caps)
    info = DatasetInfo(
        name=dataset.name,
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        counts={split: len(y) for split, (_, y) in arrays.items()},
        expected=dict(dataset.expected),
        origin=tuple(_origin(f.name, each) for f, each in zip(dataset.files, found, strict=True))
        or ({"file": "digits", "from": "scikit-learn", "sha256": _sha256(arrays)},),
        licence=dataset.licence,
        intended_use=dataset.intended_use,
    )
    with _replacing(output) as raw:
        for split, (x, y) in arrays.items():
            raw.save_split(split, x.reshape(-1, *dataset.image_shape), y)
        _save_files(raw, {split: _known_files(split, x, info) for split, (x, _) in arrays.items()})
        info.save(raw.path / METADATA)
    return RawDataset(output)


def ingest_folder(
    name: str, entry: ImageFolder, output: Path, progress: bool = True, caps: Caps | None = None
) -> RawDataset:
    """Ingest an image folder; for the arguments see `ingest`."""
    file = SourceFile(file_name(entry.sources[0]), entry.sources, sha256=entry.sha256)
    found = locate(name, file, caps=caps, progress=progress)
    try:
        columns, more = locate_images(
            name, found, entry.columns, entry.images, caps=caps, progress=progress
        )
        images = layout(_listing(found.path, entry, columns, caps), entry.ignore)
        splits = _with_test(images, entry)
    except DatasetError as error:
        raise type(error)(f"{name}: {error}", error.retryable) from error
    with _replacing(output) as raw:
        shape = (*entry.image_size, 1 if entry.color == "gray" else 3)
        described, sha256 = pack(
            found.path, splits, raw.path, shape, entry.fit, columns, caps, progress
        )
        _save_files(raw, described)
        for split, files in splits.items():
            labels = np.array([image.label for image in files], np.int64)
            write_array(raw.path / f"y_{split}.npy", labels)
        origin = _origin(file.name, found)
        DatasetInfo(
            name=name,
            class_names=images.class_names,
            image_shape=shape,
            counts={split: len(files) for split, files in splits.items()},
            origin=(
                {**origin, "sha256": found.sha256 or sha256},
                *(_origin(each.path.name, each) for each in more),
            ),
            licence=entry.licence,
            intended_use=entry.intended_use,
            ignored=images.ignored,
            fit=entry.fit,
        ).save(raw.path / METADATA)
    return RawDataset(output)


def _listing(path: Path, entry: ImageFolder, columns: Columns, caps: Caps | None) -> Listing:
    found = entries(path, caps, columns)
    pattern = re.compile(entry.group) if entry.group else None
    return list_images(prefetched(path, found) if path.is_dir() else found, pattern)


def _with_test(images: Layout, entry: ImageFolder) -> dict[Split, list[Labelled]]:
    """Return the images by split; where the source has no test split, one is chosen."""
    splits: dict[Split, list[Labelled]] = {"train": images.of("train") or images.of(None)}
    splits |= {split: there for split in ("val", "test") if (there := images.of(split))}
    if "test" not in splits:
        train = splits["train"]
        test = by_content(
            (image.key for image in train),
            np.array([image.label for image in train], np.int64),
            images.class_names,
            entry.test_fraction,
            f"test {entry.seed}",
        )
        splits["train"] = [train[row] for row in np.flatnonzero(~test)]
        splits["test"] = [train[row] for row in np.flatnonzero(test)]
    if "val" not in splits:
        _refuse_single(splits["train"], images.class_names)
    return splits


def _refuse_single(train: list[Labelled], class_names: tuple[str, ...]) -> None:
    """Refuse what `preprocess` cannot take a validation split from."""
    keys: list[set[str]] = [set() for _ in class_names]
    for image in train:
        keys[image.label].add(image.key)
    if few := [name for name, found in zip(class_names, keys, strict=True) if len(found) < 2]:
        raise DatasetError(
            f"too few images in {', '.join(map(repr, few[:5]))}{', …' if len(few) > 5 else ''}: "
            "each class needs one for each of train, val and test, of different content and group"
        )


def _origin(name: str, found: Found) -> dict[str, str]:
    """Say where a file is from; what a mirror delivered is named by its source."""
    return {"file": name, "from": found.source, "sha256": found.sha256 or ""}


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for x, y in arrays.values():
        digest.update(x.tobytes() + y.tobytes())
    return digest.hexdigest()


def _known_files(split: Split, x: Images, info: DatasetInfo) -> SplitFiles:
    (height, width, channels), count = info.image_shape, len(x)
    names = [f"{split}/{number:05d}" for number in range(count)]
    content = [hashlib.sha256(image.tobytes()).hexdigest() for image in x]
    files = SplitFiles(names, [""] * count, content)
    files.height[:], files.width[:] = height, width
    files.mode = ["L" if channels == 1 else "RGB"] * count
    return files


def _save_files(raw: RawDataset, described: dict[Split, SplitFiles]) -> None:
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
    with atomic(raw.files) as part:
        pq.write_table(pa.table(table), part, row_group_size=ROWS_PER_GROUP)


@contextmanager
def _replacing(output: Path) -> Iterator[RawDataset]:
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
            for file in sorted(part.iterdir(), key=lambda file: file.name == METADATA):
                file.replace(output / file.name)
        except OSError as error:
            raise ArtifactError(f"cannot write {output}: {error.strerror or error}") from error
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(part), str(output))) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
