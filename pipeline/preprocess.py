"""preprocess: a dataset that passed its checks -> train, val and test, ready to be trained on."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import RawDataset, Split, Splits, SplitsInfo, ValidationReport
from pipeline.errors import ArtifactError, DatasetError, ValidationFailed
from pipeline.files import atomic, dvc_md5
from pipeline.params import Preprocess
from pipeline.pictures import save_samples
from pipeline.stratify import stratified

CHUNK_BYTES = 2**24
Indices = NDArray[np.intp]


def preprocess(
    raw: RawDataset,
    report: ValidationReport,
    settings: Preprocess,
    output: Path,
    picture: Path,
) -> Splits:
    """Take a validation split out of train, and picture some images of every class.

    Args:
        raw: the dataset as it was ingested.
        report: what the checks say of it.
        settings: share and seed of the validation split.
        output: gets `x_` and `y_` of train, val and test and, last, `metadata.json`.
        picture: the file for the sample images, a PNG.

    Raises:
        ValidationFailed: the dataset did not pass, or is not the one that was checked.
        DatasetError: a class has too few training images to be in train and in val.
    """
    raw_md5 = dvc_md5(raw.path)
    _refuse_unless_passed(report, raw_md5)
    info, splits = raw.info, Splits(output)
    train, val = split_train(
        raw.y("train"), info.class_names, settings.validation_fraction, settings.seed
    )
    parts: dict[Split, tuple[Split, Indices]] = {
        "train": ("train", train),
        "val": ("train", val),
        "test": ("test", np.arange(len(raw.y("test")))),
    }
    _withdraw(output / "metadata.json")
    for split, (source, rows) in parts.items():
        copy_rows(raw.x(source), rows, output / f"x_{split}.npy")
        copy_rows(raw.y(source), rows, output / f"y_{split}.npy")
    save_samples(splits.x("train"), splits.y("train"), info.class_names, picture)
    SplitsInfo(
        **info.model_dump(exclude={"counts", "expected"}),
        counts={split: len(rows) for split, (_, rows) in parts.items()},
        md5={file.name: dvc_md5(file) for file in sorted(output.glob("[xy]_*.npy"))},
        raw_md5=raw_md5,
        warnings=tuple(result.check for result in report.failures("warning")),
    ).save(output / "metadata.json")
    return splits


def _withdraw(metadata: Path) -> None:
    """Remove the metadata: without them a folder is not taken for a dataset while it changes."""
    try:
        metadata.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {metadata}: {error.strerror}") from error


def _refuse_unless_passed(report: ValidationReport, raw_md5: str) -> None:
    if not report.passed:
        failed = ", ".join(result.check for result in report.failures("error"))
        raise ValidationFailed(f"dataset {report.dataset} did not pass: {failed}; mend it first")
    if report.raw_md5 != raw_md5:
        raise ValidationFailed(
            f"dataset {report.dataset} changed since it was validated: its md5 is {raw_md5}, "
            f"the report is of {report.raw_md5}; run validate again"
        )


def split_train(
    labels: NDArray[np.int64], class_names: tuple[str, ...], fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Draw a share of every class, at least one image and never all of them.

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
    chosen = stratified(labels, fraction, seed)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def copy_rows(source: NDArray[Any], rows: Indices, path: Path) -> None:
    """Write some rows of an array as `.npy`, a few megabytes at a time."""
    size = max(1, CHUNK_BYTES // max(1, source[:1].nbytes))
    header = {
        "descr": np.lib.format.dtype_to_descr(source.dtype),
        "fortran_order": False,
        "shape": (len(rows), *source.shape[1:]),
    }
    # Not a writable memory map: on a full disk that ends the process without a word.
    with atomic(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(rows), size):
            file.write(source[rows[start : start + size]].tobytes())
