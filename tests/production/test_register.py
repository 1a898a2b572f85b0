"""The better of two models is registered, once, with all that made it."""

import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.artifacts.files import sha256, write_array
from pipeline.errors import ArtifactError, TrackingError
from pipeline.production.register import best
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger_run import ledger_of
from pipeline.tracking.runs import existing_run, find_run
from pipeline.tracking.store import connect
from tests.conftest import ROOT
from tests.evaluated import HALF, VALIDATION, another_store, copy, made
from tests.tiny import register, tiny_splits

__all__ = ["copy", "made"]


def trained(model, parameters, val_accuracy):
    return SimpleNamespace(model=model, parameters=parameters, val_accuracy=val_accuracy)


def test_validation_alone_chooses():
    assert best([trained("a", 1, 0.90), trained("b", 9, 0.91)]).model == "b"


def test_between_equals_the_smaller_then_the_first_by_name():
    assert best([trained("a", 200, 0.9), trained("b", 100, 0.9)]).model == "b"
    assert best([trained("b", 100, 0.9), trained("a", 100, 0.9)]).model == "a"


def test_the_better_one_on_validation_is_the_first_in_production(made):
    assert made.version.model == "dense"
    assert (made.version.name, made.version.version) == ("tiny", 1)
    assert set(made.version.aliases) == {"challenger", "production"}
    tags = connect().get_model_version("tiny", "1").tags
    run = made.models["dense"][0].run
    assert tags["dataset_md5"] == run.data_md5
    assert tags["run_id"] == run.run_id
    assert tags["model_sha256"] == run.model_sha256
    assert tags["portable_sha256"] == sha256(made.models["dense"][0].litert)
    assert "left $" in connect().get_model_version("tiny", "1").description.replace("&#36;", "$")
    cards = connect().list_artifacts(run.run_id, "card")
    assert {file.path for file in cards} == {"card/card.html", "card/card.md"}


def test_registering_loads_no_tensorflow(copy):
    connect().delete_registered_model("tiny")
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['tensorflow', 'keras'])  # importing them fails\n"
        "from pathlib import Path\n"
        "from pipeline.artifacts.datasets import Splits\n"
        "from pipeline.artifacts.models import Evaluation, TrainedModel\n"
        "from pipeline.production.rules import Thresholds\n"
        "from tests.tiny import register, tiny_validation\n"
        "row = TrainedModel(Path('dense')), Evaluation(Path('evaluation/dense'))\n"
        "rules = Thresholds(floors={'accuracy': 0.5})\n"
        "print(register({'dense': row}, Splits(Path('data')), tiny_validation(), rules,"
        " Path('new.json')).aliases)\n"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "production" in done.stdout


def test_registering_again_registers_nothing_twice(made):
    again = register(made.models, made.splits, VALIDATION, Thresholds(), made.folder / "again.json")
    assert again == made.version
    assert len(connect().search_model_versions("name = 'tiny'")) == 1
    run = connect().get_run(made.version.run_id)
    assert len(run.outputs.model_outputs) == 1
    logged = connect().get_logged_model(run.outputs.model_outputs[0].model_id)
    assert logged.experiment_id == run.info.experiment_id
    assert not (made.folder / "mlruns").exists()


