"""A registered model is made once more from its passport, and held against what is registered."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.reproduce import NotReproducible, check_data
from flows.reproduction.differences import Difference, of_data, of_making, of_recipe
from flows.reproduction.verdict import (
    Agreement,
    Reproduction,
    WeightDifference,
    compare,
    weight_differences,
)
from pipeline.artifacts.files import dvc_md5, write_array
from pipeline.evaluation.scoring import Scorer
from pipeline.models.build import build
from pipeline.registry.passport import Passport, passport_of
from pipeline.workspace import Workspace
from tests.conftest import Run, runner
from tests.tiny import CLASS_NAMES, IMAGE_SHAPE, tiny_plan, tiny_splits


@pytest.fixture(scope="module")
def clone(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone in which a dirty tree has registered a model that can be made again."""
    folder = Path(shutil.copytree(reproduced, tmp_path_factory.mktemp("again") / "clone"))
    with (folder / "pipeline" / "train.py").open("a") as code:
        code.write("# not committed\n")
    changes = {
        "deterministic: false": "deterministic: true",
        "models: [dense, cnn]": "models: [dense]",
        "epochs: 60": "epochs: 3",
    }
    params = folder / "params.yaml"
    text = params.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    params.write_text(text)
    runner(folder)("dvc", "repro")
    return folder


def reproduce(run: Run, spec: str, *options: str, code: int = 0) -> dict:  # type: ignore[type-arg]
    done = run("pipeline", "reproduce", spec, "--json", *options, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    if code not in (0, 3):
        return {"error": done.stderr.splitlines()[-1]}
    return {**json.loads(done.stdout), "told": done.stderr}


def challenger(clone: Path) -> str:
    registered = json.loads((clone / "reports/digits/registered.json").read_text())
    return f"digits/{registered['version']}"


def check_nothing_is_left(clone: Path) -> None:
    assert len(runner(clone)("git", "worktree", "list").stdout.splitlines()) == 1
    assert list((clone / ".runs").glob("reproduce-*")) == []


@pytest.mark.long
def test_a_deterministic_model_is_the_same_bit_for_bit(clone, tmp_path):
    run = runner(clone)
    before = run("git", "status", "--porcelain").stdout
    stored = (clone / "params.yaml").read_bytes()
    # Neither what is in the working tree now nor its cache may matter.
    (clone / "params.yaml").write_bytes(stored.replace(b"dataset: digits", b"dataset: mnist"))
    shutil.move(clone / ".dvc" / "cache", tmp_path / "cache")
    kept = tmp_path / "kept"
    said = reproduce(run, challenger(clone), f"--keep={kept}")
    shutil.rmtree(clone / ".dvc" / "cache")
    shutil.move(tmp_path / "cache", clone / ".dvc" / "cache")
    (clone / "params.yaml").write_bytes(stored)
    assert said["reproduced"] is said["identical"] is said["strict"] is True
    assert said["probabilities_apart"] == 0
    assert said["weights"] == said["differ"] == said["causes"] == []
    assert said["arrays"] == 6
    assert "the tree was not clean: its diff of" in said["told"]
    assert "ingest: done anew" in said["told"]
    assert (kept / "model.keras").exists()
    assert run("git", "status", "--porcelain").stdout == before
    check_nothing_is_left(clone)
    versions = json.loads(run("pipeline", "history", "digits", "--json").stdout)["entries"]
    assert max(entry["version"] for entry in versions) == 2, "nothing was registered"


@pytest.mark.long
def test_a_model_of_chance_is_near_or_is_not(clone):
    # digits/1 was trained without `deterministic`, from a tree that was clean.
    run = runner(clone)
    said = reproduce(run, "digits/1", "--tolerance=0.3")
    assert (said["reproduced"], said["strict"]) == (True, False)
    assert "its diff" not in said["told"]
    assert said["identical"] or said["causes"][0].startswith("it was not trained with determ")


@pytest.mark.long
def test_an_interrupt_leaves_nothing(clone):
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    command = [str(Path(sys.executable).parent / "pipeline"), "reproduce", challenger(clone)]
    heeding = (  # the interrupt, which a background job ignores
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeding, *command],
        cwd=clone,
        env={k: v for k, v in environment.items() if not k.startswith(("MLFLOW_", "DVC_"))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("preprocess: "):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    check_nothing_is_left(clone)


@pytest.mark.long
def test_what_cannot_be_had_is_said(clone, tmp_path):
    copy = Path(shutil.copytree(clone, tmp_path / "copy", symlinks=True))
    run, spec = runner(copy), challenger(copy)
    assert "there are: digits" in reproduce(run, "digit/1", code=1)["error"]
    assert "exists already" in reproduce(run, spec, f"--keep={tmp_path}", code=1)["error"]
    # The commit is in no clone any more.
    shutil.rmtree(copy / ".git")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "another history"]):
        run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *command)
    error = reproduce(run, spec, code=1)["error"]
    commit = runner(clone)("git", "rev-parse", "HEAD").stdout.strip()
    assert f"commit {commit}, which trained {spec}, is not in this repository" in error


