"""What was computed of the pixels of shards, kept on this machine; safe to delete."""

import hashlib
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import atomic, sha256
from pipeline.artifacts.local_cache import cache
from pipeline.errors import ArtifactError

# Of a shard that nobody has asked for.
KEPT_SECONDS = 30 * 24 * 3600


class ShardMemory:
    """Arrays by shard, told by the sha256 of its images and by the code that computes them.

    Args:
        kind: what they are, a folder of the cache.
        code: the source files that compute them.
    """

    def __init__(self, kind: str, *code: str) -> None:
        self._folder = cache() / kind
        self._code = "".join(sha256(Path(file)) for file in code).encode()

    def load(self, pixels: Sequence[bytes]) -> dict[str, NDArray[Any]] | None:
        """Return what is kept of a shard, given the sha256 of the pixels of each image."""
        file = self._file(pixels)
        try:
            with np.load(file, allow_pickle=False) as stored:
                known = dict(stored)
            os.utime(file)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return known

    def save(self, pixels: Sequence[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep what was computed of a shard, if the cache can be written."""
        with (
            suppress(ArtifactError),
            atomic(self._file(pixels)) as part,
            part.open("wb") as opened,
        ):
            np.savez(opened, allow_pickle=False, **arrays)

    def forget_old(self) -> None:
        """Remove what nobody has asked for in a month."""
        with suppress(OSError):
            for file in self._folder.iterdir():
                if time.time() - file.stat().st_mtime > KEPT_SECONDS:
                    file.unlink()

    def _file(self, pixels: Sequence[bytes]) -> Path:
        digest = hashlib.sha256(self._code)
        for one in pixels:
            digest.update(one)
        return self._folder / f"{digest.hexdigest()[:32]}.npz"
