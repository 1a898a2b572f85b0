"""ingest: known datasets and image folders -> a RawDataset, and every way in which it says no."""

import hashlib
import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import dvc_md5
from pipeline.data import datasets
from pipeline.data.ingest import ingest
from pipeline.data.known import ingest_known
from pipeline.data.readers import folder
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import folder_entries, prefetched
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import ArchiveError, DatasetError, DownloadError, ParamsError
from pipeline.params.params import load_params
from tests.cifar10 import archive, batches, members
from tests.conftest import ROOT
from tests.images import encode, files, make_tar, make_zip, save, write


@pytest.fixture(autouse=True)
def _here(request, tmp_path, monkeypatch):
    if "mirror" not in request.keywords:
        monkeypatch.delenv("DATASET_MIRROR", raising=False)
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def take(source: Path | str, output: Path | str = "raw", **entry: Any) -> RawDataset:
    folder = ImageFolder(source=str(source), **{"image_size": (10, 12), **entry})
    return ingest(DatasetPlan(name="pets", entry=folder), Path(output), progress=False)


def rows(raw: RawDataset) -> pd.DataFrame:
    return pd.read_parquet(raw.files)


def test_digits_are_split_stratified_and_always_alike(tmp_path):
    plan = DatasetPlan(name="digits", entry=None)
    raw, again = (ingest(plan, tmp_path / name, progress=False) for name in ("a", "b"))
    assert raw.info.counts == raw.info.expected == {"train": 1438, "test": 359}
    assert raw.x("train").shape == (1438, 8, 8, 1)
    assert (np.min(raw.x("train")), np.max(raw.x("train"))) == (0, 255)
    assert np.bincount(raw.y("test")).min() >= 34
    assert dvc_md5(raw.path) == dvc_md5(again.path)
    table = rows(raw)
    assert table["file"].iloc[[0, -1]].tolist() == ["train/00000", "test/00358"]
    assert set(table["mode"]) == {"L"}
    assert set(table["error"]) == {""}


def test_an_unknown_dataset(tmp_path):
    with pytest.raises(ParamsError, match="unknown dataset 'cats'; known: digits"):
        ingest(DatasetPlan(name="cats", entry=None), tmp_path / "raw")


def test_cifar10_from_an_archive_of_its_format(tmp_path):
    path = archive(tmp_path / "cifar.tar.gz", per_batch=3)
    pins = {name: hashlib.md5(data).hexdigest() for name, data in members(3).items()}
    official = datasets.get("cifar10")
    file = replace(official.files[0], sources=(str(path),), members=pins)
    small = replace(official, files=(file,), expected={"train": 15, "test": 3})
    raw = ingest_known(small, tmp_path / "raw", progress=False)
    assert raw.info.counts == raw.info.expected
    assert raw.x("train").shape == (15, 32, 32, 3)
    assert raw.y("test").tolist() == batches(3)["test_batch"][1]
    assert set(rows(raw)["mode"]) == {"RGB"}
    tampered = replace(small, files=(replace(file, members=pins | {"data_batch_3": "0" * 32}),))
    with pytest.raises(DownloadError, match="member data_batch_3 has the checksum"):
        ingest_known(tampered, tmp_path / "raw2", progress=False)
    assert not (tmp_path / "raw2").exists()


@pytest.mark.mirror
@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="needs DATASET_MIRROR")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_datasets(tmp_path, name):
    raw = ingest(DatasetPlan(name=name, entry=None), tmp_path / "raw", progress=False)
    assert raw.info.counts == raw.info.expected
    assert np.bincount(raw.y("test")).sum() == 10_000
    mean = np.mean(raw.x("train")) / 255
    assert mean == pytest.approx({"mnist": 0.1307, "fashion_mnist": 0.2860}[name], abs=1e-4)


PLACES = {
    "folder": lambda path, content: write(path / "pets", content),
    "zip": lambda path, content: make_zip(path / "pets.zip", content),
    "tar": lambda path, content: make_tar(path / "pets.tar", content, "w"),
    "tgz": lambda path, content: make_tar(path / "pets.tgz", content),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["", "around/"])