def test_what_the_store_lacks_is_recorded_and_registered_again(copy, made, capsys, monkeypatch):
    client = connect()
    before = {}
    for name, (trained, _) in copy.models.items():
        before[name] = client.get_run(trained.run.run_id)
    store = another_store(copy, monkeypatch)
    version = register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "new.json")
    assert set(version.aliases) == {"challenger", "production"}
    said = capsys.readouterr().err
    for name, old in before.items():
        new = existing_run(old.info.run_id, "")
        assert f"run {old.info.run_id}, which trained {name}, is not in " in said
        assert f"recorded there again as run {new.run_id}" in said
        run = store.get_run(new.run_id)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == name
        # Not in the files: where the best epoch was, what this machine did meanwhile.
        lost = {k for k in old.data.metrics if k.startswith("system/")} | {"kept_epoch"}
        assert run.data.metrics == {k: v for k, v in old.data.metrics.items() if k not in lost}
        assert run.data.params == {k: v for k, v in old.data.params.items() if k != "trained_in"}
        told = {k: v for k, v in old.data.tags.items() if not k.startswith("mlflow.")}
        assert {k: v for k, v in run.data.tags.items() if k in told} == told
        assert run.data.tags["original_run_id"] == old.info.run_id
        steps = [
            store.get_metric_history(new.run_id, "val_loss"),
            client.get_metric_history(old.info.run_id, "val_loss"),
        ]
        assert len({tuple((row.step, row.value) for row in rows) for rows in steps}) == 1
        listed = {file.path for file in store.list_artifacts(new.run_id)}
        assert {"evaluation", "history.csv", "provenance.json"} <= listed
    found = versions.find("tiny@production")
    assert version.run_id == found.run_id == existing_run(before["dense"].info.run_id, "").run_id
    assert {"card/card.html", "card/card.md"} == {
        file.path for file in store.list_artifacts(found.run_id, "card")
    }
    passport = model_files.read_passport(found)
    assert passport.run == made.models["dense"][0].run, "that is what was trained, and where"
    assert (entry := ledger_of("tiny").entries()[0]).action == "promoted"
    assert entry.version == version.version
    # Once more, and nothing is recorded or registered twice.
    assert register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "x.json") == version
    assert capsys.readouterr().err == ""
    assert len(store.search_model_versions("name = 'tiny'")) == 1


def test_what_is_not_what_was_trained_is_not_recorded(copy, tmp_path, monkeypatch):
    store = another_store(copy, monkeypatch)
    other = tiny_splits(tmp_path / "other", seed=5)
    with pytest.raises(ArtifactError, match=r"trained on other data than .*: dvc checkout"):
        register(copy.models, other, VALIDATION, HALF, copy.folder / "new.json")
    (copy.folder / "dense" / "history.csv").write_text("epoch,loss\n")
    (copy.folder / "dense" / "provenance.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"provenance.json"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "new.json")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is None or store.search_runs([experiment.experiment_id]) == []


def test_a_store_that_fails_is_not_one_that_lacks_a_run(copy, monkeypatch):
    another_store(copy, monkeypatch)
    with sqlite3.connect(copy.folder / "elsewhere" / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    with pytest.raises(TrackingError, match=r"cannot find run 0000.*no such table: runs"):
        find_run("0" * 32)


def test_a_floor_holds_back_and_what_lacks_a_part_is_not_registered(copy):
    connect().delete_registered_model("tiny")
    high = Thresholds(floors={"accuracy": 0.99})
    made = register(copy.models, copy.splits, VALIDATION, high, copy.folder / "registered.json")
    assert made.aliases == ("challenger",)
    assert "at least 0.99 is required" in made.shortfalls[0]
    connect().delete_registered_model("tiny")
    (copy.folder / "dvc.lock").unlink()
    with pytest.raises(ArtifactError, match=r"its passport lacks dvc.lock"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert not (copy.folder / "none.json").exists()
    assert connect().search_registered_models() == []


@pytest.mark.parametrize("end", ["stages:\n  train@dense:\n    deps:\n    - path:\n", "stages: {"])
def test_a_torn_dvc_lock_gets_into_no_passport(copy, end):
    connect().delete_registered_model("tiny")
    (copy.folder / "dvc.lock").write_text(f"schema: '2.0'\n{end}")
    with pytest.raises(ArtifactError, match=r"dvc.lock is torn"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert connect().search_registered_models() == []


def test_a_model_without_its_litert_file_is_not_registered(copy):
    connect().delete_registered_model("tiny")
    copy.models["dense"][0].litert.unlink()
    with pytest.raises(ArtifactError, match=r"no model.tflite .* dvc repro evaluate@dense"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert connect().search_registered_models() == []


def test_a_model_that_does_not_reproduce_its_predictions_is_not_registered(copy):
    path = copy.folder / "evaluation/dense/predictions/probabilities.npy"
    write_array(path, np.full((32, 4), 0.25, np.float32))
    client = connect()
    client.delete_registered_model("tiny")
    with pytest.raises(TrackingError, match="does not reproduce"):
        register(copy.models, copy.splits, VALIDATION, Thresholds(), copy.folder / "new.json")
    assert client.search_model_versions("name = 'tiny'") == []
    assert not (copy.folder / "new.json").exists()
