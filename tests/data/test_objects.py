"""Sources in object stores: fetched from a real S3 server, and only what changed."""

import os
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.artifacts.datasets import RawDataset
from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import DownloadError
from pipeline.sources import objects
from pipeline.sources.addresses import STORES
from pipeline.sources.objects import fetch
from pipeline.sources.patience import Patience
from pipeline.sources.stores import ObjectStore
from tests.conftest import ROOT
from tests.images import encode, files, make_zip, write
from tests.s3 import LOGIN, serve_s3

QUICK = Patience(connect=1, stall=2, attempts=2, backoff=0.01)


@pytest.fixture
def s3(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    with serve_s3(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        yield server


def get(address: str, target: Path) -> str | None:
    return fetch(address, target, lambda _: "right", pinned=False, patience=QUICK, progress=False)


def names(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def take(source: str, **entry: object) -> RawDataset:
    folder = ImageFolder(source=source, image_size=(8, 8), **entry)
    return ingest(DatasetPlan(name="pets", entry=folder), Path("raw"), progress=False)


def test_a_folder_is_fetched_once_and_then_what_changed(s3, tmp_path):
    bucket = s3.buckets / "images" / "pets"
    content = files(count=3)
    write(bucket, content)
    pets = tmp_path / "cache" / "pets"
    assert get("s3://images/pets", pets) is None
    assert s3.fetched() == [f"pets/{name}" for name in sorted(content)]
    assert {name: (pets / name).read_bytes() for name in names(pets)} == content

    get("s3://images/pets/", pets)
    assert s3.fetched() == [f"pets/{name}" for name in sorted(content)]  # another address
    get("s3://images/pets/", pets)
    assert s3.fetched() == []

    (bucket / "cat" / "0.png").unlink()
    (bucket / "cat" / "1.png").write_bytes(content["dog/1.png"])
    write(bucket, {"bird/1.png": b"new"})
    (pets / "dog" / "2.png").write_bytes(b"torn")
    get("s3://images/pets/", pets)
    assert s3.fetched() == ["pets/bird/1.png", "pets/cat/1.png", "pets/dog/2.png"]
    assert names(pets) == names(bucket)
    assert (pets / "cat" / "1.png").read_bytes() == content["dog/1.png"]


def test_a_file_is_fetched_in_parts_and_verified(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PART", 1000)
    content = os.urandom(2500)
    (s3.buckets / "images" / "x.bin").write_bytes(content)
    assert get("s3://images/x.bin", tmp_path / "x.bin") == "right"
    assert (tmp_path / "x.bin").read_bytes() == content
    assert s3.fetched() == ["x.bin"] * 3
    assert get("s3://images/x.bin", tmp_path / "x.bin") == "right"
    assert s3.fetched() == []
    (s3.buckets / "images" / "x.bin").write_bytes(content[::-1])
    get("s3://images/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == content[::-1]


def test_a_server_that_goes_away_costs_what_is_missing(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "AT_ONCE", 1)
    read, left = ObjectStore.read, 4

    def read_and_stop(*args):
        nonlocal left
        left -= 1
        if not left:
            s3.stop()
        return read(*args)

    monkeypatch.setattr(ObjectStore, "read", read_and_stop)
    content = files(count=4)
    write(s3.buckets / "images" / "pets", content)
    with pytest.raises(DownloadError, match=r"ConnectionError|Connect call failed") as caught:
        get("s3://images/pets", tmp_path / "pets")
    assert caught.value.retryable
    assert len(names(tmp_path / "pets")) == 3
    s3.start()
    before = s3.fetched()
    get("s3://images/pets", tmp_path / "pets")
    assert sorted(before + s3.fetched()) == [f"pets/{name}" for name in sorted(content)]
    assert len(before) == 3


@pytest.mark.parametrize(
    ("address", "login", "reason"),
    [
        ("s3://nowhere/pets", {}, "no such bucket, file or folder"),
        ("s3://images/nothing", {}, "no such bucket, file or folder"),
        ("s3://images/pets", {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "access is refused: "),
        ("s3://images/pets", {"AWS_ACCESS_KEY_ID": ""}, "NoCredentialsError: .*~/.aws; a public"),
        ("gs://images/pets", {}, r"gs:// needs the package gcsfs: pip install -e '\.\[gcs\]'"),
    ],
)
def test_what_is_not_to_be_had_has_a_reason(s3, tmp_path, monkeypatch, address, login, reason):
    write(s3.buckets / "images" / "pets", files())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=reason) as caught:
        get(address, tmp_path / "pets")
    assert not caught.value.retryable
    assert "wrong-secret" not in str(caught.value)
    assert not (tmp_path / "pets").exists()


def test_every_store_has_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    guide = (ROOT / "docs" / "datasets.md").read_text()
    for scheme, store in STORES.items():
        assert extras[store.extra][0].replace("-", "_").startswith(store.package)
        assert f"| `{scheme}://` | `pip install -e '.[{store.extra}]'`" in guide


def test_sources_are_ingested(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(s3.buckets / "images" / "pets", files())
    make_zip(
        s3.buckets / "images" / "pets.zip", files() | {"bird/0.png": encode()} | files(("bird",))
    )
    assert take("s3://images/pets").info.class_names == ("cat", "dog")
    archive = take("s3://images/pets.zip")
    assert archive.info.class_names == ("bird", "cat", "dog")
    assert archive.info.origin[0]["from"] == "s3://images/pets.zip"
    s3.fetched()
    take("s3://images/pets.zip", sha256=archive.info.origin[0]["sha256"])
    assert s3.fetched() == []
    with pytest.raises(DownloadError, match="is a folder, but a checksum is that of a file"):
        take("s3://images/pets", sha256="0" * 64)
    monkeypatch.setenv("DATASET_MIRROR", "s3://images")
    write(s3.buckets / "images" / "pets", files(prefix="here/"))
    assert take("here").info.class_names == ("cat", "dog")
