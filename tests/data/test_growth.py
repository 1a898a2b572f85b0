"""Datasets that grow: what is known is not read or decoded again, and the result is as from new."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.datasets import RawDataset, Splits
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import preprocess
from pipeline.data.readers import folder
from pipeline.data.settings import DatasetPlan, ImageFolder, Preprocess
from pipeline.data.shards import arrangement, packing
from pipeline.images import decode
from pipeline.validation import pixels
from pipeline.validation import shards as measuring
from pipeline.validation.limits import Limits
from pipeline.validation.validate import validate
from tests.images import encode, files, write

SHAPE = (10, 12, 3)
IMAGES = [encode(seed=seed) for seed in range(24)]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(arrangement, "SHARD_BYTES", 5 * 360)  # five images


def take(source: Path, output: Path, **entry: Any) -> RawDataset:
    plan = ImageFolder(source=str(source), **{"image_size": SHAPE[:2], **entry})
    return ingest(DatasetPlan(name="pets", entry=plan), output, progress=False)


def stages(source: Path, output: Path) -> tuple[RawDataset, Splits]:
    raw = take(source, output / "raw")
    limits = {name: Limits(warning=0) for name in ("readable", "duplicates", "balance", "shift")}
    report = validate(raw, limits, output / "validation", output / "accepted.json")
    splits = preprocess(raw, report, Preprocess(), output / "processed", output / "samples.png")
    return raw, splits


def lay(folder: Path, content: dict[str, bytes]) -> Path:
    """Make a folder hold exactly these files; those that are there already stay as they are."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        if content.get(file.relative_to(folder).as_posix()) != file.read_bytes():
            file.unlink()
    new = {name: data for name, data in content.items() if not (folder / name).exists()}
    return write(folder, new)


# Each class keeps a few images, so that every state is a dataset; the rest come and go.
FIXED = {
    f"{name}/fixed{n}.png": IMAGES[4 * at + n] for at, name in enumerate("ab") for n in range(4)
}
STATES = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["x.png", "y.png", "z.png", "w.png"])),
        st.sampled_from([*IMAGES[6:], b"not an image"]),
        max_size=8,
    ),
    min_size=2,
    max_size=4,
)


@settings(deadline=None, max_examples=12)
@given(states=STATES)
def test_any_history_gives_what_a_fresh_ingest_gives(tmp_path_factory, states):
    here = tmp_path_factory.mktemp("growing")
    for number, state in enumerate(states):
        content = FIXED | {"/".join(at): data for at, data in state.items()}
        source = lay(here / "pets", content)
        grown = take(source, here / "grown")
        fresh = take(source, here / f"fresh{number}")
        assert grown.info == fresh.info
        assert grown.md5 == fresh.md5
        for split in ("train", "test"):
            np.testing.assert_array_equal(np.array(grown.x(split)), np.array(fresh.x(split)))
            np.testing.assert_array_equal(grown.y(split), fresh.y(split))
        pd.testing.assert_frame_equal(pd.read_parquet(grown.files), pd.read_parquet(fresh.files))
        listed = {shard.name for shard in grown.shards.shards}
        assert listed == {path.name for path in grown.path.glob("shard-*")}
        stored = grown.shards.starts[-1]
        assert len({*content.values()}) <= stored <= len({*content.values()}) / 0.75 + 1


