"""Tables of labels whose images lie in an archive or folder elsewhere."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import dvc_md5
from pipeline.artifacts.validation import ValidationReport
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import preprocess
from pipeline.data.settings import DatasetPlan, ImageFolder, Preprocess
from pipeline.errors import DatasetError, DownloadError
from tests.images import encode, files, make_tar, make_zip, write
from tests.samples import write_csv, write_jsonl

CONTENT = files(count=6)
AROUND = {f"photos/{name}": data for name, data in CONTENT.items()}
LITTER = {"__MACOSX/photos/cat/._0.png": b"x", "photos/readme.txt": b"x", "bird/9.png": encode()}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)


def take(name: str, source: str, images: str | None = None, **entry: object) -> Path:
    given = {"source": source, "images": images, "image_size": (10, 12), **entry}
    plan = DatasetPlan(name="pets", entry=ImageFolder.model_validate(given))
    return ingest(plan, Path(name), progress=False).path


def labels(content: dict[str, bytes], folder: str = "beside", write_table=write_csv) -> str:
    """Write the table beside its images, as the samples do."""
    Path(folder).mkdir(exist_ok=True)
    path = Path(folder) / ("labels.csv" if write_table is write_csv else "labels.jsonl")
    return str(write_table(path, content))


@pytest.mark.parametrize("write_table", [write_csv, write_jsonl])
@pytest.mark.parametrize(
    ("name", "make", "content"),
    [
        ("photos.zip", make_zip, CONTENT),
        ("around.zip", make_zip, AROUND | LITTER),
        ("photos.tar.gz", make_tar, dict(reversed(AROUND.items()))),
        ("photos", write, AROUND | LITTER),
    ],
)
def test_wherever_the_files_are_the_dataset_is_the_same(write_table, name, make, content):
    make(Path(name), content)
    source = labels(CONTENT, write_table=write_table)
    beside, elsewhere = take("a", source), take("b", source, name)
    for file in ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "files.parquet"):
        assert dvc_md5(beside / file) == dvc_md5(elsewhere / file)
    assert f'"file": "{name}"' in (elsewhere / "metadata.json").read_text()


def test_what_the_archive_lacks_is_an_unreadable_image():
    make_zip(Path("photos.zip"), {k: v for k, v in AROUND.items() if k != "photos/dog/2.png"})
    raw = take("raw", labels(CONTENT), "photos.zip")
    table = pd.read_parquet(raw / "files.parquet").set_index("file")["error"]
    assert table[table != ""].to_dict() == {"dog/2.png": "is not in photos.zip"}


@pytest.mark.parametrize(
    ("content", "images", "reason"),
    [
        (AROUND, "nowhere.zip", "cannot get nowhere.zip of pets: .*no such file or folder"),
        ({f"x{name}": b"x" for name in CONTENT}, "photos.zip", "no file of photos.zip is named in"),
        (
            AROUND | {"old/cat/0.png": b"x"},
            "photos.zip",
            "'cat/0.png' may be 'photos/cat/0.png' or 'old/cat/0.png' of photos.zip; name the fol",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(content, images, reason):
    make_zip(Path("photos.zip"), content)
    with pytest.raises((DatasetError, DownloadError), match=reason):
        take("raw", labels(CONTENT), images)


def test_other_columns_are_kept_for_the_slices_of_the_test_split(tmp_path):
    write(Path("photos"), CONTENT)
    rows: list[dict[str, object]] = [
        {"file": name, "label": name.split("/")[-2], "patient": f"p{n // 2}", "scanner": "old"}
        for n, name in enumerate(CONTENT)
    ]
    rows[1] |= {"age": 30, "note": "x" * 200, "box": [1, 2]}
    Path("labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    raw = RawDataset(take("raw", "labels.jsonl", "photos"))
    table = pd.read_parquet(raw.files).sort_values("file").reset_index(drop=True)
    assert list(table.filter(like="column:")) == ["column:scanner", "column:age"]
    assert set(table["column:scanner"]) == {"old"}
    assert sorted(table["column:age"]) == ["", *[""] * (len(rows) - 2), "30"]
    report = ValidationReport(dataset="pets", raw_md5=raw.md5, results=())
    splits = preprocess(raw, report, Preprocess(), Path("out"), Path("samples.png"))
    known, tested = splits.recorded("test"), table[table["split"] == "test"]
    assert set(known) == {"height", "width", "group", "column:scanner", "column:age"}
    assert sorted(known["group"]) == sorted(tested["key"])
    assert known["height"].tolist() == tested["height"].tolist()


def test_only_a_table_has_its_images_elsewhere():
    write(Path("pets"), CONTENT)
    make_zip(Path("photos.zip"), CONTENT)
    with pytest.raises(DatasetError, match=r"`images` says .* but pets is a folder"):
        take("raw", "pets", "photos.zip")
