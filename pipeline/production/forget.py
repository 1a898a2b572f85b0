"""forget: images -> a list that keeps them out of the data, and a tag of versions made with them.

The pixels themselves are in none of it. They stay where they were: at the source, in DVC's cache,
in the models that were trained on them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.data import forgotten
from pipeline.data.forgotten import FORGOTTEN, ForgottenImage
from pipeline.data.places import Datasets, Found
from pipeline.errors import ParamsError
from pipeline.production.recording import check_reason, current_user
from pipeline.registry import model_files, versions
from pipeline.registry.passport import Passport
from pipeline.registry.uses import Records, contains
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import Registered

# Writes anew what the registry shows of a version; `reports.card` has it.
Describe = Callable[[Registered, Passport], None]


@dataclass(frozen=True)
class Forgetting:
    """What is done where images are forgotten.

    Attributes:
        images: where they are.
        added: the lines that are new in the list.
        made_with: the versions that were trained or validated on images of the list, with the tag
            that says how many these are.
        not_recorded: versions from before there was a record.
    """

    images: tuple[Found, ...]
    added: tuple[ForgottenImage, ...]
    made_with: tuple[Registered, ...]
    not_recorded: tuple[Registered, ...]


def plan_forgetting(
    files: Sequence[Path], reason: str, who: str = "", root: Path = Path()
) -> Forgetting:
    """Find out what forgetting some images means; nothing is changed.

    Args:
        files: image files; what looks like one of them is not forgotten with it.
        reason: why.
        who: asks; by default the user and the machine.
        root: the project.

    Raises:
        ParamsError: no reason, or it is too long.
        ImageError: a file cannot be read.
        ArtifactError: the list, a dataset or a version's record is torn.
        TrackingError: the store cannot be reached.
    """
    if not reason.strip():
        raise ParamsError("to forget images needs a reason, which is recorded: --reason TEXT")
    check_reason(reason)
    datasets = Datasets(root)
    images = tuple(datasets.find(file) for file in files)
    listed = forgotten.load(root / FORGOTTEN)
    known = {image.content for image in listed}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = dict.fromkeys(
        content
        for image in images
        for content, how in image.contents.items()
        if how != "looks like it" and content not in known
    )
    added = tuple(
        ForgottenImage(content=content, reason=reason, who=who or current_user(), when=when)
        for content in wanted
    )
    everything = (*listed, *added)
    records = list(Records())
    return Forgetting(
        images,
        added,
        tuple(
            _tagged(version, count)
            for version, known_images in records
            if known_images and (count := _count(known_images, everything))
        ),
        tuple(version for version, known_images in records if known_images is None),
    )


def forget(planned: Forgetting, describe: Describe, root: Path = Path()) -> None:
    """Write the list, then tag the versions.

    Where the process ends in between, the next one tags them all the same.

    Args:
        planned: what `plan_forgetting` found.
        describe: writes anew what the registry shows of a version.
        root: the project.

    Raises:
        ArtifactError: the list cannot be written.
        TrackingError: the store cannot be reached; the list is written, so say it again.
    """
    if planned.added:
        # Read again, as somebody may have added to it while a person was asked.
        listed = forgotten.load(root / FORGOTTEN)
        known = {image.content for image in listed}
        new = (image for image in planned.added if image.content not in known)
        forgotten.save((*listed, *new), root / FORGOTTEN)
    for version in planned.made_with:
        _tag(version, describe)


def flagged(
    version: Registered, describe: Describe, root: Path = Path(), dry_run: bool = False
) -> Registered:
    """Return a version with the tag that the list here gives it: it may be newer than the list.

    Args:
        version: that is asked about.
        describe: writes anew what the registry shows of a version.
        root: the project.
        dry_run: whether to leave the registry as it is.

    Raises:
        ArtifactError: the list or the version's record is torn.
        TrackingError: the store cannot be reached.
    """
    listed = forgotten.load(root / FORGOTTEN)
    images = model_files.read_images(version) if listed else None
    count = _count(images, listed) if images else 0
    if count <= version.forgotten:
        return version
    tagged = _tagged(version, count)
    if not dry_run:
        _tag(tagged, describe)
    return tagged


def _count(images: VersionImages, listed: Iterable[ForgottenImage]) -> int:
    """Count the images of a list that a version was trained or validated on."""
    return sum(
        contains(images.train, image.content) or contains(images.val, image.content)
        for image in listed
    )


def _tagged(version: Registered, count: int) -> Registered:
    # Another checkout, whose list is longer, may have tagged it.
    most = max(count, version.forgotten)
    return replace(version, tags={**version.tags, versions.FORGOTTEN: str(most)})


def _tag(version: Registered, describe: Describe) -> None:
    versions.set_tag(version.name, version.version, versions.FORGOTTEN, version.forgotten)
    if "passport_sha256" in version.tags:
        describe(version, model_files.read_passport(version))
