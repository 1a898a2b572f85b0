"""A registered model is made once more from its passport, and held against what is registered."""

import json
import shutil
from pathlib import Path

import pytest

from flows.differences import of_data, of_environment
from pipeline.passport import Code, Environment, Passport, passport_of
from tests.conftest import Run, runner


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
    return json.loads(done.stdout) if code in (0, 3) else {"error": done.stderr}


def challenger(clone: Path) -> str:
    registered = json.loads((clone / "reports/digits/registered.json").read_text())
    return f"digits/{registered['version']}"


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
    assert said["differ"] == []
    assert (kept / "model.keras").exists()
    assert run("git", "status", "--porcelain").stdout == before
    assert len(run("git", "worktree", "list").stdout.splitlines()) == 1
    assert list((clone / ".runs").glob("reproduce-*")) == []
    versions = json.loads(run("pipeline", "history", "digits", "--json").stdout)["entries"]
    assert max(entry["version"] for entry in versions) == 2, "nothing was registered"


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
    assert "cannot be checked out; fetch it: git fetch --all" in error


@pytest.fixture(scope="module")
def passport(reproduced: Path) -> Passport:
    stored = reproduced / "mlartifacts" / "digits" / "models"
    return passport_of(next(stored.glob("*/artifacts/artifacts/passport.json")).parent)


def same(passport: Passport) -> tuple[Code, Environment]:
    return passport.provenance.code, passport.provenance.environment


def test_nothing_differs_from_itself(passport):
    assert of_environment(passport, *same(passport)) == ()
    assert of_data(passport, passport.data.raw_md5, passport.data.md5) == ()


def test_every_difference_is_named_and_what_trains_comes_first(passport):
    code, then = same(passport)
    packages = dict(then.packages) | {"keras": "0.1", "anyio": "0.2", "new-one": "1"}
    del packages["tensorflow"]
    now = then.model_copy(
        update={
            "python": "3.0.0",
            "packages": packages,
            "platform": "another",
            "hardware": {**then.hardware, "cpu": "abacus", "gpu": "none at all"},
        }
    )
    files = {**code.lockfiles, "requirements/run.txt": "0" * 64}
    found = of_environment(passport, code.model_copy(update={"lockfiles": files}), now)
    assert [(row.part, row.name) for row in found] == [
        ("lock file", "requirements/run.txt"),
        ("Python", "version"),
        ("package", "tensorflow"),
        ("package", "keras"),
        ("package", "anyio"),
        ("package", "new-one"),
        ("platform", ""),
        ("hardware", "cpu"),
        ("hardware", "gpu"),
    ]
    tensorflow = found[2]
    assert (tensorflow.then, tensorflow.now) == (then.packages["tensorflow"], "none")


def test_data_are_compared_file_by_file(passport):
    md5 = {**passport.data.md5, "x_train.npy": "0" * 32}
    found = of_data(passport, "1" * 32, md5)
    assert [row.name for row in found] == ["x_train.npy", "raw"]
    assert str(found[0]) == f"data x_train.npy: {passport.data.md5['x_train.npy']} → {'0' * 32}"