def test_classes_are_split_by_content(tmp_path, place, prefix):
    content = files(("dog", "cat"), count=10, prefix=prefix)
    raw = take(PLACES[place](tmp_path, content))
    assert raw.info.class_names == ("cat", "dog")
    assert raw.info.counts == {"train": 17, "test": 3}
    assert np.bincount(raw.y("test")).min() >= 1
    assert raw.info.expected is None
    assert raw.info.origin[0]["file"].startswith("pets")
    assert len(raw.info.origin[0]["sha256"]) == 64
    table = rows(raw)
    assert sorted(table["file"]) == sorted(content)
    for name, sha256 in zip(table["file"], table["content"], strict=True):
        assert sha256 == hashlib.sha256(content[name]).hexdigest()
    for split in ("train", "test"):
        part = table[table["split"] == split].reset_index()
        assert part["file"].tolist() == sorted(part["file"])
        for row, name in enumerate(part["file"]):
            assert (raw.x(split)[row] == Image.open(io.BytesIO(content[name]))).all()
            assert raw.info.class_names[raw.y(split)[row]] in name


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["", "around/"])
def test_a_test_folder_is_kept(tmp_path, place, prefix):
    content = files(prefix=f"{prefix}train/") | files(prefix=f"{prefix}test/", count=2)
    raw = take(PLACES[place](tmp_path, content))
    assert raw.info.counts == {"train": 8, "test": 4}
    test = rows(raw).query("split == 'test'")["file"]
    assert test.str.startswith(f"{prefix}test/").all()


def test_folder_and_archive_give_equal_arrays(tmp_path):
    made = [take(PLACES[place](tmp_path, files(count=9)), place) for place in PLACES]
    for name in ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "files.parquet"):
        (md5,) = {raw.measured_md5(name) for raw in made}
        assert md5


