"""What is known of a dataset: its images, what the checks found, and what versions knew of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts.datasets import Contents, DatasetInfo, RawDataset, Split
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.errors import ArtifactError
from pipeline.registry import model_files, versions
from pipeline.registry.version_images import VersionImages
from pipeline.reports.dataset.source import state_of_source
from pipeline.validation.accepted import Accepted
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pandas import DataFrame

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Change:
    """How the images here differ from those of a registered version.

    Attributes:
        added: images here that it was neither trained, validated nor tested on; None where it has
            no record of its images, as is `removed`.
        removed: images of it that are not here.
    """

    version: int
    run_id: str
    aliases: tuple[str, ...]
    added: int | None = None
    removed: int | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset.

    Attributes:
        info: its metadata.
        images: by class, how many images each split has.
        source: whether what it was made from has changed since, in words.
        accepted: images by split of each version of the data that passed, the oldest first.
        changes: by registered version, the newest first.
        checks: of each check its worst result.
        manifest: one row per image.
    """

    info: DatasetInfo
    images: dict[str, dict[str, int]]
    source: str
    accepted: tuple[dict[str, int], ...]
    changes: tuple[Change, ...]
    checks: tuple[CheckResult, ...]
    manifest: "DataFrame"

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that it has before a validation split is taken out of train."""
        return tuple(split for split in SPLITS if split in self.info.counts)

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(self.info.counts.values())


def gather(workspace: Workspace) -> Facts:
    """Gather what is known of the dataset of a workspace.

    Raises:
        ArtifactError: it has not been ingested and validated.
        TrackingError: the MLflow store cannot be reached.
    """
    raw, manifest = workspace.raw, _manifest(workspace)
    info = raw.info
    if len(manifest) != sum(info.counts.values()):
        raise ArtifactError(
            f"{workspace.validation} is of another version of {info.name}: run dvc repro validate"
        )
    counts = manifest.groupby(["class_name", "split"]).size()
    return Facts(
        info=info,
        images={
            name: {split: int(counts.get((name, split), 0)) for split in info.counts}
            for name in info.class_names
        },
        source=state_of_source(raw),
        accepted=tuple(row.counts for row in Accepted.load_or_new(workspace.accepted).versions),
        changes=_changes(info.name, contents_of(raw)),
        checks=_worst(workspace.validation_report),
        manifest=manifest,
    )


def _manifest(workspace: Workspace) -> "DataFrame":
    import pandas as pd

    file = workspace.validation / "manifest.parquet"
    try:
        manifest = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {file}: {error}; run dvc repro validate") from error
    if "near_duplicate_of" not in manifest:
        raise ArtifactError(f"{file} is of an earlier release: run dvc repro validate")
    return manifest


def contents_of(raw: RawDataset) -> Contents:
    """Return what tells the images of all splits from each other: sorted, each once."""
    splits = [split for split in SPLITS if split in raw.info.counts]
    return np.unique(np.concatenate([raw.contents(split) for split in splits]))


def _changes(name: str, here: Contents) -> tuple[Change, ...]:
    changes = []
    for version in reversed(versions.all_of(name)):
        known = model_files.read_images(version)
        numbers = _difference(here, known) if known else (None, None)
        changes.append(Change(version.version, version.run_id, version.aliases, *numbers))
    return tuple(changes)


def _difference(here: Contents, known: VersionImages) -> tuple[int, int]:
    there = np.unique(np.concatenate([known.train, known.val, known.test]))
    return len(np.setdiff1d(here, there)), len(np.setdiff1d(there, here))


def _worst(report: ValidationReport) -> tuple[CheckResult, ...]:
    worst: dict[str, CheckResult] = {}
    for result in report.results:  # errors come before warnings
        if result.check not in worst or (worst[result.check].passed and not result.passed):
            worst[result.check] = result
    return tuple(worst.values())


def as_json(facts: Facts) -> dict[str, Any]:
    """Return all of it but the rows of the manifest, for machines."""
    return {
        "dataset": facts.info.name,
        "images": facts.total,
        "classes": facts.images,
        "forgotten": facts.info.forgotten,
        "source": facts.source,
        "ignored": facts.info.ignored,
        "accepted": list(facts.accepted),
        "versions": [asdict(change) for change in facts.changes],
        "checks": [row.model_dump(mode="json") for row in facts.checks],
    }


def page_path(facts: Facts, root: Path) -> Path:
    """Return where the page goes if nothing else is said."""
    return Workspace(facts.info.name, root).reports / "dataset.html"


def names(rows: "DataFrame") -> Sequence[str]:
    """Name images as the checks do: `test/cat/1.png`."""
    from pipeline.validation.measures import addresses

    return addresses(rows)
