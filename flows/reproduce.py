"""reproduce: a registered model's passport -> the same model once more, and whether it is the same.

It needs git and DVC, and no Prefect.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import uuid4

import numpy as np

from flows import differences
from flows.checkout import Checkout, CheckoutError, worktree
from flows.differences import Difference
from flows.stages import StageFailed, Stages, environment
from pipeline import provenance
from pipeline.artifacts import Splits, TrainedModel
from pipeline.errors import EXIT_CODE_PASSING, PipelineError
from pipeline.files import dvc_md5, sha256
from pipeline.params import PARAMS_FILE
from pipeline.passport import Passport
from pipeline.scoring import Scorer, load_checked
from pipeline.workspace import Workspace

DATA_STAGES = ("resolve", "ingest", "validate", "preprocess")


class NotReproducible(PipelineError):
    """The model cannot even be trained again: its code or its data are not to be had."""


@dataclass(frozen=True)
class Reproduction:
    """A model that was trained again, beside the one that is registered.

    Attributes:
        differ: what is not as it was when the registered one was made.
        strict: whether the weights must be identical: it was trained deterministically on a CPU,
            and nothing that is known to matter has changed.
        identical: whether they are, bit for bit.
        weights_apart: the largest difference of two weights; None where the shapes differ.
        probabilities_apart: the largest difference of two probabilities on the test split.
        labels_agree: share of the test images that both call the same.
        tolerance: the share that may be called differently.
        accuracy: of the registered one and of the new one, on the test split.
    """

    name: str
    version: int
    differ: tuple[Difference, ...]
    strict: bool
    identical: bool
    weights_apart: float | None
    probabilities_apart: float
    labels_agree: float
    tolerance: float
    accuracy: tuple[float, float]

    @property
    def same(self) -> bool:
        """Whether the model was reproduced."""
        return self.identical or (not self.strict and self.labels_agree >= 1 - self.tolerance)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**asdict(self), "reproduced": self.same}


def reproduce(
    passport: Passport,
    version: int,
    registered: TrainedModel,
    *,
    tolerance: float,
    keep: Path | None,
    say: Callable[[str], None],
) -> Reproduction:
    """Train a registered model again, from the commit, the params and the data of its passport.

    Nothing of the working tree is touched, and the new run is tracked in the worktree alone.

    Args:
        passport: of the version.
        version: its number.
        registered: its files, checked against the registry.
        tolerance: the share of test images that may be called differently, where the weights need
            not be identical.
        keep: a folder that the new model is copied to.
        say: is told how far it is.

    Raises:
        NotReproducible: the commit is not in this repository, its diff does not apply, or the data
            are not those that it was trained on.
        StageFailed: a stage or the training failed.
    """
    if keep is not None and keep.exists():
        raise NotReproducible(f"{keep} exists already; --keep takes a folder that does not")
    code = passport.provenance.code
    say(f"a clean worktree at {code.commit}")
    try:
        with worktree(str(code.commit), f"reproduce-{uuid4().hex[:8]}") as checkout:
            _restore(checkout, passport)
            given = environment(checkout, {"MLFLOW_TRACKING_URI": _own_store(checkout)})
            differ = _find_differences(checkout, passport, given, say)
            _train(checkout, passport.run.model, given)
            workspace = Workspace(passport.name, checkout.root)
            made = workspace.trained(passport.run.model)
            if keep is not None:
                copytree(made.path, keep)
            return _compare(
                passport, version, registered, made, workspace.splits, differ, tolerance
            )
    except CheckoutError as error:
        raise NotReproducible(
            f"commit {code.commit} of {passport.name}/{version} cannot be checked out; fetch it: "
            f"git fetch --all ({error})"
        ) from None


def _restore(checkout: Checkout, passport: Passport) -> None:
    """Bring back what was not in the commit: the diff of a dirty tree, params.yaml, dvc.lock."""
    if diff := passport.provenance.code.diff:
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn"],
            cwd=checkout.root,
            input=diff,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotReproducible(f"its diff does not apply: {' '.join(done.stderr.split())}")
    (checkout.root / PARAMS_FILE).write_text(passport.provenance.params_yaml)
    (checkout.root / "dvc.lock").write_text(passport.dvc_lock)


def _own_store(checkout: Checkout) -> str:
    return f"sqlite:///{checkout.root / 'mlflow.db'}"


def _find_differences(
    checkout: Checkout, passport: Passport, given: dict[str, str], say: Callable[[str], None]
) -> tuple[Difference, ...]:
    """Get the data, and tell what is not as it was before anything trains.

    Raises:
        NotReproducible: the arrays are others than those it was trained on.
    """
    lockfiles = {
        path.relative_to(checkout.root).as_posix(): sha256(path)
        for path in sorted((checkout.root / provenance.LOCKFILES).glob("*.txt"))
    }
    code = passport.provenance.code.model_copy(update={"lockfiles": lockfiles})
    here = provenance.environment(_gpu_of(passport))
    differ = differences.of_environment(passport, code, here)
    for row in differ:
        say(f"differs: {row}")
    with Stages(checkout, given) as stages:
        for stage in DATA_STAGES:
            ran = stages.run(stage, say)
            say(f"{stage}: {'done anew' if ran else 'from the cache'}")
    workspace = Workspace(passport.name, checkout.root)
    md5 = {name: dvc_md5(workspace.splits.path / name) for name in passport.data.md5}
    data = differences.of_data(passport, dvc_md5(workspace.raw.path), md5)
    for row in data:
        say(f"differs: {row}")
    if any(row.name != "raw" for row in data):
        raise NotReproducible(
            f"the data are not those that {passport.name} was trained on: "
            + "; ".join(map(str, data))
        )
    return (*differ, *data)


def _gpu_of(passport: Passport) -> dict[str, Any]:
    """Return what is known of the GPU here, where one trained the model."""
    if not passport.run.device.startswith("gpu"):
        return {}
    from pipeline.claim import visible
    from pipeline.device import describe, gpus

    found = gpus()
    return describe(found[0], visible(len(found))[0]).hardware() if found else {}


def _train(checkout: Checkout, model: str, given: dict[str, str]) -> None:
    """Train by the command of that commit; not through DVC, which would return the old model."""
    done = subprocess.run(
        ["pipeline", "train", model],
        cwd=checkout.root,
        env={**given, "FLOW_RUN_ID": ""},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        raise StageFailed(
            f"training {model} again failed; its reason is above",
            done.returncode == EXIT_CODE_PASSING,
        )


def _compare(
    passport: Passport,
    version: int,
    registered: TrainedModel,
    made: TrainedModel,
    splits: Splits,
    differ: tuple[Difference, ...],
    tolerance: float,
) -> Reproduction:
    old = load_checked(registered.model, passport.run.model_sha256)
    new = load_checked(made.model, made.run.model_sha256)
    pairs = list(zip(old.get_weights(), new.get_weights(), strict=False))
    alike = len(old.get_weights()) == len(new.get_weights()) and all(
        a.shape == b.shape for a, b in pairs
    )
    said, again = (Scorer(model).probabilities(splits.x("test")) for model in (old, new))
    y = splits.y("test")
    matter = {"lock file", "Python", "package", "hardware"}
    return Reproduction(
        name=passport.name,
        version=version,
        differ=differ,
        strict=passport.provenance.deterministic
        and passport.run.device.startswith("cpu")
        and not any(row.part in matter for row in differ),
        identical=alike and all(np.array_equal(a, b) for a, b in pairs),
        weights_apart=max(float(np.abs(a - b).max()) for a, b in pairs) if alike else None,
        probabilities_apart=float(np.abs(said - again).max()),
        labels_agree=float((said.argmax(axis=1) == again.argmax(axis=1)).mean()),
        tolerance=tolerance,
        accuracy=(
            float((said.argmax(axis=1) == y).mean()),
            float((again.argmax(axis=1) == y).mean()),
        ),
    )
