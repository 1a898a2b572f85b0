"""ingest: a known dataset, or a folder or archive of images -> arrays of one shape.

An image that cannot be decoded does not stop it: `validate` names all such images at once.
"""

import gc
import hashlib
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.artifacts.datasets import DatasetInfo, RawDataset, Split, contents_of_sha256
from pipeline.artifacts.dvc_cache import stored_files
from pipeline.artifacts.files import contents_of, write_array
from pipeline.artifacts.local_cache import Digests
from pipeline.data import datasets
from pipeline.data.datasets import SourceFile
from pipeline.data.groups import with_groups
from pipeline.data.known import ingest_known
from pipeline.data.layout import Labelled, Layout, layout
from pipeline.data.locate import locate, locate_images
from pipeline.data.raw_files import METADATA, SplitFiles, replacing, save_files
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import prefetched
from pipeline.data.readers.listing import Listing, list_images
from pipeline.data.settings import NEAR_DUPLICATES, DatasetPlan, ImageFolder
from pipeline.data.shards.index import Index, find_earlier, remember
from pipeline.data.shards.packing import Source, made_by, pack, rows_of
from pipeline.data.splits import by_content
from pipeline.errors import DatasetError
from pipeline.sources.addresses import file_name


def ingest(
    plan: DatasetPlan,
    output: Path,
    progress: bool = True,
    caps: Caps | None = None,
    forgotten: Set[str] = frozenset(),
) -> RawDataset:
    """Fetch a dataset and pack it into arrays.

    Args:
        plan: the dataset, and its entry where params.yaml has one.
        output: `data/raw/<dataset>/`; replaced only on success.
        progress: whether to show a bar where stderr is a terminal.
        caps: limits of what is read from an archive.
        forgotten: the sha256 of images that are left out, and whose pixels must not stay.

    Raises:
        ParamsError: the dataset is neither known nor has an entry.
        DatasetError: it cannot be fetched, or its layout is wrong.
        ArtifactError: the output cannot be written.
    """
    if plan.entry is None:
        return ingest_known(datasets.get(plan.name), output, progress, caps, forgotten)
    return ingest_folder(plan.name, plan.entry, output, progress, caps, forgotten)


def ingest_folder(
    name: str,
    entry: ImageFolder,
    output: Path,
    progress: bool = True,
    caps: Caps | None = None,
    forgotten: Set[str] = frozenset(),
) -> RawDataset:
    """Ingest an image folder; for the arguments see `ingest`."""
    file = SourceFile(file_name(entry.sources[0]), entry.sources, sha256=entry.sha256)
    found = locate(name, file, caps=caps, progress=progress)
    with _about(name):
        columns, more = locate_images(
            name, found, entry.columns, entry.images, caps=caps, progress=progress
        )
        source = Source(found.path, columns, caps)
        images, left_out = _layout(source, entry, forgotten)
        if entry.group != NEAR_DUPLICATES:
            splits = _with_test(images, entry)
    shape = (*entry.image_size, 1 if entry.color == "gray" else 3)
    with replacing(output) as raw:
        versions = (contents_of(output), stored_files(output))
        earlier = find_earlier(versions, made_by(shape, entry.fit), shape)
        index, places = pack(
            *(source, images.images, raw.path, shape, entry.fit, earlier, progress),
            forgotten={bytes.fromhex(sha256) for sha256 in forgotten},
        )
        if entry.group == NEAR_DUPLICATES:
            images = replace(images, images=with_groups(images.images, places, index, raw))
            with _about(name):
                splits = _with_test(images, entry)
        described = {}
        for split, files in splits.items():
            rows = rows_of(files, places)
            described[split] = _own_files(files, index.at(rows))
            write_array(raw.path / f"rows_{split}.npy", rows)
            write_array(raw.path / f"sha256_{split}.npy", index.pixels[rows])
            contents = contents_of_sha256(image.sha256 for image in files)
            write_array(raw.path / f"content_{split}.npy", contents)
            labels = np.array([image.label for image in files], np.int64)
            write_array(raw.path / f"y_{split}.npy", labels)
        save_files(described, raw.files)
        DatasetInfo(
            name=name,
            class_names=images.class_names,
            image_shape=shape,
            counts={split: len(files) for split, files in splits.items()},
            origin=(
                {**found.origin(file.name), "sha256": found.sha256 or _sha256_of(images.images)},
                *(each.origin(each.path.name) for each in more),
            ),
            licence=entry.licence,
            intended_use=entry.intended_use,
            ignored=images.ignored,
            fit=entry.fit,
            forgotten=left_out,
        ).save(raw.path / METADATA)
    made = RawDataset(output)
    remember(output, made.shards, index)
    return made


@contextmanager
def _about(dataset: str) -> Iterator[None]:
    """Say in errors which dataset they are about."""
    # To look for cycles among a million objects without any takes a tenth of the time.
    gc.disable()
    try:
        yield
    except DatasetError as error:
        raise type(error)(f"{dataset}: {error}", error.retryable) from error
    finally:
        gc.enable()


def _layout(source: Source, entry: ImageFolder, forgotten: Set[str]) -> tuple[Layout, int]:
    """Return the images by class, and how many are left out as forgotten."""
    everything = _listing(source, entry)
    listing = everything.without(forgotten)
    return layout(listing, entry.ignore), len(everything.images) - len(listing.images)


def _listing(source: Source, entry: ImageFolder) -> Listing:
    by_looks = entry.group == NEAR_DUPLICATES
    pattern = re.compile(entry.group) if entry.group and not by_looks else None
    with Digests() as digests:
        found = source.entries()
        if source.path.is_dir():
            found = prefetched(source.path, found, lambda entry: not digests.knows(entry.file))
        return list_images(found, pattern, digests)


def _own_files(images: list[Labelled], known: Index) -> SplitFiles:
    files = SplitFiles(
        [image.name for image in images],
        [image.key for image in images],
        [image.sha256 for image in images],
        [image.columns for image in images],
    )
    files.height, files.width = known.height, known.width
    files.mode, files.error = known.mode.tolist(), known.error.tolist()
    return files


def _sha256_of(images: Iterable[Labelled]) -> str:
    """Return a sha256 over the names and contents of images."""
    digest = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.name):
        digest.update(f"{image.name}\0{image.sha256}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


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
            (image.sha256 for image in train),
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
