"""preprocess: a dataset that passed its checks -> train, val and test, ready to be trained on."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import COLUMN, RawDataset, Split, Splits, SplitsInfo
from pipeline.artifacts.files import atomic, read_array, write_array
from pipeline.artifacts.shards import SHARDS, digest_of
from pipeline.artifacts.validation import ValidationReport
from pipeline.data.samples import save_samples
from pipeline.data.settings import Preprocess
from pipeline.data.splits import NEAR_DUPLICATES, by_content, stratified
from pipeline.errors import ArtifactError, DatasetError, ValidationFailed

CHUNK_BYTES = 2**24
Indices = NDArray[np.intp]


def preprocess(
    raw: RawDataset,
    report: ValidationReport,
    settings: Preprocess,
    output: Path,
    samples: Path,
) -> Splits:
    """Take a validation split out of train, and draw a figure of sample images.

    Args:
        raw: the dataset as it was ingested.
        report: what the checks say of it.
        settings: share and seed of the validation split.
        output: gets the images, labels and contents of train, val and test and, last,
            `metadata.json`. Images that lie in shards stay there: which rows they are is written.
        samples: the PNG with sample images of every class.

    Raises:
        ValidationFailed: the dataset did not pass, or is not the one that was checked.
        DatasetError: a class has too few training images to be in train and in val.
    """
    raw_md5 = raw.md5
    _refuse_unless_passed(report, raw_md5)
    info, splits = raw.info, Splits(output)
    parts = _parts(raw, settings)
    _withdraw(output / "metadata.json")
    if raw.sharded:
        shards = raw.shards
        place = os.path.relpath(raw.path / shards.folder, output)
        shards.model_copy(update={"folder": place}).save(output / SHARDS)
    md5 = {}
    for split, (source, rows) in parts.items():
        x = _refer if raw.sharded else _copy
        md5[f"x_{split}.npy"] = x(raw.path, source, rows, output, split)
        y = f"y_{split}.npy"
        md5[y] = copy_rows(raw.path / f"y_{source}.npy", rows, output / y)
        write_array(output / f"content_{split}.npy", raw.contents(source)[rows])
    _record(raw, "test", splits.recorded_file("test"))
    save_samples(splits.x("train"), splits.y("train"), info.class_names, samples)
    SplitsInfo(
        **info.model_dump(exclude={"counts", "expected"}),
        counts={split: len(rows) for split, (_, rows) in parts.items()},
        md5=md5,
        raw_md5=raw_md5,
        warnings=tuple(result.check for result in report.failures("warning")),
    ).save(output / "metadata.json")
    return splits


def _parts(raw: RawDataset, settings: Preprocess) -> dict[Split, tuple[Split, Indices]]:
    """Return of each split the raw split that it is taken from, and the rows."""
    test = np.arange(len(raw.y("test")))
    if "val" in raw.info.counts:
        train, val = np.arange(len(raw.y("train"))), np.arange(len(raw.y("val")))
        return {"train": ("train", train), "val": ("val", val), "test": ("test", test)}
    first = next(raw.keys("train"), "")
    train, val = split_train(
        raw.y("train"),
        raw.info.class_names,
        settings.validation_fraction,
        settings.seed,
        raw.keys("train") if first else None,
        raw.sha256("train"),
    )
    return {"train": ("train", train), "val": ("train", val), "test": ("test", test)}


def _record(raw: RawDataset, split: Split, path: Path) -> None:
    """Write what is known of the file of each image, for `Splits.recorded`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(raw.files).names if name.startswith(COLUMN)]
    wanted = ["height", "width", "key", "content", *names]
    table = pq.read_table(raw.files, columns=wanted, filters=[("split", "=", split)])
    by_looks = pc.starts_with(table["key"], NEAR_DUPLICATES)
    named = pc.and_not(pc.not_equal(table["key"], table["content"]), by_looks)
    group = pc.if_else(named, table["key"], "")
    with atomic(path) as part:
        pq.write_table(table.drop_columns(["key", "content"]).append_column("group", group), part)


def _copy(raw: Path, source: Split, rows: Indices, output: Path, split: Split) -> str:
    """Copy images, and return the md5 of the file."""
    return copy_rows(raw / f"x_{source}.npy", rows, output / f"x_{split}.npy")


def _refer(raw: Path, source: Split, rows: Indices, output: Path, split: Split) -> str:
    """Write which rows of the shards images are, and return what tells their pixels."""
    write_array(output / f"rows_{split}.npy", read_array(raw / f"rows_{source}.npy")[rows])
    sums = read_array(raw / f"sha256_{source}.npy")[rows]
    return digest_of([sums.tobytes()], RawDataset(raw).shards.image_shape)


def _withdraw(metadata: Path) -> None:
    """Remove the metadata: a folder without it is no dataset, and is being written."""
    try:
        metadata.unlink(missing_ok=True)
        metadata.with_name(SHARDS).unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {metadata}: {error.strerror}") from error


def _refuse_unless_passed(report: ValidationReport, raw_md5: str) -> None:
    if not report.passed:
        failed = ", ".join(result.check for result in report.failures("error"))
        raise ValidationFailed(
            f"dataset {report.dataset} did not pass: {failed}; fix the dataset first"
        )
    if report.raw_md5 != raw_md5:
        raise ValidationFailed(
            f"dataset {report.dataset} changed since it was validated: its md5 is {raw_md5}, "
            f"the report is of {report.raw_md5}; run validate again"
        )


def split_train(
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    fraction: float,
    seed: int,
    keys: Iterable[str] | None = None,
    contents: Iterable[str] = (),
) -> tuple[Indices, Indices]:
    """Take a share of every class: at least one image, never all.

    Args:
        labels: class of each image, (n,).
        class_names: in the order of the labels.
        fraction: the share.
        seed: another one takes others.
        keys: what decides the split of each image; None: they are drawn.
        contents: see `by_content`.

    Returns:
        The rows of train and those of val, both in ascending order.

    Raises:
        DatasetError: a class has fewer than two images.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    for name, count in zip(class_names, counts, strict=True):
        if count < 2:
            raise DatasetError(
                f"class {name!r} has {count} training images; at least 2 are needed, "
                "one for train and one for the validation split"
            )
    if keys is None:
        chosen = stratified(labels, fraction, seed)
    else:
        chosen = by_content(keys, labels, class_names, fraction, f"val {seed}", contents)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def copy_rows(source: Path, rows: Indices, path: Path) -> str:
    """Write some rows of a `.npy` file as another, a few megabytes at a time; return its md5."""
    digest = hashlib.md5()
    # Not a writable memory map: on a full disk that kills the process without a message.
    with atomic(path) as part, part.open("wb") as file, ThreadPoolExecutor(1) as aside:
        hashed = aside.submit(digest.update, b"")
        for data in _content(source, rows):
            file.write(data)
            hashed.result()  # so that no more than two pieces are in memory
            hashed = aside.submit(digest.update, data)
    return digest.hexdigest()


def _content(source: Path, rows: Indices) -> Iterator[bytes]:
    array, header = read_array(source), BytesIO()
    size = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    fields = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": (len(rows), *array.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(header, fields)
    yield header.getvalue()
    for start in range(0, len(rows), size):
        # Mapped anew: the pages of a map count as memory of this process until it is closed.
        yield read_array(source)[rows[start : start + size]].tobytes()
