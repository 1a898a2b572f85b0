"""Versions of a dataset that passed: what the check `shift` compares the next one with."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.record import Frozen, Record
from pipeline.validation.measures import Histograms

if TYPE_CHECKING:
    from pandas import DataFrame


CHUNK = 50_000  # rows that are in memory as text


class AcceptedVersion(Frozen):
    """One version: the digest of its pixels and labels, and what is compared."""

    digest: str
    counts: dict[str, int]
    histograms: Histograms


class Accepted(Record):
    """`data/accepted/<dataset>.json`, kept in git: the accepted versions, oldest first."""

    versions: tuple[AcceptedVersion, ...] = ()

    @classmethod
    def load_or_new(cls, path: Path) -> "Accepted":
        """Read the file, or start with no version where there is none."""
        return cls.load(path) if path.exists() else cls()

    def before(self, digest: str) -> AcceptedVersion | None:
        """Return the version accepted before the one with this digest.

        For a new version that is the last one. For one that was accepted already it is still the
        one before it, so that validating the same data again gives the same result.
        """
        digests = [version.digest for version in self.versions]
        earlier = digests.index(digest) if digest in digests else len(digests)
        return self.versions[earlier - 1] if earlier else None

    def add(self, version: AcceptedVersion, path: Path) -> None:
        """Append a version to the file, unless it is there."""
        if version.digest not in {known.digest for known in self.versions}:
            Accepted(versions=(*self.versions, version)).save(path)


def content_digest(manifest: "DataFrame") -> str:
    """Return the sha256 of splits, labels and pixels; file names and origin do not matter."""
    digest = hashlib.sha256()
    for start in range(0, len(manifest), CHUNK):
        part = manifest.iloc[start : start + CHUNK]
        columns = (part[name].fillna("").astype(str) for name in ("split", "label", "sha256"))
        rows = "\n".join(map(" ".join, zip(*columns, strict=True)))
        digest.update(f"{rows}\n".encode() if start + CHUNK < len(manifest) else rows.encode())
    return digest.hexdigest()
