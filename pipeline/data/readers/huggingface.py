"""Image datasets of Hugging Face: Parquet files, and folders that `save_to_disk` has written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.datasets import Split
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import holds
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.splitnames import split_named
from pipeline.data.readers.tables import Row, table_entries
from pipeline.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 256


def is_parquet(path: Path) -> bool:
    """Return whether a path is a Parquet file."""
    return path.is_file() and _starts_with(path, b"PAR1")


def is_parquet_folder(path: Path) -> bool:
    """Return whether a folder holds Parquet files, as a dataset that was downloaded does."""
    return holds(path, ".parquet")


def is_saved(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return path.is_dir() and bool(_saved_parts(path))


def parquet_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images of a Parquet file; a few rows are in memory at a time."""
    return _parquet(path, caps, columns, None)


def parquet_folder_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images of a folder of Parquet files, `train-00000-of-00001.parquet` and the like."""
    for file in _parquet_files(path):
        yield from _parquet(file, caps, columns, _split_of(file, path))


def saved_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images of a dataset that was saved to disk, with its splits."""
    import pyarrow as pa

    for folder, split in _saved_parts(path):
        info = json.loads((folder / "dataset_info.json").read_text())
        for file in sorted(folder.glob("*.arrow")):
            try:
                with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                    names = _class_names(info.get("features") or {})
                    rows = (row for batch in stream for row in _rows(batch))
                    yield from table_entries(
                        file, rows, stream.schema.names, caps, columns, names, split
                    )
            except (OSError, pa.ArrowInvalid) as error:
                raise DatasetError(f"{file.name} is damaged: {error}") from error


def _parquet(path: Path, caps: Caps, columns: Columns, split: Split | None) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            stored = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
            features = json.loads(stored).get("info", {}).get("features") or {}
            rows = (row for batch in file.iter_batches(ROWS_AT_ONCE) for row in _rows(batch))
            names = file.schema_arrow.names
            yield from table_entries(
                path, rows, names, caps, columns, _class_names(features), split
            )
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path.name} is damaged: {error}") from error


def _rows(batch: "pa.RecordBatch") -> list[Row]:
    rows: list[Row] = batch.to_pylist()
    return rows


def _class_names(features: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the classes, by column."""
    return {
        column: kind["names"]
        for column, kind in features.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and kind.get("names")
    }


def _saved_parts(path: Path) -> list[tuple[Path, Split | None]]:
    """Return the folders of a saved dataset, each with its split."""
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return [(path, None)]
    if not (path / "dataset_dict.json").is_file():
        return []
    names = json.loads((path / "dataset_dict.json").read_text()).get("splits", [])
    return [(path / name, split_named(name)) for name in names]


def _parquet_files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.rglob("*.parquet")) if file.is_file())


def _split_of(file: Path, top: Path) -> Split | None:
    """Return the split that the name of a file, or of its folder, stands for."""
    words = [file.stem.split("-")[0], *reversed(file.relative_to(top).parts[:-1])]
    return next((split for word in words if (split := split_named(word))), None)


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start
