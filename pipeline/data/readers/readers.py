"""The formats in which people have their images, as a list: to add one, add an entry.

`ingest` sorts the names that a reader lists into splits and classes (`pipeline.data.layout`) and
decodes the bytes.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.data.readers.archives import tar_entries, zip_entries
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import folder_entries
from pipeline.data.readers.huggingface import (
    is_parquet,
    is_parquet_folder,
    is_saved,
    parquet_entries,
    parquet_folder_entries,
    saved_entries,
)
from pipeline.data.readers.joined import joined
from pipeline.data.readers.reader import Columns, Entry, Reader
from pipeline.data.readers.tables import csv_entries, jsonl_entries
from pipeline.data.readers.webdataset import is_shard, is_shard_folder, shard_entries
from pipeline.errors import DatasetError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def _ends(*endings: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() in endings


# The first that recognises a path reads it.
READERS = (
    Reader("Hugging Face", (), is_saved, saved_entries, table=True),
    Reader("folder of Parquet", (), is_parquet_folder, parquet_folder_entries, table=True),
    Reader("folder of webdataset", (), is_shard_folder, shard_entries),
    Reader("folder", (), Path.is_dir, folder_entries),
    Reader("Parquet", (".parquet",), is_parquet, parquet_entries, table=True),
    Reader("CSV", (".csv", ".tsv"), _ends(".csv", ".tsv"), csv_entries, table=True),
    Reader(
        "JSON Lines", (".jsonl", ".ndjson"), _ends(".jsonl", ".ndjson"), jsonl_entries, table=True
    ),
    Reader("zip", (".zip",), zipfile.is_zipfile, zip_entries),
    Reader("webdataset", (".tar",), is_shard, shard_entries),
    # Last, because it takes any file: a damaged one is explained while it is read.
    Reader(
        "tar",
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
        Path.is_file,
        tar_entries,
    ),
)
ENDINGS = tuple(ending for reader in READERS for ending in reader.endings)


def entries(
    path: Path, caps: Caps | None = None, columns: Columns | None = None
) -> Iterator[Entry]:
    """List the files and folders of a dataset in one of the `READERS`.

    Raises:
        DatasetError: nothing lies there, or a table of labels is wrong.
        ArchiveError: damaged, truncated, encrypted, beyond the caps, or a member is a link, a
            device, or would lie outside of the folder it is unpacked to.
    """
    caps, columns = caps or Caps(), columns or Columns()
    reader = reader_of(path)
    rows = reader.entries(path, caps, columns)
    if not columns.images:
        return rows
    if not reader.table:
        raise DatasetError(
            f"`images` says where the files of a table are, but {path.name} is a {reader.name}"
        )
    files = reader_of(columns.images).entries(columns.images, caps, Columns())
    return joined(rows, files, columns.images.name)


def reader_of(path: Path) -> Reader:
    """Return what reads the source at a path.

    Raises:
        DatasetError: nothing lies there.
    """
    reader = next((reader for reader in READERS if reader.recognises(path)), None)
    if reader is None:
        allowed = ", ".join(reader.name for reader in READERS)
        raise DatasetError(f"{path} is neither a file nor a folder; allowed: {allowed}")
    return reader