def test_the_seed_decides_the_split(tmp_path):
    pets = write(tmp_path / "pets", files(count=20))
    first, again, other = (take(pets, n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert dvc_md5(first.path) == dvc_md5(again.path)
    assert rows(first)["file"].tolist() != rows(other)["file"].tolist()


def test_a_train_folder_alone_is_split(tmp_path):
    raw = take(write(tmp_path / "pets", files(prefix="train/")))
    assert raw.info.counts == {"train": 6, "test": 2}


def test_deeper_folders_belong_to_the_class(tmp_path):
    deep = {"a/8.png": encode(seed=7), "a/deep/er/2.png": encode(seed=8)}
    raw = take(write(tmp_path / "pets", deep | files(("a", "b"))))
    assert raw.info.class_names == ("a", "b")
    assert sum(raw.info.counts.values()) == 10


def test_litter_is_passed_over_and_other_files_counted(tmp_path):
    litter = {
        ".hidden/1.png": b"x",
        "cat/.DS_Store": b"x",
        "__MACOSX/cat/._0.png": b"x",
        "cat/Thumbs.db": b"x",
        "cat/notes.txt": b"x",
        "README.md": b"x",
    }
    raw = take(make_zip(tmp_path / "pets.zip", files() | litter))
    assert raw.info.class_names == ("cat", "dog")
    ignored = {".md": 1, ".txt": 1, "Thumbs.db": 1, "__MACOSX": 1, "hidden": 2}
    assert raw.info.ignored == ignored


def test_sizes_colours_and_modes_become_one_shape(tmp_path):
    content = files(suffix=".jpg") | files(suffix=".gif") | files(suffix=".webp")
    content["cat/alpha.png"] = save(Image.new("RGBA", (30, 50), (0, 0, 0, 0)))
    content["dog/deep.PNG"] = save(Image.fromarray(np.full((7, 5), 65535, np.uint16)))
    raw = take(write(tmp_path / "pets", content), image_size=(16, 8), color="gray")
    assert raw.info.image_shape == (16, 8, 1)
    assert raw.x("train").shape[1:] == (16, 8, 1)
    table = rows(raw).set_index("file")
    assert list(table.loc["cat/alpha.png", ["height", "width", "mode"]]) == [50, 30, "RGBA"]
    assert list(table.loc["dog/deep.PNG", ["height", "width"]]) == [7, 5]
    assert set(table["error"]) == {""}


def test_bad_images_are_named_and_do_not_stop_it(tmp_path):
    bad = {
        "cat/empty.png": (b"", "empty"),
        "cat/text.jpg": (b"not an image at all", "not an image"),
        "cat/cut.png": (encode(size=(20, 20))[:-400], "truncated"),
        "dog/huge.bmp": (b"BM" + bytes(2000), "2,002 bytes are more than the 2,000 allowed"),
    }
    content = files(count=6) | {name: data for name, (data, _) in bad.items()}
    pets = write(tmp_path / "pets", content)
    (pets / "dog" / "missing.png").symlink_to(tmp_path / "nowhere.png")
    bad["dog/missing.png"] = (b"", "cannot be read: No such file")
    folder = ImageFolder(source=str(pets), image_size=(8, 8))
    plan = DatasetPlan(name="pets", entry=folder)
    raw = ingest(plan, tmp_path / "raw", False, Caps(file_bytes=2000))
    table = rows(raw)
    found = table[table["error"] != ""].set_index("file")["error"].to_dict()
    assert set(found) == set(bad)
    for name, (_, reason) in bad.items():
        assert reason in found[name]
    for split in ("train", "test"):
        errors = table[table["split"] == split]["error"].to_numpy() != ""
        assert (np.array(raw.x(split)).max(axis=(1, 2, 3)) == 0).tolist() == errors.tolist()


FAULTS = [
    ({"a/readme.txt": b"x"}, "no images found"),
    (
        files() | {"bird/notes.txt": b"x"},
        "class folders without an image: 'bird'; .*`ignore: ",
    ),
    (files(("cat",)), "one class only, 'cat'"),
    (files(("cat",), prefix="around/"), "one class only, 'cat'"),
    (files(("cat", "Cat", "dog")), "classes 'Cat' and 'cat' differ only by case"),
    (
        files(("a", "b"), prefix="train/") | files(("b", "c"), prefix="test/"),
        "different classes; only in train: 'a'; only in test: 'c'",
    ),
    (files(prefix="test/"), "no folder of train has class folders; there are the folders test/"),
    (files(("train", "test")), "no folder of train has class folders"),
    (files() | {"stray.png": encode()}, "image 'stray.png' lies outside"),
    (
        files(prefix="train/") | {"train/stray.png": encode()} | files(prefix="test/"),
        "image 'train/stray.png' lies outside",
    ),
    (files() | files(("bird",), count=1), "class 'bird' has 1 images, all of the same content"),
    (
        files() | files(("bird",), count=2),
        "too few images in 'bird': each class needs one",
    ),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("content", "reason"), FAULTS)
def test_a_fault_in_the_layout_stops_it(tmp_path, place, content, reason):
    take(write(tmp_path / "good", files()))
    before = dvc_md5(tmp_path / "raw")
    with pytest.raises(DatasetError, match=f"pets: .*{reason}") as caught:
        take(PLACES[place](tmp_path, content))
    assert "\n" not in str(caught.value)
    assert dvc_md5(tmp_path / "raw") == before


def test_an_empty_class_folder_stops_it(tmp_path):
    pets = write(tmp_path / "pets", files())
    (pets / "bird").mkdir()
    with pytest.raises(DatasetError, match="bird"):
        take(pets)


def test_a_class_may_be_called_train(tmp_path):
    raw = take(write(tmp_path / "pets", files(("bus", "car", "train"))))
    assert raw.info.class_names == ("bus", "car", "train")


def test_folders_that_are_links_are_followed_once(tmp_path):
    pets = write(tmp_path / "pets", files(("cat",)))
    (pets / "dog").symlink_to(write(tmp_path / "elsewhere", files(("x",))))
    (pets / "cat" / "loop").symlink_to(pets)
    assert take(pets).info.class_names == ("cat", "dog")


def test_the_disk_is_asked_for_images_before_they_are_read(tmp_path, monkeypatch):
    source, asked = write(tmp_path / "pets", files(count=9)), []
    (source / "cat" / "notes.txt").write_text("of no use")
    monkeypatch.setattr(folder, "FILES_AHEAD", 4)
    monkeypatch.setattr(os, "posix_fadvise", lambda *args: asked.append(args))
    plain = list(folder_entries(source, Caps()))
    read = [(entry.name, entry.read(), len(asked)) for entry in prefetched(source, iter(plain))]
    assert [entry[:2] for entry in read] == [(entry.name, entry.read()) for entry in plain]
    assert len(asked) == sum(entry.name.endswith(".png") for entry in plain)
    assert len({count for _, _, count in read}) > 4  # and not all of them at once


def test_an_image_that_cannot_be_opened_is_named(tmp_path):
    source = write(tmp_path / "pets", files(count=9))
    (source / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    table = pd.read_parquet(take(source, tmp_path / "raw").files).set_index("file")
    assert table["error"]["cat/gone.png"] == "cannot be read: No such file or directory"
    assert (table["error"] != "").sum() == 1


def test_a_missing_source_says_where_to_put_it(tmp_path):
    entry = load_params(ROOT / "params.yaml").datasets["cifar10_images"]
    with pytest.raises(DownloadError) as caught:
        ingest(DatasetPlan(name="cifar10_images", entry=entry), tmp_path / "raw", False)
    message = str(caught.value)
    assert "set DATASET_MIRROR to a folder or URL that holds cifar10_images/cifar10_i" in message
    assert "or put the file at cifar10_images.tar.gz" in message


def test_a_tampered_archive_is_refused(tmp_path):
    make_zip(tmp_path / "pets.zip", files())
    right = hashlib.sha256((tmp_path / "pets.zip").read_bytes()).hexdigest()
    assert take("pets.zip", sha256=right).info.origin[0]["sha256"] == right
    make_zip(tmp_path / "pets.zip", files(count=5))
    with pytest.raises(DownloadError, match=f"not {right}"):
        take("pets.zip", sha256=right)


def test_a_hostile_archive_writes_nothing(tmp_path):
    make_tar(tmp_path / "pets.tar", files() | {"../outside.png": encode()})
    with pytest.raises(ArchiveError, match=r"pets: pets.tar: member '../outside.png'"):
        take("pets.tar")
    with tarfile.open(tmp_path / "pets.tar", "w") as link:
        member = tarfile.TarInfo("cat/0.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        link.addfile(member)
    with pytest.raises(ArchiveError, match="is a link"):
        take("pets.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets.tar"]


def test_ingesting_again_replaces_the_dataset(tmp_path):
    take(write(tmp_path / "one", files(count=6)))
    raw = take(write(tmp_path / "two", files(("ant", "bee", "cow"))))
    assert raw.info.class_names == ("ant", "bee", "cow")
    assert len(raw.x("train")) == raw.info.counts["train"] == 9
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


CHILD = """
import os, resource, signal, sys
from pathlib import Path
from pipeline.data.settings import DatasetPlan
from pipeline.errors import ArtifactError
from pipeline.data.ingest import ingest
from pipeline.data.settings import ImageFolder
{prelude}
entry = ImageFolder(source="pets", image_size=(64, 64)) if {own} else None
try:
    ingest(DatasetPlan(name="pets" if {own} else "digits", entry=entry), Path("data/raw"), False)
except ArtifactError as error:
    sys.exit(f"ArtifactError: {{error}}")
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""
# Root may write anywhere; without this capability it reads as before.
READ_ONLY_FOR_ROOT = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []


def run_child(folder: Path, prelude: str, own: bool, before: Sequence[str] = ()) -> str:
    code = CHILD.format(prelude=prelude, own=own)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize("own", [True, False])
def test_a_full_disk_leaves_the_earlier_dataset(tmp_path, own):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    take(write(tmp_path / "pets", files()), "data/raw")
    before = dvc_md5(tmp_path / "data")
    message = run_child(tmp_path, FULL, own)
    assert message.startswith("ArtifactError: cannot write data/raw")
    assert "File too large" in message or "disk is full" in message
    assert dvc_md5(tmp_path / "data") == before


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_that_is_read_only(tmp_path, own):
    write(tmp_path / "pets", files())
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for part in folders:
        part.chmod(0o555)
    message = run_child(tmp_path, "", own, READ_ONLY_FOR_ROOT)
    for part in folders:
        part.chmod(0o755)
    assert message.startswith("ArtifactError: cannot write data/raw")
    assert message.endswith("Permission denied")
