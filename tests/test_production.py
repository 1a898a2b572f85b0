"""Promotion, rollback, audit and their ledger, against a real store."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache as artifact_places
from typer.testing import CliRunner

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.cli import app
from pipeline.errors import ArtifactError, ParamsError, PipelineError, TrackingError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.litert import LiteRTModel
from pipeline.production.audit import audit
from pipeline.production.promote import promote, rollback
from pipeline.production.recording import time_for
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger import Action, Entry
from pipeline.registry.ledger_run import Conflict, ledger_of
from pipeline.serving.predict import predict
from pipeline.tracking.store import connect
from pipeline.training.train import train
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

VALIDATION = tiny_validation()
RULES = Thresholds()
# What the tests run the command line with.
PARAMS = """
dataset: tiny
models: [dense]
promotion: {margin: 0.005}
recipes: {tiny: {dense: {layers: [flatten], epochs: 1}}}
"""
RECIPES = {
    "short": tiny_plan("short", epochs=1, optimizer={"name": "sgd", "learning_rate": 0.0001}),
    "dense": tiny_plan("dense"),
    "reseed": tiny_plan("dense", seed=3),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Train a poor model, a good one and its like with another seed; register the poor one."""
    folder = tmp_path_factory.mktemp("registry") / "project"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tiny_project(folder)
        (folder / "params.yaml").write_text(PARAMS)
        splits = tiny_splits(folder / "data/processed/tiny")
        for name, plan in RECIPES.items():
            trained = train(splits, plan, folder / name, device="cpu")
            evaluate(trained, splits, folder / "evaluation" / name)
        one = {"short": (TrainedModel(folder / "short"), Evaluation(folder / "evaluation/short"))}
        register(one, splits, VALIDATION, RULES, folder / "registered.json")
    return folder


@pytest.fixture(scope="module")
def original_two(original, tmp_path_factory):
    """Return a copy with the good model as version 2, which is the challenger."""
    with pytest.MonkeyPatch.context() as patch:
        copy = project(original, tmp_path_factory.mktemp("two") / "project", patch)
        copy.add("dense")
    return copy.folder


@pytest.fixture
def here(original, tmp_path, monkeypatch):
    """Return a copy of the project, with a store and with files that a test may change."""
    return project(original, tmp_path / "project", monkeypatch)


@pytest.fixture
def two(original_two, tmp_path, monkeypatch):
    """Return the same with a second version."""
    return project(original_two, tmp_path / "project", monkeypatch)


def project(original, folder, patch):
    """Copy a project and work there."""
    shutil.copytree(original, folder)
    with sqlite3.connect(folder / "mlflow.db") as store:
        # The store names its files by their full path.
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            query = f"update {table} set {column} = replace({column}, ?, ?)"
            store.execute(query, (str(original), str(folder)))
    # MLflow remembers where the artifacts of a run are, and a copy has the same runs.
    artifact_places.clear()
    patch.chdir(folder)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    splits = Splits(folder / "data/processed/tiny")

    def models(name):
        evaluation = Evaluation(folder / "evaluation" / name)
        return {RECIPES[name].model: (TrainedModel(folder / name), evaluation)}

    def add(name, rules=RULES, auto_promote=False):
        output = folder / "registered.json"
        return register(models(name), splits, VALIDATION, rules, output, auto_promote)

    return SimpleNamespace(folder=folder, splits=splits, add=add)


def state():
    """Return what must not change where something goes wrong."""
    entries = ledger_of("tiny").entries()
    return versions.alias_holders("tiny"), entries


def ask(number, here, **more):
    return promote(versions.find(f"tiny/{number}"), here.splits, RULES, **more)


def run(*command):
    return CliRunner().invoke(app, list(command))


def files_of(number):
    return model_files.fetch(versions.find(f"tiny/{number}"))


# the gate, in place


def test_the_first_one_went_into_production_with_an_entry(here):
    holders, entries = state()
    assert holders == {"challenger": 1, "production": 1}
    assert [(e.sequence, e.action, e.previous, e.version) for e in entries] == [
        (1, "promoted", None, 1)
    ]
    assert entries[0].commit == model_files.read_passport(versions.find("tiny/1")).run.git_commit


