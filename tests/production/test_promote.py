"""Promotion by the gate, and its commands, against a real store."""

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from pipeline.errors import ArtifactError, ParamsError, PipelineError, TrackingError
from pipeline.evaluation.litert import LiteRTModel
from pipeline.production.audit import audit
from pipeline.production.decision import PromotionReport
from pipeline.production.promote import rollback
from pipeline.production.recording import time_for
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger import Action
from pipeline.registry.ledger_run import ledger_of
from pipeline.serving.predict import predict
from pipeline.tracking.store import connect
from tests.promotable import (
    PARAMS,
    ask,
    damage_model,
    files_of,
    here,
    run,
    state,
    two,
    without_record,
)
from tests.tiny import tiny_splits

__all__ = ["here", "two"]


def test_the_first_one_went_into_production_with_an_entry(here):
    holders, entries = state()
    assert holders == {"challenger": 1, "production": 1}
    assert [(e.sequence, e.action, e.previous, e.version) for e in entries] == [
        (1, "promoted", None, 1)
    ]
    assert entries[0].commit == model_files.read_passport(versions.find("tiny/1")).run.git_commit


def test_floors_of_corruptions_and_of_slices_hold_back(two):
    floors = {"corruption_accuracy": 1.0, "slice_accuracy": 0.5}
    outcome = ask(2, two, Thresholds(floors=floors), dry_run=True)
    assert set(outcome.decision.failed) == set(floors)
    assert "worst slice is unknown" in str(outcome.decision.failures)  # of 32 images none has 20


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
    thresholds = Thresholds(require_approval=True)
    made = here.add("dense", thresholds, auto_promote=True)
    assert made.aliases == ("challenger",)
    assert "pipeline promote tiny 2" in made.shortfalls[0]
    assert len(ledger_of("tiny").entries()) == 1


def damage_passport(here):
    file = files_of(2) / "passport.json"
    file.write_text(file.read_text().replace('"dirty": false', '"dirty": true'))


def take_the_images(here):
    (files_of(2) / "images.npz").unlink()
    connect().delete_model_version_tag("tiny", "2", "images_sha256")


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
        (take_the_images, "images.npz of tiny/2 is not what its passport says"),
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


def test_another_test_split_is_refused_where_it_is_not_known_what_was_seen(two):
    other_images(two)
    without_record(2)
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


def test_what_serves_must_say_what_the_model_says(two):
    served = files_of(2).parent / "served_model.py"
    right = "for row in answers.probabilities"
    assert right in served.read_text()
    served.write_text(
        served.read_text().replace(right, "for row in np.roll(answers.probabilities, 1, axis=1)")
    )
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


def test_the_commands(two):
    asked = run("promote", "tiny", "--dry-run", "--json")
    assert asked.exit_code == 0, asked.exception
    assert PromotionReport.model_validate_json(asked.stdout).action == Action.WOULD_PASS
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