def shards(raw: RawDataset) -> dict[str, tuple[int, int]]:
    there = (path.stat() for path in (raw.path / shard.name for shard in raw.shards.shards))
    names = (shard.name for shard in raw.shards.shards)
    return {name: (at.st_ino, at.st_mtime_ns) for name, at in zip(names, there, strict=True)}


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the images that were decoded."""
    seen: list[str] = []
    before = packing._items

    def items(source: Any, wanted: dict[str, int], *others: Any) -> Any:
        seen.extend(wanted)
        return before(source, wanted, *others)

    monkeypatch.setattr(packing, "_items", items)
    return seen


def test_only_new_images_are_read_and_decoded(tmp_path, monkeypatch, decoded):
    monkeypatch.setattr("pipeline.artifacts.local_cache.UNSETTLED_SECONDS", -1.0)
    pets = write(tmp_path / "pets", files(count=20))
    before = shards(take(pets, tmp_path / "raw"))
    decoded.clear()
    read: list[str] = []
    reading = folder.read_file

    def noted(file: str, caps: Any) -> bytes:
        read.append(file)
        return reading(file, caps)

    monkeypatch.setattr(folder, "read_file", noted)
    write(pets, {"cat/new.png": encode(seed=900)})
    after = shards(take(pets, tmp_path / "raw"))
    assert decoded == ["cat/new.png"]
    assert {Path(file).name for file in read} == {"new.png"}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_what_comes_a_little_at_a_time_does_not_make_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(arrangement, "SHARD_BYTES", 64 * 360)
    pets, written, previous = write(tmp_path / "pets", files()), 0, {}
    for number in range(30):
        write(pets, {f"cat/new{number}.png": encode(seed=1000 + number)})
        raw = take(pets, tmp_path / "raw")
        now = shards(raw)
        written += sum(s.rows for s in raw.shards.shards if s.name not in previous)
        previous = now
    assert len(previous) <= 6
    assert written <= 30 * 6


def test_a_damaged_shard_is_made_anew(tmp_path, decoded):
    pets = write(tmp_path / "pets", files(count=6))
    raw = take(pets, tmp_path / "raw")
    whole = raw.md5
    first, second = (raw.path / shard.name for shard in raw.shards.shards[:2])
    with first.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    second.unlink()
    decoded.clear()
    again = take(pets, tmp_path / "raw")
    assert len(decoded) == 10
    assert again.md5 == whole
    assert again.measured_md5("x_train.npy") == take(pets, tmp_path / "b").measured_md5(
        "x_train.npy"
    )


def test_another_size_decodes_everything(tmp_path, decoded):
    pets = write(tmp_path / "pets", files(count=6))
    take(pets, tmp_path / "raw")
    raw = take(pets, tmp_path / "raw", image_size=(8, 8))
    assert len(decoded) == 24
    assert raw.x("train").shape[1:] == (8, 8, 3)


def test_only_new_images_are_measured_and_the_results_are_as_from_new(tmp_path, monkeypatch):
    pets = write(tmp_path / "pets", files(count=20) | {"cat/bad.png": b"not an image"})
    stages(pets, tmp_path / "grown")
    write(pets, {"cat/new.png": encode(seed=900), "dog/twin.png": encode(seed=101)})
    (pets / "cat" / "3.png").unlink()
    measured = 0
    before = pixels.measure_rows

    def counted(piece: Any) -> Any:
        nonlocal measured
        measured += piece[1].stop - piece[1].start
        return before(piece)

    monkeypatch.setattr(measuring, "measure_rows", counted)
    _, grown = stages(pets, tmp_path / "grown")
    assert 0 < measured <= 5
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "other"))
    (tmp_path / "fresh").mkdir()
    shutil.copy(tmp_path / "grown" / "accepted.json", tmp_path / "fresh")
    _, fresh = stages(pets, tmp_path / "fresh")
    for name in ("summary.json", "manifest.parquet", "data_docs/index.html"):
        there = (tmp_path / here / "validation" / name for here in ("grown", "fresh"))
        assert len({file.read_bytes() for file in there}) == 1
    assert grown.info == fresh.info
    assert grown.md5 == fresh.md5
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(np.array(grown.x(split)), np.array(fresh.x(split)))
        np.testing.assert_array_equal(grown.contents(split), fresh.contents(split))
        assert grown.measured_md5(f"x_{split}.npy") == grown.info.md5[f"x_{split}.npy"]


def test_forgotten_images_leave_the_shards(tmp_path):
    pets = write(tmp_path / "pets", files(count=20))
    raw = take(pets, tmp_path / "raw")
    data = (pets / "cat" / "3.png").read_bytes()
    name = hashlib.sha256(data).hexdigest()
    pixels = decode(data, SHAPE, "crop").tobytes()
    assert any(pixels in path.read_bytes() for path in raw.path.glob("shard-*"))
    entry = ImageFolder(source=str(pets), image_size=SHAPE[:2])
    raw = ingest(DatasetPlan(name="pets", entry=entry), raw.path, False, forgotten={name})
    assert sum(raw.info.counts.values()) == 39
    assert name not in set(pd.read_parquet(raw.files)["content"])
    assert not any(pixels in path.read_bytes() for path in raw.path.glob("shard-*"))