def test_a_better_one_is_promoted_and_the_old_one_is_previous(two):
    outcome = ask(2, two, who="somebody")
    assert outcome.action == "promoted"
    holders, entries = state()
    assert holders == {"challenger": 2, "production": 2, "previous": 1}
    assert entries[-1].who == "somebody"
    decision = ledger_of("tiny").decision(entries[-1])
    assert decision == outcome.decision.model_dump(mode="json")
    names = {answer.name for answer in outcome.decision.answers}
    assert {"accuracy", "better", "not_worse", "classes", "not_a_reseed", "loads"} <= names
    tags = connect().get_model_version("tiny", "2").tags
    assert tags["last_decision"].startswith("promoted at ")
    shown = connect().list_artifacts(ledger_of("tiny").run_id)
    assert "ledger.json" in {file.path for file in shown}


def test_a_reseed_is_refused_and_that_is_written_down(two):
    ask(2, two)
    two.add("reseed")
    before, _ = state()
    outcome = ask(3, two)
    assert outcome.action == "refused"
    assert {"better", "not_a_reseed"} <= set(outcome.decision.failed)
    after, entries = state()
    assert after == before == {"challenger": 3, "production": 2, "previous": 1}
    assert (entries[-1].action, entries[-1].version, entries[-1].previous) == ("refused", 3, 2)
    forced = ask(3, two, force="the product asks for it")
    assert forced.action == "forced"
    assert forced.decision.passed is False
    _, entries = state()
    assert (entries[-1].action, entries[-1].reason) == ("forced", "the product asks for it")


def test_asking_changes_nothing(two):
    before = state()
    assert ask(2, two, dry_run=True).action == "would pass"
    assert ask(1, two).action == "nothing"
    assert state() == before


def test_register_promotes_what_passes(here):
    made = here.add("dense", auto_promote=True)
    assert made.aliases == ("challenger", "production")
    assert made.shortfalls == ()
    assert here.add("dense", auto_promote=True) == made
    assert len(ledger_of("tiny").entries()) == 2


def test_where_a_person_has_to_agree_register_only_names_the_challenger(here):
    rules = RULES.model_copy(update={"require_approval": True})
    made = here.add("dense", rules, auto_promote=True)
    assert made.aliases == ("challenger",)
    assert "pipeline promote tiny 2" in made.shortfalls[0]
    assert len(ledger_of("tiny").entries()) == 1


# rollback


def test_rollback_returns_to_the_one_before(two):
    ask(2, two)
    entry = rollback("tiny", None, "it confuses left and right")
    assert (entry.action, entry.previous, entry.version) == ("rolled back", 2, 1)
    holders, _ = state()
    assert holders == {"challenger": 2, "production": 1}
    with pytest.raises(ParamsError, match="nothing was in production before version 1"):
        rollback("tiny", None, "once more")
    assert rollback("tiny", 2, "it was not the model").version == 2
    assert state()[0] == {"challenger": 2, "production": 2, "previous": 1}


def test_rollback_loads_the_version_first(two):
    ask(2, two)
    before = state()
    with (files_of(1) / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"model.keras of tiny/1 is not what was registered"):
        rollback("tiny", None, "why not")
    assert state() == before


@pytest.mark.parametrize(
    ("to", "reason", "error", "words"),
    [
        (None, " ", ParamsError, "needs a reason"),
        (None, "x" * 501, ParamsError, "501 characters long"),
        (None, "why", ParamsError, "nothing was in production before"),
        (1, "why", ParamsError, "is in production already"),
        (2, "why", ParamsError, "never was in production; allowed: none"),
        (9, "why", ParamsError, "never was in production"),
    ],
)
def test_a_rollback_that_cannot_be(two, to, reason, error, words):
    before = state()
    with pytest.raises(error, match=words):
        rollback("tiny", to, reason)
    assert state() == before


# the audit


