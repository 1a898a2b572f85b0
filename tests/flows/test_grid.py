"""What `grid` asks for and what it makes of the results; the flow itself: tests/stack."""

import csv
import io
import math
from contextlib import nullcontext
from uuid import uuid4

import pytest
from PIL import Image
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from flows import grid as flow
from flows.execution.snapshot import Snapshot
from flows.pages import charts
from flows.pages.rows import ModelRow
from flows.retries import CRASHED_FOR_GOOD
from flows.search.cells import (
    Cell,
    Result,
    Spread,
    as_csv,
    as_markdown,
    cells_of,
    metrics,
    summarise,
)
from flows.search.children import Children, Ended
from pipeline.errors import ParamsError
from pipeline.reports.markdown import Markdown
from tests.conftest import ROOT

RECIPES = {"digits": ["dense", "cnn"], "mnist": ["dense", "cnn", "fast"]}


def row(seconds=3.0, val=0.9, test=0.8, cached=False):
    return ModelRow(
        dataset="digits",
        model="cnn",
        seed=0,
        run_id=uuid4().hex,
        val_accuracy=val,
        accuracy=test,
        epochs=3,
        training_seconds=seconds,
        cached=cached,
        device="cpu",
    )


@pytest.fixture
def results():
    return [
        Result(Cell("digits", "cnn", 0), row(1800, 0.90, 0.80)),
        Result(Cell("digits", "cnn", 1), row(5400, 0.92, 0.84, cached=True)),
        Result(Cell("digits", "cnn", 2), reason="Failed: no disk"),
        Result(Cell("digits", "dense", 0), row(10, 0.95, 0.94)),
        Result(Cell("mnist", "cnn", 0), reason="Crashed: gone"),
    ]


def test_the_grid_has_every_combination_once_and_skips_what_there_is_not():
    cells, skipped = cells_of(
        ["digits", "mnist", "digits"], ["cnn", "fast"], [0, 1, 1], RECIPES.__getitem__
    )
    assert cells == [
        *(Cell("digits", "cnn", seed) for seed in (0, 1)),
        *(Cell("mnist", "cnn", seed) for seed in (0, 1)),
        *(Cell("mnist", "fast", seed) for seed in (0, 1)),
    ]
    assert skipped == ["digits has no fast, only dense, cnn"]


def test_deviations_are_of_samples_and_one_value_has_none():
    assert Spread.of([1.0, None, 3.0]) == Spread(2.0, math.sqrt(2))
    assert Spread.of([1.0]) == Spread(1.0, None)
    assert Spread.of([None]) == Spread(None, None)


def test_results_are_summed_up_by_dataset_and_model(results):
    cnn, dense, empty = summarise(results, cost_per_hour=2)
    assert (cnn.runs, cnn.failed, cnn.cached) == (2, 1, 1)
    assert cnn.val_accuracy.mean == pytest.approx(0.91)
    assert cnn.accuracy.sd == pytest.approx(0.04 / math.sqrt(2))
    assert cnn.seconds.mean == 3600
    assert cnn.cost == pytest.approx(2.0)
    assert dense.accuracy == Spread(0.94, None)
    assert (empty.runs, empty.failed, empty.cost, empty.accuracy.mean) == (0, 1, None, None)


def test_numbers_have_names_and_what_is_not_known_is_left_out(results):
    named = metrics(summarise(results, 2))
    assert named["digits.cnn.accuracy_mean"] == pytest.approx(0.82)
    assert named["digits.cnn.accuracy_sd"] == pytest.approx(0.0283, abs=1e-4)
    assert "digits.dense.accuracy_sd" not in named
    assert {name for name in named if name.startswith("mnist")} == {"mnist.cnn.runs"}


def test_the_page_has_a_table_per_dataset_and_says_what_failed(results):
    summaries = summarise(results, 2)
    failed = [result for result in results if result.row is None]
    page = as_markdown(
        summaries, failed, ["mnist has no dense"], lambda run_id: Markdown(f"<{run_id}>")
    )
    assert page.index("# digits") < page.index("# mnist")
    best, second = (line for line in page.splitlines() if line.startswith(("| dense", "| cnn | 2")))
    assert best.startswith("| dense | 1 | 95.00% | 94.00% | 10.0 s |")
    assert second.startswith("| cnn | 2 | 91.00% ± 1.41% | 82.00% ± 2.83% | 3600.0 s | 2.0000 | 1 ")
    assert f"<{results[0].row.run_id}>" in second
    assert "- digits cnn seed 2: Failed: no disk" in page
    assert "- skipped: mnist has no dense" in page


