"""The formats in which people have their images, as a list: to add one, add an entry.

`ingest` sorts the names that a reader lists into splits and classes (`pipeline.data.layout`) and
decodes the bytes.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.readers.archives import tar_entries, zip_entries
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import folder_entries
from pipeline.data.readers.reader import Entry, Reader
from pipeline.errors import DatasetError

# The first that recognises a path reads it.
READERS = (
    Reader("folder", (), Path.is_dir, folder_entries),
    Reader(".zip", (".zip",), zipfile.is_zipfile, zip_entries),
    # Last, because it takes any file: a damaged one is explained while it is read.
    Reader(".tar", (".tar", ".tar.gz", ".tgz"), Path.is_file, tar_entries),
)
ENDINGS = tuple(ending for reader in READERS for ending in reader.endings)


def entries(path: Path, caps: Caps | None = None) -> Iterator[Entry]:
    """List the files and folders of a dataset in one of the `READERS`.

    Raises:
        DatasetError: nothing lies there.
        ArchiveError: damaged, truncated, encrypted, beyond the caps, or a member is a link, a
            device, or would lie outside of the folder it is unpacked to.
    """
    reader = next((reader for reader in READERS if reader.recognises(path)), None)
    if reader is None:
        allowed = ", ".join(reader.name for reader in READERS)
        raise DatasetError(f"{path} is neither a file nor a folder; allowed: {allowed}")
    return reader.entries(path, caps or Caps())
