"""reproduce: a registered model's passport -> the same model once more, and whether it is the same.

It needs git and DVC, and no Prefect.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import uuid4

from flows.execution.checkout import Checkout, UnknownRevision, worktree
from flows.execution.stages import StageFailed, Stages, environment
from flows.forms.yaml_edit import edit
from flows.reproduction import differences
from flows.reproduction.differences import Difference
from flows.reproduction.verdict import Reproduction, compare
from pipeline.artifacts.files import dvc_md5, sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.project import DATA_STAGES, PARAMS_FILE
from pipeline.artifacts.record import DeviceChoice
from pipeline.errors import EXIT_CODE_RETRYABLE, PipelineError
from pipeline.evaluation.scoring import load_checked
from pipeline.models.plan import ModelPlan
from pipeline.registry.passport import Passport
from pipeline.tracking import describe as provenance
from pipeline.tracking import working_tree
from pipeline.training.claim import visible
from pipeline.training.device import describe, gpus
from pipeline.workspace import Workspace

# The requirements beside the code that runs are those that its environment was made from.
LOCKFILES = Path(__file__).parent.parent / working_tree.LOCKFILES

Say = Callable[[str], None]


class NotReproducible(PipelineError):
    """The model cannot be trained again: its code or its data are not available."""


def reproduce(
    passport: Passport,
    version: int,
    registered: TrainedModel,
    *,
    tolerance: float,
    device: DeviceChoice | None,
    keep: Path | None,
    say: Say,
) -> Reproduction:
    """Train a registered model again, from the commit, the params and the data of its passport.

    Nothing of the working tree is touched, and the new run is tracked in the worktree alone.

    Args:
        passport: the passport of the version.
        version: its number.
        registered: its files, checked against the registry.
        tolerance: the share of test images that may be called differently, where the weights need
            not be identical.
        device: to train on; None is the kind that trained the registered one.
        keep: a new folder that the new model is copied to.
        say: called with the progress, and with every difference before the training.

    Raises:
        NotReproducible: the commit is not in this repository, its diff does not apply, or the data
            are not those that it was trained on.
        StageFailed: a stage or the training failed.
    """
    if keep is not None:
        _check_keep(keep)
    commit, model = str(passport.provenance.code.commit), passport.run.model
    try:
        with worktree(commit, f"reproduce-{uuid4().hex[:8]}") as checkout:
            say(f"a worktree of its own at {commit}")
            _restore(checkout, passport, say)
            store = {"MLFLOW_TRACKING_URI": f"sqlite:///{checkout.root / 'mlflow.db'}"}
            # From the first epoch: what an interrupted one has left is no proof.
            fresh = {**store, "NO_RESUME": "1", "FLOW_RUN_ID": "", "FLOW_RUN_URL": ""}
            given = environment(checkout, fresh)
            differ = _find_differences(checkout, passport, given, say)
            _train(checkout, model, device or passport.run.device.partition(":")[0], given)
            workspace = Workspace(passport.name, checkout.root)
            made = workspace.trained(model)
            if keep is not None:
                copytree(made.path, keep)
            old = load_checked(registered.model, passport.run.model_sha256)
            new = load_checked(made.model, made.run.model_sha256)
            return Reproduction(
                name=passport.name,
                version=version,
                commit=commit,
                device=(passport.run.device, made.run.device),
                deterministic=passport.provenance.deterministic,
                differ=differ,
                found=compare(old, new, workspace.splits),
                tolerance=tolerance,
            )
    except UnknownRevision:
        raise NotReproducible(
            f"commit {commit}, which trained {passport.name}/{version}, is not in this repository; "
            "fetch it: git fetch --all --tags"
        ) from None


def _check_keep(folder: Path) -> None:
    """Refuse what the model cannot be copied to, before it is trained."""
    if folder.exists():
        raise NotReproducible(f"{folder} exists already; --keep takes a new folder")
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise NotReproducible(f"{folder} cannot be made in {there}; --keep takes another folder")


def _restore(checkout: Checkout, passport: Passport, say: Say) -> None:
    """Bring back what was not in the commit: the diff of a dirty tree, params.yaml, dvc.lock."""
    if diff := passport.provenance.code.diff:
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn"],
            cwd=checkout.root,
            input=diff.encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            reason = " ".join(done.stderr.decode(errors="replace").split())
            raise NotReproducible(
                f"the diff in the passport of {passport.name} does not apply to {checkout.commit}: "
                f"{reason}; train and register it anew: dvc repro --force"
            )
        say(f"the tree was not clean: its diff of {len(diff.splitlines())} lines is applied")
    (checkout.root / PARAMS_FILE).write_text(passport.provenance.params_yaml)
    (checkout.root / "dvc.lock").write_text(passport.dvc_lock)


def _find_differences(
    checkout: Checkout, passport: Passport, given: Mapping[str, str], say: Say
) -> tuple[Difference, ...]:
    """Get the data, and report every difference before the training."""

    def report(rows: tuple[Difference, ...]) -> tuple[Difference, ...]:
        for row in rows:
            say(f"differs: {row}")
        return rows

    reached = passport.training_code
    modules = _existing({name: checkout.root / name for name in reached})
    lockfiles = {f"{working_tree.LOCKFILES}/{p.name}": sha256(p) for p in LOCKFILES.glob("*.txt")}
    machine = provenance.environment(_gpu_of(passport))
    making = report(differences.of_making(passport, modules, lockfiles, machine))
    with Stages(checkout, given) as stages:
        for stage in DATA_STAGES:
            ran = stages.run(stage, say)
            say(f"{stage}: {'done anew' if ran else 'from the cache'}")
    workspace = Workspace(passport.name, checkout.root)
    planned = ModelPlan.load(workspace.model_plan(passport.run.model)).recipe
    recipe = report(differences.of_recipe(passport, planned))
    data = report(check_data(passport, workspace))
    if not making + recipe + data:
        say("nothing is known to differ")
    return making + recipe + data


def check_data(passport: Passport, workspace: Workspace) -> tuple[Difference, ...]:
    """Return what differs in the raw data although the arrays made of it are the same.

    The raw folder holds more than pixels: a Parquet file that names the library that wrote it.

    Raises:
        NotReproducible: the arrays are others than those that the model was trained and tested on.
    """
    splits = workspace.splits
    arrays = {name: md5 for name in passport.data.md5 if (md5 := splits.measured_md5(name))}
    raw = workspace.raw.md5
    found = differences.of_data(passport, raw, arrays)
    if any(row.name in passport.data.md5 for row in found):
        listed = "; ".join(f"{row.name}: expected {row.then}, found {row.now}" for row in found)
        raise NotReproducible(
            f"the data are not those that {passport.name} was trained on: {listed}; bring them "
            "back, say with dvc pull, or put the images of then into place"
        )
    return found


def _existing(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: dvc_md5(path) for name, path in paths.items() if path.is_file()}


def _gpu_of(passport: Passport) -> dict[str, Any]:
    """Return what is known of the GPU here, where one trained the model."""
    found = gpus() if passport.run.device.startswith("gpu") else []
    return describe(found[0], visible(len(found))[0]).hardware() if found else {}


def _train(checkout: Checkout, model: str, device: str, given: Mapping[str, str]) -> None:
    """Train by the command of that commit; not through DVC, which would return the old model."""
    params = checkout.root / PARAMS_FILE
    params.write_text(edit(params.read_text(), ["device"], device))
    done = subprocess.run(
        ["pipeline", "train", model],
        cwd=checkout.root,
        env=given,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        raise StageFailed(
            f"training {model} again failed; its reason is above",
            done.returncode == EXIT_CODE_RETRYABLE,
        )
