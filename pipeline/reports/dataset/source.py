"""Whether what a dataset was made from has changed since."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts.datasets import RawDataset
from pipeline.data.readers.content import digest
from pipeline.data.readers.folder import folder_entries
from pipeline.data.readers.listing import is_image
from pipeline.data.watched import TABLES
from pipeline.errors import ArchiveError
from pipeline.redaction import redact
from pipeline.sources.addresses import is_url

UNWATCHED = "not known whether it changed; dvc repro --force --single-item ingest reads it anew"


def state_of_source(raw: RawDataset) -> str:
    """Say in words whether the source of a dataset has changed since it was ingested."""
    info = raw.info
    if info.expected is not None:
        return "a known dataset, whose checksums are pinned"
    source = redact(info.origin[0].get("from", "") if info.origin else "")
    path = Path(source).expanduser()
    if is_url(source):
        return f"{source}: {UNWATCHED}"
    if not path.exists():
        return f"{source}: not found from here, {UNWATCHED}"
    changed = _changed_folder(path, raw) if path.is_dir() else _changed_file(path, raw)
    if changed:
        return f"{source}: CHANGED since it was ingested ({changed}); dvc repro ingests it anew"
    what = "the table has" if path.suffix.lower() in TABLES else "it has"
    return f"{source}: {what} not changed since it was ingested"


def _changed_file(path: Path, raw: RawDataset) -> str:
    try:
        (found,) = digest(path, ("sha256",))
    except (OSError, ArchiveError) as error:
        return f"it cannot be read: {error}"
    return "" if found == raw.info.origin[0].get("sha256") else f"its sha256 is {found[:12]}…"


def _changed_folder(path: Path, raw: RawDataset) -> str:
    """Compare names, and the times at which files were written: reading them all takes long."""
    import pyarrow.parquet as pq

    there = set(_images(path))
    known = set(pq.read_table(raw.files, columns=["file"])["file"].to_pylist())
    ingested = (raw.path / "metadata.json").stat().st_mtime
    later = sum((path / name).stat().st_mtime > ingested for name in there & known)
    counts = {"new": len(there - known), "gone": len(known - there), "written since": later}
    return ", ".join(f"{count:,} files {what}" for what, count in counts.items() if count)


def _images(path: Path) -> Iterator[str]:
    return (entry.name for entry in folder_entries(path) if is_image(entry.name))
