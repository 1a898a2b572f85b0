"""A version made from another one without training: some files and parts of the passport changed.

A registered version never changes, so what is found or made later becomes a version of its own, of
the same run and with the same Keras model. It goes into production as any other does.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.litert import read_checked
from pipeline.registry import logged_model, model_files, version_images, versions
from pipeline.registry.passport import FILE_NAME, Derivation, Passport
from pipeline.registry.versions import DERIVATION, DERIVED_FROM, GUARANTEE, Registered
from pipeline.tracking.store import in_turn

# Tags of what happened to a version, which do not hold for those derived from it.
_OF_ONE_VERSION = (DERIVED_FROM, DERIVATION, GUARANTEE, "last_decision")


def derive(
    version: Registered, by: str, files: Mapping[str, Path], changes: Mapping[str, Any]
) -> Registered:
    """Register a version that differs from another one in some files and parts of its passport.

    The same is registered once, however often it is asked for. What is logged is loaded and asked
    about the examples of the new passport before it is registered.

    Args:
        version: the version to derive from.
        by: the command that derives, for the passport.
        files: what differs, by name: `model.tflite`, which goes with its `portable.json`, or files
            that other versions do not have, whose names differ before the dot.
        changes: fields of the passport; where the answers differ, its examples are among them.

    Returns:
        The new version, without an alias.

    Raises:
        ArtifactError: a file of the version is not what was registered, or the LiteRT file is not
            the one that `portable.json` says.
        TrackingError: the store cannot be reached, or the new model does not load or answers
            something else than its passport says.
    """
    base, stored = model_files.read_passport(version), model_files.fetch(version)
    known = _names(stored)
    if "model.keras" in files or FILE_NAME in files:
        raise ArtifactError("a version is derived with the same Keras model, or it is trained anew")
    sums = {name: sha256(file) for name, file in files.items()}
    passport = base.model_copy(
        update={
            # What holds for the answers of one version need not hold for another.
            "guarantee": None,
            **changes,
            "derived_from": Derivation(version=version.version, by=by),
            "files": {name: sums[name] for name in sums if name not in known},
            "registered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    with in_turn(), TemporaryDirectory() as folder:
        derivation = _digest(passport, sums)
        model_sha256 = passport.run.model_sha256
        found = versions.find_version(version.name, version.run_id, model_sha256, derivation)
        if found is not None:
            return found
        there = Path(folder)
        for name in {*known, *files}:
            shutil.copyfile(files.get(name, stored / name), there / name)
        passport.save(there / FILE_NAME)
        uri = _log(version, there, passport)
        return versions.create_version(
            version.name,
            uri,
            version.run_id,
            {key: value for key, value in version.tags.items() if key not in _OF_ONE_VERSION}
            | {
                "passport_sha256": sha256(there / FILE_NAME),
                "portable_sha256": sha256(TrainedModel(there).litert),
                DERIVED_FROM: version.version,
                DERIVATION: derivation,
            },
        )


def _names(stored: Path) -> tuple[str, ...]:
    """Return the files that every version has, but for the passport.

    Raises:
        ArtifactError: one is missing, as the version is of an earlier release.
    """
    trained = TrainedModel(stored)
    names = (
        trained.model.name,
        "run.json",
        trained.litert.name,
        trained.litert_record.name,
        version_images.FILE_NAME,
    )
    if missing := [name for name in names if not (stored / name).exists()]:
        raise ArtifactError(
            f"the version has no {', '.join(missing)}, as it was registered by an earlier release; "
            "train and register it again: dvc repro --force"
        )
    return names


def _digest(passport: Passport, sums: Mapping[str, str]) -> str:
    """Return what tells one derivation from another: not the moment."""
    content = passport.model_dump(mode="json", exclude={"registered_at"})
    text = json.dumps([content, dict(sums)], sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest()


def _log(version: Registered, folder: Path, passport: Passport) -> str:
    """Store the model, and ask what was stored; returns its URI."""
    trained = TrainedModel(folder)
    read_checked(trained)
    uri = logged_model.log_model(
        trained,
        version.run_id,
        folder / FILE_NAME,
        folder / version_images.FILE_NAME,
        passport.examples[0].png,
        [folder / name for name in passport.files],
    )
    difference = model_files.examples_differ(uri, passport)
    if not difference <= model_files.SMOKE_TOLERANCE:
        raise TrackingError(
            f"what was logged does not answer as its passport says: probabilities differ by "
            f"{difference:.2g}, allowed: {model_files.SMOKE_TOLERANCE:g}; it is not registered"
        )
    return uri
