"""What the trials of `tune` tell the study; the flow: tests/stack."""

from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from PIL import Image

from flows.execution.snapshot import Snapshot
from flows.pages import charts
from flows.pages.rows import ModelRow
from flows.search import findings, trials
from flows.search.children import ChildrenError, Ended
from flows.search.study import StudyRecord, TrialRecord, new_study, records
from flows.search.trials import FAILURES_IN_A_ROW, Target, Trials
from flows.tune import find_target, tune
from pipeline.errors import ParamsError, TrackingError
from pipeline.params.params import load_params
from tests.conftest import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()


def test_a_space_for_other_layers_is_refused_before_anything_starts():
    assert find_target(Snapshot("c", SHIPPED), "digits", "dense").space
    text = SHIPPED.replace("layers.2.dropout", "layers.1.dropout")
    with pytest.raises(ParamsError, match=r"search.digits.dense: layers.1.dropout: "):
        find_target(Snapshot("c", text), "digits", "dense")


def test_the_form_has_ranges_and_descriptions():
    fields = tune.parameters.properties
    assert (fields["trials"]["minimum"], fields["trials"]["maximum"]) == (1, 10_000)
    assert (fields["parallel"]["minimum"], fields["parallel"]["maximum"]) == (1, 64)
    assert all("description" in field for field in fields.values())


class FakeChildren:
    """Runs that end as a test says."""

    def __init__(self):
        self.over: list[Ended] = []
        self.cancelled: list[UUID] = []
        self.asked: list[dict[str, object]] = []

    def start(self, parameters):
        self.asked.append(parameters)
        return uuid4()

    def ended(self):
        over, self.over = self.over, []
        return over

    def cancel(self, flow_run_id):
        self.cancelled.append(flow_run_id)


class FakeGroups:
    """A store with one MLflow run per flow run, whose histories a test fills in."""

    def __init__(self):
        self.histories: dict[str, dict[int, float]] = {}
        self.away = False

    def run_of(self, experiment, flow_run_id):
        if self.away:
            raise TrackingError("away", retryable=True)
        return flow_run_id if flow_run_id in self.histories else None

    def history(self, run_id, metric):
        return self.histories.get(run_id, {})


@pytest.fixture
def made(monkeypatch):
    silent = SimpleNamespace(warning=lambda *_: None, info=lambda *_: None)
    monkeypatch.setattr(trials, "get_run_logger", lambda: silent)
    monkeypatch.setattr(findings, "get_run_logger", lambda: silent)
    recipe = load_params(ROOT / "params.yaml").recipe("digits", "cnn")
    space = {"optimizer.learning_rate": FloatDistribution(0.1, 1), "epochs": IntDistribution(1, 9)}
    target = Target("digits", "cnn", recipe, "abc", space)
    return Trials(new_study(0, 0, True), target, FakeChildren(), FakeGroups(), True)  # type: ignore[arg-type]


def start(made, history=None):
    made.start()
    child = list(made.running)[-1]
    if history is not None:
        made.groups.histories[str(child)] = dict(enumerate(history, start=1))
    return child


def complete(made, value, history=()):
    child = start(made, history)
    row = ModelRow(
        dataset="digits",
        model="cnn",
        seed=0,
        run_id=str(child),
        val_accuracy=value,
        epochs=3,
        training_seconds=2.0,
        cached=False,
        device="cpu",
    )
    made.children.over = [Ended(child, [row])]
    return made.step()


def test_a_trial_is_a_run_of_train_with_its_values(made):
    start(made)
    asked = made.children.asked[0]
    assert (asked["models"], asked["until"], asked["auto_promote"]) == (["cnn"], "train", False)
    assert asked["revision"] == "abc"
    assert 0.1 <= asked["overrides"]["cnn"]["optimizer"]["learning_rate"] <= 1


def test_a_trial_that_completes_has_value_epochs_and_run(made):
    assert complete(made, 0.9, [0.5, 0.9]) == [0]
    (record,) = records(made.study)
    assert (record.state, record.value, record.seconds) == ("COMPLETE", 0.9, 2.0)
    assert record.intermediate == {1: 0.5, 2: 0.9}
    assert record.run_id == record.flow_run_id


def test_a_poor_trial_is_cancelled_and_told_of_once(made):
    for _ in range(4):
        complete(made, 0.9, [0.9] * 6)
    poor = start(made, [0.1] * 3)
    assert made.step() == []
    made.groups.histories[str(poor)][4] = 0.1
    made.groups.histories[str(poor)][5] = 0.1
    assert made.step() == [4]
    assert made.children.cancelled == [poor]
    made.children.over = [Ended(poor, [], "Cancelled", "pruned")]
    assert made.step() == []
    record = records(made.study)[4]
    assert (record.state, record.reason, record.value) == ("PRUNED", "pruned at epoch 4", 0.1)


def test_a_training_that_breaks_down_counts_as_poor_and_anything_else_as_failed(made):
    child = start(made, [0.1])
    made.children.over = [Ended(child, [], "Failed", "loss is nan")]
    assert made.step() == [0]
    child = start(made)
    made.children.over = [Ended(child, [], "Crashed", "gone")]
    assert made.step() == [1]
    assert [(one.state, one.reason) for one in records(made.study)] == [
        ("PRUNED", "Failed: loss is nan"),
        ("FAIL", "Crashed: gone"),
    ]


def test_failure_after_failure_ends_the_search(made):
    def fail():
        made.children.over = [Ended(start(made), [], "Failed", "no data")]
        made.step()

    for _ in range(FAILURES_IN_A_ROW - 1):
        fail()
    with pytest.raises(ChildrenError, match="5 trials in a row have failed; the last: Failed: no"):
        fail()


def test_a_store_that_is_away_for_a_while_does_not_end_the_search(made):
    made.groups.away = True
    start(made, [0.5])
    assert made.step() == []
    assert complete(made, 0.8) == [1]


def test_the_table_has_the_best_first_and_the_pictures_are_pictures(made, tmp_path):
    for value in (0.8, 0.9, 0.85, 0.7, 0.6):
        complete(made, value, [value])
    child = start(made)
    made.children.over = [Ended(child, [], "Crashed", "gone")]
    made.step()
    record = StudyRecord(
        study="s", dataset="digits", model="cnn", recipe={}, trials=records(made.study)
    )
    lines = findings.page(record, {"epochs": 3}, 0.9, {})
    assert lines[0] == "# digits cnn: 90.00% on the validation split"
    heading = next(n for n, line in enumerate(lines) if line.startswith("| trial |"))
    assert lines[heading + 2].startswith("| 1 | 90.00% |")
    assert "Crashed: gone" in lines[-1]
    charts.draw_trials(tmp_path / "trials.png", record.trials)
    charts.draw_importances(tmp_path / "shares.png", findings.importances(made.study))
    for path in tmp_path.glob("*.png"):
        assert Image.open(path).size[0] == 800


def test_no_trial_that_ended_well_says_why(made):
    failed = TrialRecord(number=0, params={}, state="FAIL", reason="no disk")
    record = StudyRecord(study="s", dataset="d", model="m", recipe={}, trials=(failed,))
    with pytest.raises(ChildrenError, match="no trial has completed: no disk"):
        findings.show(record, None, None, "", made.study)  # type: ignore[arg-type]