@pytest.mark.long
def test_a_model_that_was_tampered_with_is_refused(clone):
    # The store of a copied clone still names the folder that it was made in.
    uri = f"sqlite:///{clone}/mlflow.db"
    store = MlflowClient(uri, uri)
    location = store.get_experiment_by_name("digits").artifact_location
    stored = [*Path(location.removeprefix("file://")).rglob("model.keras")]
    contents = [file.read_bytes() for file in stored]
    for file in stored:
        file.write_bytes(file.read_bytes() + b"x")
    error = reproduce(runner(clone), challenger(clone), code=1)["error"]
    for file, content in zip(stored, contents, strict=True):
        file.write_bytes(content)
    assert "is not what was registered: sha256" in error


# The parts that tell, without git and DVC.


@pytest.fixture(scope="module")
def passport(reproduced: Path) -> Passport:
    stored = reproduced / "mlartifacts" / "digits" / "models"
    return passport_of(next(stored.glob("*/artifacts/artifacts/passport.json")).parent)


def test_nothing_differs_from_itself(passport):
    code, environment = passport.provenance.code, passport.provenance.environment
    modules = passport.training_code
    assert "pipeline/training/engine.py" in modules
    assert of_making(passport, modules, code.lockfiles, environment) == ()
    assert of_recipe(passport, passport.provenance.recipe) == ()
    assert of_data(passport, passport.data.raw_md5, passport.data.md5) == ()


def test_every_difference_is_named_and_the_likeliest_comes_first(passport):
    code, then = passport.provenance.code, passport.provenance.environment
    packages = dict(then.packages) | {"keras": "0.1", "anyio": "0.2", "a-new-one": "1"}
    del packages["tensorflow"]
    hardware = {**then.hardware, "cpu": "abacus", "memory_gib": "0.1", "gpu": "one"}
    now = then.model_copy(
        update={
            "python": "3.0.0",
            "packages": packages,
            "platform": "another",
            "hardware": hardware,
        }
    )
    modules = passport.training_code
    modules = {**modules, "pipeline/training/engine.py": "0" * 32}
    files = {**code.lockfiles, "requirements/run.txt": "0" * 64}
    found = of_making(passport, modules, files, now)
    assert [(row.part, row.name, row.of_machine, row.likely) for row in found] == [
        ("code", "pipeline/training/engine.py", False, True),
        ("Python", "", True, True),
        ("package", "tensorflow", True, True),
        ("package", "keras", True, True),
        ("package", "a-new-one", True, True),
        ("package", "anyio", True, True),
        ("hardware", "cpu", True, True),
        ("hardware", "gpu", True, True),
        ("hardware", "memory_gib", False, False),
        ("platform", "", False, False),
        ("lock file", "requirements/run.txt", False, False),
    ]
    assert str(found[1]) == f"Python: {then.python} → 3.0.0"
    assert str(found[2]) == f"package tensorflow: {then.packages['tensorflow']} → none"
    assert str(found[4]) == "package a-new-one: none → 1"


def test_another_seed_is_another_recipe(passport):
    recipe = passport.provenance.recipe.model_copy(update={"seed": 7})
    assert list(map(str, of_recipe(passport, recipe))) == ["recipe seed: 0 → 7"]


def test_other_data_stop_it_file_by_file(passport, tmp_path):
    workspace = Workspace("digits", tmp_path)
    tiny_splits(workspace.splits.path)
    workspace.raw.path.mkdir(parents=True)
    md5 = {path.name: dvc_md5(path) for path in workspace.splits.path.glob("*.npy")}
    data = passport.data.model_copy(update={"md5": md5, "raw_md5": dvc_md5(workspace.raw.path)})
    known = passport.model_copy(update={"data": data})
    assert check_data(known, workspace) == ()
    (workspace.raw.path / "files.parquet").write_bytes(b"written by another library")
    assert [row.name for row in check_data(known, workspace)] == ["raw"]
    (workspace.splits.path / "y_val.npy").unlink()
    tiny_splits(tmp_path / "other", seed=5)
    changed = Path(shutil.copy(tmp_path / "other" / "x_test.npy", workspace.splits.path))
    with pytest.raises(NotReproducible) as caught:
        check_data(known, workspace)
    expected = f"x_test.npy: expected {md5['x_test.npy']}, found {dvc_md5(changed)}; y_val.npy: "
    assert f"{expected}expected {md5['y_val.npy']}, found none; raw: " in str(caught.value)


