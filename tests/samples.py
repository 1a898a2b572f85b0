"""For each reader, what writes a dataset in its format, given files by `<class>/<file>`."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.images import make_tar, make_zip, write

NAMES = ["cat", "dog"]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}


def classes(content):
    return [name.split("/")[0] for name in content]


def write_csv(path, content):
    write(path.parent, content)
    with path.open("w", newline="") as file:
        rows = zip(content, classes(content), strict=True)
        csv.writer(file).writerows([["filename", "label"], *rows])
    return path


def write_jsonl(path, content):
    write(path.parent, content)
    rows = [{"file": n, "label": c} for n, c in zip(content, classes(content), strict=True)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def table(content):
    images = [{"bytes": data, "path": Path(name).name} for name, data in content.items()]
    labels = [NAMES.index(name) for name in classes(content)]
    stored = json.dumps({"info": {"features": FEATURES}})
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(
        {"huggingface": stored}
    )


def write_parquet(path, content):
    pq.write_table(table(content), path)
    return path


def write_parquet_folder(path, content):
    (path / "data").mkdir(parents=True)
    write_parquet(path / "data" / "train-00000-of-00001.parquet", content)
    return path


def write_saved(path, content):
    folder = path / "train"
    folder.mkdir(parents=True)
    (path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000.arrow"}]}')
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    made = table(content)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), made.schema) as stream:
        stream.write_table(made)
    return path


def write_shard(path, content):
    members = {}
    for number, (name, data) in enumerate(content.items()):
        members[f"{number:06}{Path(name).suffix}"] = data
        members[f"{number:06}.cls"] = name.split("/")[0].encode()
    return make_tar(path, members, "w")


def write_shards(path, content):
    path.mkdir()
    items = list(content.items())
    for number in range(2):
        write_shard(path / f"train-{number:04}.tar", dict(items[number::2]))
    return path


SAMPLES = {
    "Hugging Face": write_saved,
    "folder of Parquet": write_parquet_folder,
    "folder of webdataset": write_shards,
    "folder": write,
    "Parquet": write_parquet,
    "CSV": write_csv,
    "JSON Lines": write_jsonl,
    "zip": make_zip,
    "webdataset": write_shard,
    "tar": lambda path, content: make_tar(path, content, "w"),
}
