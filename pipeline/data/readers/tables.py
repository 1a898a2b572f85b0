"""Tables of labels: CSV, TSV, JSON Lines and Parquet; images are files, URLs or bytes."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifacts.datasets import Split
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import read_file
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.splitnames import split_named
from pipeline.errors import DatasetError
from pipeline.redaction import redact
from pipeline.sources.addresses import beside, is_url
from pipeline.sources.urls import kept_at, read_fetched

# What people call the columns, in lower case; the first that is there is taken.
USUAL = {
    "file": (
        "file",
        "filename",
        "file_name",
        "image",
        "image_path",
        "path",
        "filepath",
        "img",
        "url",
        "image_url",
    ),
    "label": ("label", "class", "class_name", "category", "target", "species", "y"),
    "split": ("split", "subset", "set", "fold"),
    "group": ("group", "group_id", "patient", "patient_id", "subject"),
}
Row = Mapping[str, Any]
# A longer one is no category.
LONGEST_TEXT = 100


def csv_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images that a CSV or TSV file names, relative to its folder."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.readline()
        table = pd.read_csv(
            path,
            # Spreadsheets of many countries write a semicolon.
            sep=max(",;\t", key=head.count),
            dtype=str,
            keep_default_na=False,
            nrows=caps.files,
            encoding="utf-8-sig",
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DatasetError(f"{path.name} cannot be read as a table: {error}") from error
    rows = ({str(key): value for key, value in row.items()} for row in table.to_dict("records"))
    return table_entries(path, rows, list(table.columns), caps, columns)


def jsonl_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images that a file of JSON objects, one a line, names."""
    rows: list[Row] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                rows.append(_object(line, number, path))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path.name} cannot be read: {error}") from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    return table_entries(path, rows, names, caps, columns)


def _object(line: str, number: int, path: Path) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{path.name}, line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{path.name}, line {number} is no JSON object")
    return row


def table_entries(
    path: Path,
    rows: Iterable[Row],
    names: list[str],
    caps: Caps,
    columns: Columns,
    class_names: Mapping[str, list[str]] | None = None,
    split: Split | None = None,
) -> Iterator[Entry]:
    """List the images of a table.

    Args:
        path: the path of the table, whose folder the names of files are relative to.
        rows: values by column.
        names: the names of the columns.
        caps: limits of what is read.
        columns: which column is what.
        class_names: by column, the names that its numbers stand for.
        split: the split of all rows, where no column says it.

    Raises:
        DatasetError: a column is missing, a row has no file or label, or a file is named twice.
    """
    found = {role: _column(role, getattr(columns, role), names, path) for role in USUAL}
    for role in ("file", "label"):
        if found[role] is None:
            raise DatasetError(
                f"{path.name} has no column for the {role}; it has: {', '.join(names)}; say which: "
                f"`columns: {{{role}: NAME}}`"
            )
    others = [name for name in names if name not in found.values()]
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        value = {role: row.get(name) if name else None for role, name in found.items()}
        label = _label(value["label"], (class_names or {}).get(str(found["label"])))
        if not label or not value["file"]:
            missing = "label" if value["file"] else "file"
            raise DatasetError(f"{path.name}, row {number} has no {missing}")
        image = _image(path, value["file"], number, caps, columns.address)
        if image.name in seen:
            raise DatasetError(f"{path.name}, row {number} names {image.name!r} a second time")
        seen.add(image.name)
        group = "" if value["group"] is None else str(value["group"])
        its_split = _split(value["split"], path, number) or split
        more = {name: text for name in others if (text := _text(row.get(name)))}
        yield replace(image, label=label, split=its_split, group=group, columns=more or None)


def _column(role: str, wanted: str | None, names: list[str], path: Path) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise DatasetError(
                f"{path.name} has no column {wanted!r}; it has: {', '.join(map(str, names))}"
            )
        return wanted
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[usual] for usual in USUAL[role] if usual in by_lower), None)


def _label(value: Any, class_names: list[str] | None) -> str:
    if class_names and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    return "" if value is None else str(value).strip()


def _text(value: Any) -> str:
    """Return a value as the text that is kept of it; empty for what describes only one image."""
    if not isinstance(value, str | int | float):
        return ""
    text = str(value).strip()
    # Of few different texts one copy is enough.
    return sys.intern(text) if len(text) <= LONGEST_TEXT else ""


def _split(value: Any, path: Path, number: int) -> Split | None:
    if value in (None, ""):
        return None
    split = split_named(str(value))
    if split is None:
        raise DatasetError(
            f"{path.name}, row {number} has the split {value!r}; allowed: train, val, test, empty"
        )
    return split


def _image(path: Path, value: Any, number: int, caps: Caps, address: str) -> Entry:
    """Return the entry of an image: a file, a URL, or the bytes of the row itself."""
    if isinstance(value, dict):
        data, name = value.get("bytes"), value.get("path")
        if data is not None:
            name = f"{path.name}/{number:07d}-{Path(name or 'image').name}"
            return Entry(name, lambda: data)
        value = name
    if isinstance(value, bytes):
        return Entry(f"{path.name}/{number:07d}", lambda: value)
    name = str(value).strip()
    if is_url(name):
        # Names are stored with every dataset and model.
        return _fetched(redact(name), name, caps)
    name = name.replace("\\", "/")
    if address:
        return _fetched(name, beside(address, name), caps)
    file = str(path.parent / name)
    return Entry(name, partial(read_file, file, caps), file=file)


def _fetched(name: str, url: str, caps: Caps) -> Entry:
    read = partial(read_fetched, url, lambda file: read_file(file, caps))
    return Entry(name, read, file=str(kept_at(url)), url=url)
