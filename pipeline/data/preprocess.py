"""preprocess: a dataset that passed its checks -> train, val and test, ready to be trained on."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import RawDataset, Split, Splits, SplitsInfo
from pipeline.artifacts.files import atomic, dvc_md5, read_array, write_array
from pipeline.artifacts.validation import ValidationReport
from pipeline.data.samples import save_samples
from pipeline.data.settings import Preprocess
from pipeline.data.splits import by_content, stratified
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
        output: gets `x_`, `y_` and `content_` of train, val and test and, last, `metadata.json`.
        samples: the PNG with sample images of every class.

    Raises:
        ValidationFailed: the dataset did not pass, or is not the one that was checked.
        DatasetError: a class has too few training images to be in train and in val.
    """
    raw_md5 = dvc_md5(raw.path)
    _refuse_unless_passed(report, raw_md5)
    info, splits = raw.info, Splits(output)
    parts = _parts(raw, settings)
    _withdraw(output / "metadata.json")
    md5 = {
        f"{kind}_{split}.npy": copy_rows(
            raw.path / f"{kind}_{source}.npy", rows, output / f"{kind}_{split}.npy"
        )
        for kind in "xy"
        for split, (source, rows) in parts.items()
    }
    for split, (source, rows) in parts.items():
        write_array(output / f"content_{split}.npy", raw.contents(source)[rows])
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
    )
    return {"train": ("train", train), "val": ("train", val), "test": ("test", test)}


def _withdraw(metadata: Path) -> None:
    """Remove the metadata: a folder without it is no dataset, and is being written."""
    try:
        metadata.unlink(missing_ok=True)
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
) -> tuple[Indices, Indices]:
    """Take a share of every class: at least one image, never all.

    Args:
        labels: class of each image, (n,).
        class_names: in the order of the labels.
        fraction: the share.
        seed: another one takes others.
        keys: what decides the split of each image; None: they are drawn.

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
        chosen = by_content(keys, labels, class_names, fraction, f"val {seed}")
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
