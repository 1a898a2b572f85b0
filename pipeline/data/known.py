"""Ingest a dataset of the catalogue: its own splits, as plain arrays."""

import hashlib
from collections.abc import Set
from pathlib import Path

from pipeline.artifacts.datasets import DatasetInfo, Pixels, RawDataset, Split
from pipeline.data.datasets import KnownDataset
from pipeline.data.locate import locate
from pipeline.data.raw_files import METADATA, SplitFiles, replacing, save_files
from pipeline.data.readers.arrays import Arrays
from pipeline.data.readers.content import Caps


def ingest_known(
    dataset: KnownDataset,
    output: Path,
    progress: bool = True,
    caps: Caps | None = None,
    forgotten: Set[str] = frozenset(),
) -> RawDataset:
    """Ingest a dataset of the catalogue; for the arguments see `ingest.ingest`."""
    found = [locate(dataset.name, f, caps=caps, progress=progress) for f in dataset.files]
    everything = dataset.read([each.path for each in found], caps)
    arrays = _without(everything, forgotten)
    lost: dict[str, int] = {
        split: len(y) - len(arrays[split][1]) for split, (_, y) in everything.items()
    }
    info = DatasetInfo(
        name=dataset.name,
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        counts={split: len(y) for split, (_, y) in arrays.items()},
        expected={split: n - lost.get(split, 0) for split, n in dataset.expected.items()},
        origin=tuple(each.origin(f.name) for f, each in zip(dataset.files, found, strict=True))
        or ({"file": "digits", "from": "scikit-learn", "sha256": _sha256(everything)},),
        licence=dataset.licence,
        intended_use=dataset.intended_use,
        forgotten=sum(lost.values()),
    )
    with replacing(output) as raw:
        for split, (x, y) in arrays.items():
            raw.save_split(split, x.reshape(-1, *dataset.image_shape), y)
        described = {split: _known_files(split, x, info) for split, (x, _) in arrays.items()}
        save_files(described, raw.files)
        info.save(raw.path / METADATA)
    return RawDataset(output)


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for x, y in arrays.values():
        digest.update(x.tobytes() + y.tobytes())
    return digest.hexdigest()


def _without(arrays: Arrays, forgotten: Set[str]) -> Arrays:
    """Return the images of a known dataset without those whose pixels have one of these sha256."""
    if not forgotten:
        return arrays
    kept = {
        split: [hashlib.sha256(image.tobytes()).hexdigest() not in forgotten for image in x]
        for split, (x, _) in arrays.items()
    }
    return {split: (x[kept[split]], y[kept[split]]) for split, (x, y) in arrays.items()}


def _known_files(split: Split, x: Pixels, info: DatasetInfo) -> SplitFiles:
    (height, width, channels), count = info.image_shape, len(x)
    names = [f"{split}/{number:05d}" for number in range(count)]
    content = [hashlib.sha256(image.tobytes()).hexdigest() for image in x]
    files = SplitFiles(names, [""] * count, content)
    files.height[:], files.width[:] = height, width
    files.mode = ["L" if channels == 1 else "RGB"] * count
    return files