def test_an_alias_moved_by_hand_is_found_and_put_back(two):
    assert audit([]) == []
    connect().set_registered_model_alias("tiny", "production", "2")
    found = audit([])
    assert [(f.alias, f.holder, f.ledger) for f in found] == [("production", 2, 1)]
    with pytest.raises(TrackingError, match="pipeline audit tiny --restore"):
        ask(2, two)
    assert state()[0]["production"] == 2, "looking changes nothing"
    audit(["tiny"], restore=True, who="somebody")
    holders, entries = state()
    assert holders == {"challenger": 2, "production": 1}
    assert (entries[-1].action, entries[-1].version) == ("restored", 1)
    assert "version 2; the ledger says 1" in entries[-1].reason
    assert audit([]) == []


def test_an_alias_taken_away_and_one_put_in_are_found(two):
    client = connect()
    client.delete_registered_model_alias("tiny", "production")
    client.set_registered_model_alias("tiny", "previous", "2")
    assert {(f.alias, f.holder, f.ledger) for f in audit([])} == {
        ("production", None, 1),
        ("previous", 2, None),
    }
    audit([], restore=True)
    assert state()[0] == {"challenger": 2, "production": 1}


def test_a_model_that_nobody_promoted_is_found(here):
    client = connect()
    client.create_registered_model("foreign")
    source = client.get_model_version("tiny", "1").source
    client.create_model_version("foreign", source)
    assert audit(["foreign"]) == []
    client.set_registered_model_alias("foreign", "production", "1")
    assert [(f.alias, f.holder, f.ledger) for f in audit(["foreign"])] == [("production", 1, None)]


def test_damage_is_found(here):
    with (files_of(1) / "model.keras").open("ab") as file:
        file.write(b"x")
    assert ["is not what was registered" in f.message for f in audit([])] == [True]
    connect().delete_model_version("tiny", "1")
    messages = [f.message for f in audit([], restore=False)]
    assert any("no model tiny/1" in text for text in messages)
    before = ledger_of("tiny").entries()
    with pytest.raises(TrackingError, match="no model tiny/1"):
        audit([], restore=True)
    assert ledger_of("tiny").entries() == before


# what goes wrong


def damage_model(here):
    with (files_of(2) / "model.keras").open("ab") as file:
        file.write(b"x")


def damage_passport(here):
    file = files_of(2) / "passport.json"
    file.write_text(file.read_text().replace('"dirty": false', '"dirty": true'))


def delete_model(here):
    (files_of(2) / "model.keras").unlink()


def delete_everything(here):
    shutil.rmtree(files_of(2))


def take_the_passport(here):
    connect().delete_model_version_tag("tiny", "2", "passport_sha256")


def other_images(here):
    tiny_splits(here.folder / "data/processed/tiny", seed=50)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (damage_model, "model.keras of tiny/2 is not what was registered"),
        (damage_passport, "passport.json of tiny/2 is not what was registered"),
        (delete_model, "the file is gone|[Nn]o such|does not exist"),
        (delete_everything, "tiny/2"),
        (take_the_passport, "tiny/2 has no passport"),
    ],
)
@pytest.mark.parametrize("force", ["", "I insist"])
def test_a_broken_version_is_not_promoted_even_by_force(two, break_it, words, force):
    break_it(two)
    before = state()
    with pytest.raises(PipelineError, match=words):
        ask(2, two, force=force)
    assert state() == before


def test_another_test_split_is_refused(two):
    other_images(two)
    outcome = ask(2, two)
    assert outcome.action == "refused"
    assert "test_set" in set(outcome.decision.failed)


def test_an_incumbent_that_is_broken_can_only_be_replaced_by_force(two):
    (files_of(1) / "model.keras").unlink()
    outcome = ask(2, two)
    assert outcome.action == "refused"
    assert "version 1 cannot be scored again" in "; ".join(outcome.decision.failures)
    assert ask(2, two, force="its file is lost").action == "forced"
    assert state()[0]["production"] == 2