def test_the_csv_has_a_line_per_dataset_and_model(results):
    read = list(csv.DictReader(io.StringIO(as_csv(summarise(results, 2)))))
    assert [(line["dataset"], line["model"]) for line in read] == [
        ("digits", "cnn"),
        ("digits", "dense"),
        ("mnist", "cnn"),
    ]
    assert float(read[0]["training_seconds_mean"]) == 3600
    assert read[1]["accuracy_sd"] == read[2]["accuracy_mean"] == ""


def test_the_picture_is_one_even_where_nothing_is_known(results, tmp_path):
    for number, some in enumerate((results, results[4:])):
        path = tmp_path / f"{number}.png"
        charts.draw_grid(path, summarise(some, 0))
        assert Image.open(path).size[0] == 800


def test_the_form_has_lists_ranges_and_descriptions():
    fields = flow.grid.parameters.properties
    assert {"digits", "cifar10_images"} <= set(fields["datasets"]["items"]["enum"])
    assert fields["seeds"]["minItems"] == 1
    assert fields["cost_per_hour"]["minimum"] == 0
    assert fields["pool"]["enum"] == ["cpu", "gpu"]
    assert all("description" in field for field in fields.values())


def planned(**asked):
    text = (ROOT / "params.yaml").read_text()
    wanted = {"datasets": ["digits"], "models": ["cnn"], "seeds": [0], "changes": {}, **asked}
    return flow.plan(Snapshot("commit", text), **wanted)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"models": ["fast"]}, "nothing to train: digits has no fast, only dense, cnn"),
        ({"datasets": ["digit"]}, "unknown dataset 'digit'.*did you mean digits"),
        ({"changes": {"dense": {"epochs": 3}}}, "'dense' is not trained; allowed: cnn"),
        ({"changes": {"cnn": {"epochs": 0}}}, "recipes.digits.cnn.epochs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(asked, reason):
    with pytest.raises(ParamsError, match=reason):
        planned(**asked)


def test_what_some_datasets_lack_is_skipped():
    cells, skipped = planned(datasets=["digits", "mnist"], models=["fast"])
    assert cells == [Cell("mnist", "fast", 0)]
    assert len(skipped) == 1


def flow_run(state):
    return FlowRun(flow_id=uuid4(), state=state)


@pytest.fixture
def own():
    made = Children("cpu")
    return made


def test_a_crashed_run_is_given_time_to_be_tried_again(own, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("flows.search.children.time.monotonic", lambda: now)
    run = flow_run(Crashed())
    own.watch(run.id)
    assert own.over([run]) == []
    now += CRASHED_FOR_GOOD.total_seconds() - 1
    assert own.over([run]) == []
    run.state = Running()
    assert own.over([run]) == []
    run.state = Crashed()
    now += 2
    assert own.over([run]) == []
    now += CRASHED_FOR_GOOD.total_seconds() + 1
    assert own.over([run]) == [run]


@pytest.mark.parametrize(
    ("state", "over"),
    [(Scheduled(), False), (Completed(), True), (Failed(), True), (Cancelled(), True)],
)
def test_a_run_in_a_final_state_is_over(own, state, over):
    run = flow_run(state)
    own.watch(run.id)
    assert own.over([run]) == ([run] if over else [])


def test_a_cancelled_run_that_crashes_is_not_given_that_time(own, monkeypatch):
    monkeypatch.setattr("flows.search.children.get_client", lambda **_: nullcontext())
    monkeypatch.setattr("flows.search.server.cancel", lambda *_: None)
    run = flow_run(Crashed())
    own.watch(run.id)
    own.cancel(run.id)
    assert own.over([run]) == [run]


def test_a_run_that_is_over_says_how_it_ended():
    done = Ended.of(flow_run(Completed()), [row()])
    assert (done.state, done.reason, len(done.rows)) == ("Completed", "", 1)
    failed = Ended.of(flow_run(Failed(message="no\ndisk")), [])
    assert (failed.state, failed.reason, failed.rows) == ("Failed", "no disk", [])
    assert Ended.of(flow_run(Completed()), []).reason
