"""lineage: what made a version, from any folder, and what it says of one that is not right."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import RunInfo
from pipeline.cli import app
from pipeline.errors import ArtifactError, ParamsError, TrackingError
from pipeline.registry import model_files, versions
from pipeline.registry.passport import Passport
from pipeline.reports.lineage import tree
from pipeline.tracking.store import connect
from tests.registered import CODE, OTHERS, SECRET, registered


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return registered(tmp_path_factory.getbasetemp())


@pytest.fixture
def elsewhere(made, tmp_path, monkeypatch):
    """Work in an empty folder, with a copy of the registry that a test may change."""
    store = tmp_path / "store" / "mlflow.db"
    store.parent.mkdir()
    shutil.copy(made / "mlflow.db", store)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    return folder


def lineage(*arguments):
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["lineage", *arguments])
    if result.exception is not None:
        raise result.exception
    return result


def test_the_tree_names_everything_that_made_the_model(made, elsewhere):
    printed = lineage("tiny@production").stdout
    run = RunInfo.load(made / "dense" / "run.json")
    data = Splits(made / "data").info
    passport = model_files.read_passport(versions.find("tiny/1"))
    code = passport.provenance.code
    for fact in (
        "tiny/1  challenger, production",
        run.run_id,
        run.model_sha256,
        run.data_md5,
        data.raw_md5,
        *data.md5.values(),
        "sha256 " + "0" * 64,
        "train  64 images",
        "checks: 1",
        str(run.git_commit),
        f"dirty, a diff of {len(code.diff.encode()):,} bytes",
        code.lockfiles["requirements/run.txt"],
        '{"layers": [{"flatten": true}, {"dense": 16}]',
        "params.yaml  30 bytes",
        "dvc.lock  25 bytes",
        f"keras {passport.provenance.environment.packages['keras']}",
        "none: not run by a flow",
        f"accuracy  {passport.metrics['accuracy']:.2%} ("
        f"{100 * passport.metrics['accuracy_low']:.1f} to ",
    ):
        assert fact in printed
    assert "match" not in printed
    assert "the stored bytes match" in lineage("tiny/1", "--check").stdout
    assert list(elsewhere.iterdir()) == []


def test_json_is_all_that_stdout_gets_where_there_is_no_repository(made, elsewhere):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pipeline"), "lineage", "tiny@challenger", "--json"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["name"], printed["version"]) == ("tiny", 1)
    assert printed["aliases"] == ["challenger", "production"]
    assert printed["model_checked"] is False
    stored = model_files.fetch(versions.find("tiny/1"))
    assert Passport.model_validate(printed["passport"]) == Passport.load(stored / "passport.json")
    assert list(elsewhere.iterdir()) == []


def test_the_diff_makes_of_the_commit_what_trained(made, elsewhere):
    commit = model_files.read_passport(versions.find("tiny/1")).provenance.code.commit
    subprocess.run(["git", "clone", "-q", str(made), "clone"], check=True)
    subprocess.run(["git", "checkout", "-q", str(commit)], cwd="clone", check=True)
    diff = lineage("tiny/1", "--show", "diff").stdout_bytes
    subprocess.run(["git", "apply"], cwd="clone", input=diff, check=True)
    for name, content in CODE.items():
        assert Path("clone", name).read_bytes() == content
    for part, file in (("params", "params.yaml"), ("lock", "dvc.lock")):
        assert lineage("tiny/1", "--show", part).stdout_bytes == (made / file).read_bytes()


def test_what_lies_beside_the_code_is_named_and_stays_where_it_is(made, elsewhere):
    code = model_files.read_passport(versions.find("tiny/1")).provenance.code
    for name, content in OTHERS.items():
        assert code.others[name] == hashlib.md5(content).hexdigest()
        assert f"{name}  md5 {code.others[name]}" in lineage("tiny/1").stdout
    stored = [path for path in made.rglob("*") if path.is_file() and path.name not in OTHERS]
    assert {"mlflow.db", "passport.json", "provenance.json", "MLmodel"} <= {p.name for p in stored}
    assert [path for path in stored if SECRET.encode() in path.read_bytes()] == []


def test_a_passport_of_before_others_were_listed_is_read(made, elsewhere):
    stored = model_files.fetch(versions.find("tiny/1"))
    content = json.loads((stored / "passport.json").read_text())
    del content["provenance"]["code"]["others"]
    passport = Passport.model_validate(content)
    assert passport.provenance.code.others == {}
    assert passport.missing() == ()


def test_what_a_passport_says_steers_no_terminal(elsewhere):
    found = versions.find("tiny/1")
    passport = model_files.read_passport(found)
    source = {"file": "[red]a[/]", "from": "b\x1b[2Jc\nd"}
    data = passport.data.model_copy(update={"origin": (source,)})
    console = Console(width=250, file=io.StringIO(), force_terminal=False)
    console.print(tree(found, passport.model_copy(update={"data": data}), checked=False))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]a[/]  b\ufffd[2Jc d, sha256 not known" in printed


@pytest.mark.parametrize("spec", ["tiny@nobody", "tiny/7", "tinny@production"])
def test_what_is_not_there_is_answered_with_what_is(elsewhere, spec):
    with pytest.raises(TrackingError, match=r"there are: .*tiny"):
        lineage(spec)


def test_a_name_alone_is_answered_with_the_forms_of_a_version(elsewhere):
    with pytest.raises(ParamsError, match=r"allowed: <name>@<alias>, <name>/<version>"):
        lineage("tiny")


def test_one_answer_at_a_time(elsewhere):
    with pytest.raises(ParamsError, match="give one of them"):
        lineage("tiny/1", "--show", "diff", "--json")


def test_a_version_without_a_passport(elsewhere):
    connect().delete_model_version_tag("tiny", "1", "passport_sha256")
    with pytest.raises(ArtifactError, match=r"tiny/1 has no passport"):
        lineage("tiny/1")


@pytest.mark.parametrize(
    ("file", "arguments"), [("passport.json", []), ("model.keras", ["--check"])]
)
def test_a_file_that_is_not_what_was_registered(elsewhere, file, arguments):
    tag = f"{Path(file).stem}_sha256"
    connect().set_model_version_tag("tiny", "1", tag, "f" * 64)
    with pytest.raises(ArtifactError, match=rf"{file} of tiny/1 is not what was registered"):
        lineage("tiny/1", *arguments)