@pytest.mark.parametrize(
    "command",
    [
        ["promote", "tinny"],
        ["promote", "tiny", "9"],
        ["rollback", "tinny", "--reason", "x"],
        ["history", "tinny"],
        ["audit", "tinny"],
    ],
)
def test_what_is_not_there_is_answered_with_what_is(here, command):
    before = state()
    error = run(*command).exception
    assert isinstance(error, TrackingError)
    assert "there are: tiny" in str(error)
    assert state() == before


def test_an_empty_registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for command in (["promote", "tiny"], ["rollback", "tiny", "--reason", "x"]):
        assert "it is empty; run dvc repro" in str(run(*command).exception)
    assert run("audit").exit_code == 0
    assert connect().search_registered_models() == []


def test_clocks_that_disagree(two):
    ledger = ledger_of("tiny")
    late = datetime.now(UTC) + timedelta(hours=2)
    first = ledger.entries()[0]
    changes = {"sequence": 2, "key": "x", "action": Action.REFUSED, "when": late.isoformat()}
    ledger.append(first.model_copy(update=changes))
    before = state()
    for act in (lambda: ask(2, two), lambda: audit([], restore=True) or rollback("tiny", 1, "x")):
        with pytest.raises((TrackingError, ParamsError)):
            act()
    with pytest.raises(TrackingError, match="set the clock that is wrong"):
        ask(2, two)
    assert state() == before


def test_the_clock_of_the_server_counts(two, monkeypatch):
    class Late(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

        def log_message(self, format, *arguments):
            pass

    ledger, version = ledger_of("tiny"), versions.find("tiny/2")
    assert time_for(ledger, version) <= datetime.now(UTC)
    with HTTPServer(("127.0.0.1", 0), Late) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(TrackingError, match="the MLflow server's clock says"):
            time_for(ledger, version)
        server.shutdown()


def test_a_tampered_model_is_neither_loaded_nor_served(two):
    damage_model(two)
    with pytest.raises(ArtifactError, match="it is not served"):
        model_files.load("models:/tiny/2")
    with pytest.raises(ArtifactError, match="is not what was registered"):
        predict([two.folder], "tiny/2")


def test_a_tampered_litert_file_is_not_asked(two):
    with (files_of(2) / "model.tflite").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"model.tflite of tiny/2 is not what was registered"):
        predict([two.folder], "tiny/2")


def from_before_litert(number):
    """Make a version what an earlier release registered: without a LiteRT file, Keras answers."""
    files = files_of(number)
    (files / "model.tflite").unlink()
    (files / "portable.json").unlink()
    shutil.copy(Path(__file__).parent / "earlier" / "served_model.py", files.parent)
    connect().delete_model_version_tag("tiny", str(number), "portable_sha256")


def test_a_version_from_before_there_were_litert_files_serves_all_the_same(two):
    from_before_litert(2)
    with pytest.raises(ArtifactError, match=r"tiny/2 has no model.tflite: .* dvc repro --force"):
        predict([two.folder], "tiny/2")
    assert ask(2, two).action == "promoted"
    from_before_litert(1)
    assert rollback("tiny", None, "back to the oldest").version == 1


def test_such_a_version_in_production_meets_one_that_litert_serves(two):
    from_before_litert(1)
    outcome = ask(2, two)
    assert outcome.action == "promoted"
    assert {answer.name for answer in outcome.decision.answers} >= {"better", "not_worse"}


def test_what_serves_must_say_what_the_model_says(two):
    served = files_of(2).parent / "served_model.py"
    right = "self.model.probabilities(np.stack(images))"
    assert right in served.read_text()
    served.write_text(served.read_text().replace(right, f"np.roll({right}, 1, axis=1)"))
    outcome = ask(2, two)
    assert outcome.action == "refused"
    (failure,) = outcome.decision.failures
    assert "the MLflow flavour differs by" in failure


def test_both_must_say_what_keras_said_when_it_was_evaluated(two, monkeypatch):
    """A LiteRT runtime that answers wrongly, the same way wherever it is asked."""
    right = LiteRTModel.probabilities
    rolled = lambda self, images: np.roll(right(self, images), 1, axis=1)  # noqa: E731
    monkeypatch.setattr(LiteRTModel, "probabilities", rolled)
    failed = set(ask(2, two).decision.failed)
    assert "loads" in failed