def model_of(seed: int):
    return build(tiny_plan().recipe, IMAGE_SHAPE, len(CLASS_NAMES), seed)


def test_weights_and_answers_are_compared(tmp_path):
    splits, old, twin, other = tiny_splits(tmp_path), model_of(0), model_of(0), model_of(1)
    found = compare(old, twin, splits)
    assert (found.identical, found.max_weight_difference, found.arrays) == (True, 0.0, 4)
    assert (found.max_probability_difference, found.labels_agree) == (0.0, 1.0)
    found = compare(old, other, splits)
    assert [row.name.rpartition("/")[2] for row in found.weights] == ["kernel", "kernel"]
    assert 0 < (found.max_weight_difference or 0) < 2
    assert 0 < found.max_probability_difference <= 1
    assert found.labels_agree < 1
    assert (found.images, found.left_out) == (32, 0)


def test_what_was_trained_on_is_left_out_of_the_answers(tmp_path):
    splits, old, other = tiny_splits(tmp_path), model_of(0), model_of(1)
    train, test = (np.array(splits.contents(split)) for split in ("train", "test"))
    write_array(tmp_path / "content_train.npy", np.concatenate([test[:5], train[5:]]))
    found = compare(old, other, splits)
    assert (found.images, found.left_out) == (27, 5)
    answers = [Scorer(model).probabilities(splits.x("test")[5:]) for model in (old, other)]
    assert found.accuracy[1] == (answers[1].argmax(axis=1) == splits.y("test")[5:]).mean()
    assert found.max_probability_difference == np.abs(answers[0] - answers[1]).max()
    (tmp_path / "content_train.npy").unlink()  # as the code of an earlier commit makes it
    found = compare(old, other, splits)
    assert (found.images, found.left_out) == (32, None)


def test_one_bit_is_a_difference_and_so_is_another_shape():
    zeros = np.zeros(3, np.float32)
    assert weight_differences([("a", zeros)], [("b", zeros.copy())]) == ()
    assert weight_differences([("a", zeros)], [("a", -zeros)]) == (WeightDifference("a", 0.0),)
    assert weight_differences([("a", zeros)], [("a", zeros + 2)]) == (WeightDifference("a", 2.0),)
    for other in (np.zeros(4, np.float32), np.full(3, np.nan, np.float32)):
        assert weight_differences([("a", zeros)], [("a", other)]) == (WeightDifference("a", None),)
    assert weight_differences([("a", zeros)], []) == (WeightDifference("a", None),)


def made(*, agree=0.99, deterministic=True, device="cpu: x", differ=(), identical=False):
    weights = () if identical else (WeightDifference("kernel", 0.1),)
    return Reproduction(
        name="tiny",
        version=1,
        commit="abc",
        device=("cpu: x", device),
        deterministic=deterministic,
        differ=differ,
        found=Agreement(4, weights, 0.1, agree, (0.9, 0.9)),
        tolerance=0.02,
    )


KERAS = Difference("package", "keras", "3", "4")
MEMORY = Difference("hardware", "memory_gib", "8", "16")


@pytest.mark.parametrize(
    ("model", "strict", "same"),
    [
        (made(identical=True), True, True),
        (made(), True, False),
        (made(differ=(MEMORY,)), True, False),
        (made(differ=(KERAS,)), False, True),
        (made(deterministic=False), False, True),
        (made(device="gpu: y"), False, True),
        (made(deterministic=False, agree=0.97), False, False),
        (made(deterministic=False, agree=0.97, identical=True), False, True),
    ],
)
def test_the_verdict(model, strict, same):
    assert (model.strict, model.same) == (strict, same)


def test_the_causes_are_those_that_are_likely_and_none_is_invented():
    assert made(differ=(MEMORY,)).causes == ()
    assert made(differ=(KERAS, MEMORY), deterministic=False).causes == (
        "it was not trained with deterministic: true",
        "package keras: 3 → 4",
    )
    assert made(differ=(KERAS,) * 9).causes[-1] == "4 more of these"
    said = made(differ=(KERAS,), device="gpu: y").as_json()
    assert said["causes"][0].startswith("a GPU trained it")
    assert (said["reproduced"], said["identical"], said["weights_apart"]) == (True, False, 0.1)
    assert json.loads(json.dumps(said))["differ"][0]["name"] == "keras"
