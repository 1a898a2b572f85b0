"""What DVC notices of own images, and that nobody's files stop another dataset."""

import json
import os
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.data.datasets import known_names
from pipeline.data.settings import ImageFolder
from pipeline.data.watched import watch
from pipeline.errors import ArtifactError
from tests.conftest import ROOT, clone, runner
from tests.images import encode, files, write

UNREADABLE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.getuid() == 0)


def choose(folder: Path, dataset: str, **entries: dict[str, object]) -> None:
    yaml, params = YAML(), folder / "params.yaml"
    content = yaml.load(params)
    content["dataset"] = dataset
    content["datasets"] |= {k: {"image_size": [8, 8]} | v for k, v in entries.items()}
    yaml.dump(content, params)


@pytest.mark.long
def test_images_are_noticed_wherever_they_are_and_harm_no_other_dataset(tmp_path):
    folder = clone(tmp_path / "clone")
    run = runner(folder)
    elsewhere = write(tmp_path / "photos", files(count=4))
    own = write(folder / "data/own/pets", files(count=4))
    write(folder / "data/own/harmful", files())
    choose(folder, "pets", pets={"source": "data/own/pets"}, far={"source": str(elsewhere)})

    def ran(*before: str) -> list[str]:
        done = run(*before, "dvc", "repro", "ingest")
        return re.findall(r"Running stage '([^']+)'", done.stdout)

    def counted(dataset: str) -> int:
        info = json.loads((folder / f"data/raw/{dataset}/metadata.json").read_text())
        return sum(info["counts"].values())

    assert ran() == ["resolve", "ingest"]
    # Nothing that lies in another dataset's folder matters, not even to DVC itself; and in the
    # dataset's own a name that is not UTF-8 is no reason to fail.
    (folder / "data/own/harmful/cat/link.png").symlink_to("nowhere")
    (folder / "data/own/harmful/locked").mkdir(mode=0)
    write(folder / "data/own", {"harmful/cat/\udce4.png": b"x", "harmful/cat/new.png": b"x"})
    write(own, {"cat/\udce4.png": encode(seed=8), "cat/8.png": encode(seed=9)})
    assert ran(*UNREADABLE) == ["ingest"]
    assert counted("pets") == 10

    choose(folder, "far")
    assert ran() == ["resolve", "ingest"]
    (own / "cat" / "broken.png").symlink_to("nowhere")
    write(elsewhere, {"dog/8.png": encode(seed=8)})
    assert ran() == ["ingest"]
    assert counted("far") == 9

    choose(folder, "pets")
    done = run("dvc", "repro", "ingest", check=False)
    assert done.returncode
    assert "cat/broken.png" in done.stderr


def test_every_dataset_that_is_downloaded_has_its_empty_folder():
    made = {path.parent.name for path in (ROOT / "data/watched").glob("*/.gitkeep")}
    assert {*known_names(), "cifar10_images"} <= made


def test_the_link_follows_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Path("data/watched/pets")

    def made(*source: str) -> str | None:
        watch(place, ImageFolder(source=source, image_size=(8, 8)) if source else None)
        return str(place.readlink()) if place.is_symlink() else None

    write(Path("data/own"), {"pets/a.png": b"", "pets.zip": b"", "pets/labels.csv": b""})
    Path("labels.csv").touch()
    assert made() is None
    assert [path.name for path in place.iterdir()] == [".gitkeep"]
    assert made("data/own/pets") == "../own/pets"
    assert made("https://127.0.0.1/pets.zip", "data/own/none", "data/own/pets.zip") == (
        "../own/pets.zip"
    )
    assert made("data/own/pets/labels.csv") == "../own/pets"
    assert made("labels.csv") == "../../labels.csv"
    assert made(str(tmp_path / "data")) == str(tmp_path / "data")
    assert made("s3://pets/all") is None
    (place / "mine.png").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"data/watched/pets is for the link .* data/own"):
        made("data/own/pets")
    assert (place / "mine.png").exists()