# two at once, and killed in between


def test_of_two_at_once_one_wins_and_the_other_says_why(two):
    """Start both as processes; each waits with its entry until the other is as far."""
    code = """
import sys, time
from pathlib import Path
from pipeline.registry import versions
from pipeline.registry.ledger_run import LedgerRun
from pipeline.production.promote import promote
from pipeline.artifacts.datasets import Splits
from pipeline.production.rules import Thresholds
append = LedgerRun.append
def together(self, entry):
    Path(sys.argv[1]).touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return append(self, entry)
LedgerRun.append = together
try:
    promote(versions.find("tiny/2"), Splits(Path("data/processed/tiny")), Thresholds())
    print("won")
except Exception as error:
    print(type(error).__name__, error, getattr(error, "retryable", None))
"""
    both = [start(code, f"ready-{number}") for number in range(2)]
    said = sorted(process.communicate(timeout=120)[0].strip().splitlines()[-1] for process in both)
    assert said[1] == "won"
    assert said[0].startswith(
        "Conflict another process wrote this entry first: entry 2 of the ledger of tiny"
    )
    holders, entries = state()
    assert holders["production"] == 2
    assert len(entries) == 2


def start(code, *arguments):
    root = str(Path(__file__).parent.parent)
    given = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**given, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )


class Killed(BaseException):
    """Ends what runs as a kill would: nothing handles it."""


def killed_at(monkeypatch, place, name, number):
    """Let the call of a function with this number, counted from 1, end everything."""
    original, calls = getattr(place, name), []

    def call(*arguments, **more):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **more)

    monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize(
    ("where", "name", "number", "written"),
    [
        ("ledger", "keep_decision", 1, False),
        ("ledger", "append", 1, False),
        ("registry", "set_alias", 1, True),
        ("registry", "set_alias", 2, True),
        ("ledger", "mark_done", 1, True),
    ],
)
@pytest.mark.parametrize("follow", ["audit", "promote", "rollback"])
def test_killed_in_between_the_next_call_finishes(
    two, monkeypatch, where, name, number, written, follow
):
    from pipeline.registry.ledger_run import LedgerRun

    with monkeypatch.context() as patch:
        killed_at(patch, LedgerRun if where == "ledger" else versions, name, number)
        with pytest.raises(Killed):
            ask(2, two)
    assert versions.alias_holders("tiny")["production"] in (1, 2), "both have passed the gate"
    if follow == "audit":
        assert audit([]) == []
        assert state()[0].get("production") == (2 if written else 1)
    elif follow == "promote":
        assert ask(2, two).action == ("nothing" if written else "promoted")
        assert state()[0] == {"challenger": 2, "production": 2, "previous": 1}
    elif written:
        assert rollback("tiny", None, "back").version == 1
        assert state()[0] == {"challenger": 2, "production": 1}
    else:
        with pytest.raises(ParamsError, match="nothing was in production before"):
            rollback("tiny", None, "back")


@pytest.mark.parametrize(
    ("name", "number"),
    [("log_model", 1), ("create_version", 1), ("set_alias", 1), ("set_alias", 2)],
)
def test_killed_while_registering_the_next_call_finishes(here, monkeypatch, name, number):
    with monkeypatch.context() as patch:
        place = model_files if name == "log_model" else versions
        killed_at(patch, place, name, number)
        with pytest.raises(Killed):
            here.add("dense", auto_promote=True)
    made = here.add("dense", auto_promote=True)
    assert (made.version, made.aliases) == (2, ("challenger", "production"))
    assert len(connect().search_model_versions("name = 'tiny'")) == 2
    assert audit([]) == []
    experiment = connect().get_experiment_by_name("tiny")
    logged = connect().search_logged_models([experiment.experiment_id])
    assert len([m for m in logged if m.source_run_id == made.run_id]) == 1


def test_an_entry_is_never_written_over(here):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]
    with pytest.raises(Conflict, match="another process wrote this entry first"):
        ledger.append(first.model_copy(update={"key": "other"}))
    ledger.append(first)  # the same again: the answer was lost on the way
    assert ledger.entries() == (first,)


