"""The real graph, run by DVC on digits in a fresh clone."""

import json
import re
import shutil
import subprocess
import time

import pytest
from ruamel.yaml import YAML

from tests.conftest import runner
from tests.s3 import LOGIN, serve_s3


def executed(output):
    return re.findall(r"Running stage '([^']+)'", output)


def status(run):
    changed = json.loads(run("dvc", "status", "--json").stdout)
    return {name for name in changed if "changed" in json.dumps(changed[name])}


def test_two_models_are_compared_and_the_better_one_is_registered(reproduced):
    reports = reproduced / "reports" / "digits"
    metrics = {
        model: json.loads((reports / "evaluation" / model / "metrics.json").read_text())
        for model in ("dense", "cnn")
    }
    registered = json.loads((reports / "registered.json").read_text())
    # Of equals the smaller one.
    rank = {name: (row["val_accuracy"], -row["parameters"]) for name, row in metrics.items()}
    best = max(rank, key=lambda name: rank[name])
    assert registered["model"] == best
    assert registered["version"] == 1
    assert set(registered["aliases"]) == {"challenger", "production"}
    assert metrics["dense"]["accuracy"] > 0.95
    assert metrics["cnn"]["accuracy"] > 0.97


def test_the_report_names_models_versions_and_next_steps(reproduced):
    table = runner(reproduced)("pipeline", "report").stdout
    for word in ("dense", "cnn", "production", "challenger", "dvc exp run", "make ui"):
        assert word in table


def test_nothing_changed_runs_nothing(reproduced):
    done = runner(reproduced)("dvc", "repro")
    assert executed(done.stdout) == []
    assert "up to date" in done.stdout


def test_a_stage_writes_nothing_but_what_the_graph_names(reproduced):
    lock = YAML(typ="safe").load(reproduced / "dvc.lock")["stages"]
    outs = {reproduced / out["path"] for stage in lock.values() for out in stage.get("outs", [])}
    for folder in ("data/raw", "data/processed", "models", "plan", "reports"):
        for file in (reproduced / folder).rglob("*"):
            if file.is_file() and file.name != ".gitignore":
                named = outs & {file, *file.parents}
                assert named, f"{file.relative_to(reproduced)} is in no stage's outs in dvc.yaml"


def test_the_tree_stays_clean(reproduced):
    assert runner(reproduced)("git", "status", "--porcelain").stdout == ""


def test_another_recipe_retrains_one_model_and_the_old_one_comes_back(workspace_copy):
    run = runner(workspace_copy)
    done = run("dvc", "exp", "run", "-S", "recipes.digits.dense.epochs=2")
    assert executed(done.stdout) == ["resolve", "train@dense", "evaluate@dense", "register"]
    assert "recipes.digits.dense.epochs" in run("dvc", "params", "diff").stdout
    assert "val_accuracy" in run("dvc", "metrics", "diff").stdout
    shown = run("dvc", "exp", "show", "--csv").stdout.splitlines()
    assert len(shown) == 4  # the header, the workspace, the commit and the experiment
    assert "evaluation/dense/metrics.json:accuracy" in shown[0]
    run("git", "checkout", "-q", "params.yaml")
    done = run("dvc", "repro")
    assert executed(done.stdout) == []
    assert "is cached" in done.stdout


TRAIN, EVALUATE = {"train@dense", "train@cnn"}, {"evaluate@dense", "evaluate@cnn"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("evaluation/metrics.py", {*EVALUATE, "register"}),
        ("evaluation/figures.py", {*EVALUATE, "register"}),
        ("production/rules.py", {"resolve", "register"}),
        ("reports/wording.py", {"register"}),
        ("reports/templates/card.md.jinja", {"register"}),
        ("validation/checks.py", {"resolve", "validate"}),
        ("training/engine.py", TRAIN),
        ("models/build.py", {"resolve", *TRAIN, *EVALUATE, "register"}),
        ("cli/stages.py", set()),
    ],
)
def test_a_changed_file_reruns_the_stages_whose_packages_it_is_in(workspace_copy, file, stages):
    changed = workspace_copy / "pipeline" / file
    changed.write_text(changed.read_text() + "\n")
    assert status(runner(workspace_copy)) == stages


@pytest.mark.parametrize(
    "name",
    [
        *("__pycache__/engine.cpython-312.pyc", "engine.pyc", ".engine.py.swp", "engine.py~"),
        *("#engine.py#", ".#engine.py", ".ipynb_checkpoints/engine.py", ".DS_Store"),
    ],
)
def test_what_python_and_editors_leave_behind_changes_nothing(workspace_copy, name):
    left = workspace_copy / "pipeline" / "training" / name
    left.parent.mkdir(exist_ok=True)
    left.write_text("left behind")
    assert status(runner(workspace_copy)) == set()


def test_plots_show(workspace_copy):
    run = runner(workspace_copy)
    run("dvc", "plots", "show")
    page = (workspace_copy / "dvc_plots" / "index.html").read_text()
    for word in ("val_accuracy", "confusion", "misclassified"):
        assert word in page