def test_a_refusal_of_somebody_else_does_not_stop_a_promotion(two, monkeypatch):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]
    from pipeline.registry.ledger_run import LedgerRun

    append = LedgerRun.append
    first_time = iter([True])

    def late(self, entry: Entry):
        if next(first_time, False):
            append(
                self, first.model_copy(update={"sequence": 2, "key": "r", "action": Action.REFUSED})
            )
        append(self, entry)

    monkeypatch.setattr(LedgerRun, "append", late)
    assert ask(2, two).entry.sequence == 3


def test_a_run_whose_rival_promotes_first_asks_the_gate_again(two, monkeypatch):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]
    from pipeline.registry.ledger_run import LedgerRun

    append = LedgerRun.append
    first_time = iter([True])

    def late(self, entry: Entry):
        if next(first_time, False):
            rival = {"sequence": 2, "key": "r", "version": 2, "previous": 1}
            append(self, first.model_copy(update=rival))
        append(self, entry)

    monkeypatch.setattr(LedgerRun, "append", late)
    assert two.add("reseed", auto_promote=True).version == 3, "it would pass against version 1"
    last = ledger.entries()[-1]
    assert (last.sequence, last.action, last.version, last.previous) == (3, "refused", 3, 2)


def test_a_deleted_ledger_is_said(here):
    connect().delete_run(ledger_of("tiny").run_id)
    with pytest.raises(TrackingError, match="mlflow runs restore --run-id"):
        audit([])


# the command line


def test_the_commands(two):
    asked = run("promote", "tiny", "--dry-run", "--json")
    assert asked.exit_code == 0, asked.exception
    assert json.loads(asked.stdout)["action"] == "would pass"
    done = run("promote", "tiny", "2", "--who", "somebody", "--json")
    content = json.loads(done.stdout)
    assert (content["action"], content["sequence"]) == ("promoted", 2)
    assert content["decision"]["passed"] is True
    assert "in production already" in run("promote", "tiny").stdout
    two.add("reseed")
    refused = run("promote", "tiny")
    assert refused.exit_code == 3
    assert "FAIL" in refused.stdout
    assert "production stays as it is" in refused.stdout
    table = run("history", "tiny").stdout
    for word in ("somebody", "promoted", "refused 3"):
        assert word in table
    rows = json.loads(run("history", "tiny", "--json").stdout)["entries"]
    assert [row["action"] for row in rows] == ["promoted", "promoted", "refused"]
    assert "not_a_reseed" in run("history", "tiny", "--entry", "3").stdout
    assert "has no entry 9" in str(run("history", "tiny", "--entry", "9").exception)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert "version 2, promoted" in run("history", "tiny", "--on", today).stdout
    assert "nothing was in production" in run("history", "tiny", "--on", "2020-01-01").stdout
    back = json.loads(run("rollback", "tiny", "--reason", "a look", "--json").stdout)
    assert (back["from"], back["to"]) == (2, 1)
    connect().set_registered_model_alias("tiny", "production", "3")
    assert run("audit", "--json").exit_code == 3
    fixed = run("audit", "--restore", "--json")
    assert fixed.exit_code == 0
    assert json.loads(fixed.stdout)["restored"][0]["holder"] == 3
    assert "every alias is where the ledger says" in run("audit").stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["promote", "tiny", "2", "--force"], "--reason TEXT"),
        (["promote", "tiny", "2", "--reason", "x"], "goes with --force"),
    ],
)
def test_options_that_do_not_go_together(two, command, words):
    assert words in str(run(*command).exception)


def test_a_person_has_to_agree(two):
    (two.folder / "params.yaml").write_text(
        PARAMS.replace("{margin", "{require_approval: true, margin")
    )
    assert "waits for a person" in str(run("promote", "tiny").exception)
    assert len(ledger_of("tiny").entries()) == 1
    assert run("promote", "tiny", "--yes").exit_code == 0
    assert state()[0]["production"] == 2