def test_a_typo_stops_the_graph_and_loses_nothing(workspace_copy):
    run = runner(workspace_copy)
    registered = (workspace_copy / "reports/digits/registered.json").read_bytes()
    for old, new, words in [
        ("epochs:", "epoch:", ["recipes", "unknown key", "did you mean epochs?"]),
        ("models: [dense, cnn]", "models: [dense, cnm]", ["unknown model 'cnm'", "mean cnn?"]),
        ("dataset: digits", "dataset: digit", ["unknown dataset 'digit'", "mean digits?"]),
    ]:
        original = (workspace_copy / "params.yaml").read_text()
        (workspace_copy / "params.yaml").write_text(original.replace(old, new, 1))
        done = run("dvc", "repro", check=False)
        (workspace_copy / "params.yaml").write_text(original)
        assert done.returncode != 0
        reason = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
        for word in words:
            assert word in reason
    assert (workspace_copy / "reports/digits/registered.json").read_bytes() == registered
    assert executed(run("dvc", "repro").stdout) == []


@pytest.mark.parametrize("target", [(), ("register",)])
def test_an_experiment_with_a_target_takes_nothing_out_of_the_workspace(workspace_copy, target):
    run = runner(workspace_copy)
    made = [workspace_copy / name for name in ("models/digits", "reports/digits", "plan/digits")]
    for folder in made:
        shutil.rmtree(folder)
    run("dvc", "checkout")  # DVC notes where it puts a file; in a copy it knows of none
    before = files(*made)
    done = run("dvc", "exp", "run", *target, "-S", "dataset=nope", check=False)
    assert done.returncode != 0
    reason = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "unknown dataset 'nope'; allowed: digits, " in reason
    assert "stays in params.yaml: put it right there" in reason
    assert (files(*made) == before) == bool(target)
    assert not (workspace_copy / "models/nope").exists()
    assert not (workspace_copy / "reports/nope").exists()
    text = (workspace_copy / "params.yaml").read_text()
    (workspace_copy / "params.yaml").write_text(text.replace("dataset: nope", "dataset: digits"))
    assert executed(run("dvc", "repro").stdout) == []
    assert files(*made) == before


def files(*folders):
    return {path: path.read_bytes() for top in folders for path in top.rglob("*") if path.is_file()}


def pushed_and_pulled(folder, tmp_path, **environment):
    """Push to the default remote; a clone with an empty cache pulls and has nothing to do."""
    run = runner(folder, **environment)
    run("git", "commit", "-qam", "a remote")
    run("dvc", "push")
    run("git", "clone", "-q", str(folder), str(tmp_path / "second"))
    second = runner(tmp_path / "second", **environment)
    second("dvc", "pull")
    for name in ("models/digits/cnn/model.keras", "data/processed/digits/x_train.npy"):
        assert (tmp_path / "second" / name).read_bytes() == (folder / name).read_bytes()
    assert executed(second("dvc", "repro").stdout) == []
    return second


@pytest.mark.long
def test_push_and_pull_with_a_folder(workspace_copy, tmp_path):
    run = runner(workspace_copy)
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    second = pushed_and_pulled(workspace_copy, tmp_path)
    # The clone has an MLflow store of its own, with nothing in it: the message says what helps.
    done = second("pipeline", "promote", "digits", check=False)
    assert "no model 'digits' is registered" in done.stderr
    second(*done.stderr.strip().rpartition(": ")[2].split())
    assert executed(second("dvc", "repro").stdout) == []
    registered = json.loads((tmp_path / "second/reports/digits/registered.json").read_text())
    there = json.loads(second("pipeline", "lineage", "digits@production", "--json").stdout)
    here = json.loads(run("pipeline", "lineage", "digits@production", "--json").stdout)
    for part in ("run", "provenance", "data", "validation", "metrics"):
        assert there["passport"][part] == here["passport"][part]
    assert registered["run_id"] == there["run_id"] != there["passport"]["run"]["run_id"]
    tree = second("pipeline", "lineage", "digits@production").stdout
    assert f"recorded again as  {registered['run_id']}" in tree
    entries = json.loads(second("pipeline", "history", "digits", "--json").stdout)["entries"]
    assert [(row["action"], row["version"]) for row in entries] == [("promoted", 1)]
    assert "is in production already" in second("pipeline", "promote", "digits").stdout


def test_push_and_pull_with_s3(workspace_copy, tmp_path):
    run = runner(workspace_copy)
    run("dvc", "remote", "add", "--default", "store", "s3://images/cache")
    with serve_s3(tmp_path, read_only=False) as s3:
        run("dvc", "remote", "modify", "store", "endpointurl", s3.address)
        pushed_and_pulled(workspace_copy, tmp_path, **LOGIN)


def test_a_second_make_run_at_the_same_time_is_refused(workspace_copy):
    venv = workspace_copy / ".venv"
    venv.mkdir()
    (venv / "run.stamp").touch()
    with subprocess.Popen(["flock", venv / "run.lock", "sleep", "60"]) as first:
        time.sleep(0.5)
        done = runner(workspace_copy)("make", "run", check=False)
        first.terminate()
    assert done.returncode != 0
    assert "error: another 'make run' is at work in this folder" in done.stderr
