"""Checkpoints: what they hold, when they are written, and what never goes on from one."""

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import ArtifactError, TrainingError
from pipeline.tracking.describe import describe
from pipeline.tracking.provenance import Provenance
from pipeline.tracking.resumed import look_up, public_store
from pipeline.tracking.store import connect
from pipeline.training import train as stage
from pipeline.training.checkpoints import files, saving
from pipeline.training.checkpoints.files import Slot
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.checkpoints.snapshot import Snapshot
from pipeline.training.progress import TrainProgress
from pipeline.training.resuming import key
from tests.tiny import store, tiny_plan, tiny_splits

__all__ = ["store"]

TAKEN = Snapshot({"twin/0000": np.arange(6.0).reshape(2, 3)}, {"epochs": [{"epoch": 1}]})


@pytest.fixture
def slot(tmp_path):
    return Slot("key", tmp_path / "checkpoints")


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["model/0000", "twin/0001", "predicted"]),
        st.one_of(arrays(np.float32, st.tuples(st.integers(0, 3))), arrays(np.int64, ())),
    )
)
def test_what_is_read_is_what_was_written(tmp_path_factory, content):
    slot = Slot("key", tmp_path_factory.mktemp("checkpoints"))
    slot.write(Snapshot(content, {"epochs": [0.1, None]}), {"run_id": "a"})
    found = slot.read()
    assert found is not None
    assert found.facts == {"run_id": "a"}
    assert found.snapshot.values == {"epochs": [0.1, None]}
    assert found.snapshot.arrays.keys() == content.keys()
    for name, array in content.items():
        assert found.snapshot.arrays[name].tobytes() == array.tobytes()
        assert found.snapshot.arrays[name].shape == array.shape


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_no_damage_is_overlooked(tmp_path_factory, data):
    slot = Slot("key", tmp_path_factory.mktemp("checkpoints"))
    slot.write(TAKEN, {})
    content = slot.path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    torn = data.draw(st.booleans())
    flipped = bytes([content[place] ^ 1]) + content[place + 1 :]
    slot.path.write_bytes(content[:place] + (b"" if torn else flipped))
    try:
        found = slot.read()
    except ArtifactError:
        return
    # Zip has bytes that mean nothing, such as the time.
    assert found is not None
    assert found.snapshot.values == TAKEN.values
    assert found.snapshot.arrays["twin/0000"].tobytes() == TAKEN.arrays["twin/0000"].tobytes()


def test_a_damaged_one_is_said_and_training_begins_anew(slot):
    slot.write(TAKEN, {})
    slot.path.write_bytes(slot.path.read_bytes()[:100])
    said = pytest.warns(UserWarning, match="cannot read .* begins at the first epoch")
    with said, Checkpoints(slot) as checkpoints:
        assert checkpoints.found is None


def test_one_of_two_at_once_keeps_none(slot, capfd):
    other = Slot("key", slot.path.parent)
    with Checkpoints(slot) as first, Checkpoints(other) as second:
        slot.write(TAKEN, {})
        assert second.durable == float("inf")
        assert second.found is None
        assert first.durable == 0
        second.add(None)  # type: ignore[arg-type]
    assert "another training of the same is at work" in capfd.readouterr().err
    assert list(slot.path.parent.iterdir()) == []


def test_the_oldest_are_removed_where_they_take_too_much(slot, monkeypatch):
    slots = [Slot(f"{number}", slot.path.parent) for number in range(4)]
    for number, each in enumerate(slots):
        each.write(TAKEN, {})
        os.utime(each.path, (number, number))
    assert slots[0].claim()  # in use
    monkeypatch.setattr(files, "MOST_BYTES", 3 * slots[0].path.stat().st_size)
    part = slot.path.with_name(f".1-{slot.path.name}")
    part.write_bytes(b"half a checkpoint")
    assert slot.claim()
    slot.write(TAKEN, {})
    left = {path.name for path in slot.path.parent.glob("*.npz")}
    assert left == {"0.npz", "3.npz", "key.npz"}
    slots[0].release()
    slot.release()


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path):
    (tmp_path / "file").touch()
    said = pytest.warns(UserWarning, match="no checkpoints are kept")
    with said, Checkpoints(Slot("key", tmp_path / "file")) as checkpoints:
        assert checkpoints.durable == float("inf")


class Stopped(Exception):
    """What a full disk or a lost GPU looks like."""


@pytest.fixture
def train(store, monkeypatch):
    """Return a function that trains, until an epoch if it is told to stop there."""
    monkeypatch.setenv("DATASET_CACHE", str(store / "cache"))
    monkeypatch.setattr(saving, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(saving, "MOST_SHARE", float("inf"))
    splits, shown = tiny_splits(store / "data"), TrainProgress.on_epoch

    def run(stop=None, plan=None, error=Stopped, splits=splits, **more):
        def on_epoch(self, row):
            shown(self, row)
            if stop is None:
                return
            deadline = time.monotonic() + 10
            while row.epoch == stop and not any((store / "cache").rglob("[!.]*.npz")):
                assert time.monotonic() < deadline
            if row.epoch == stop:
                raise error("the disk is full")

        monkeypatch.setattr(TrainProgress, "on_epoch", on_epoch)
        return stage.train(splits, plan or tiny_plan(), store / "model", device="cpu", **more)

    return run


def runs():
    client = connect()
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    return {run.info.run_id: run for run in found}


def kept(store):
    return list((store / "cache" / "checkpoints").glob("*"))


def test_what_was_interrupted_goes_on_in_its_run(train, store, capfd):
    with pytest.raises(Stopped):
        train(stop=3)
    (before,) = runs().values()
    assert before.info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt):
        train(stop=5, error=KeyboardInterrupt)
    assert runs()[before.info.run_id].info.status == "KILLED"
    trained = train()
    (run,) = runs().values()
    assert trained.run.run_id == run.info.run_id == before.info.run_id
    assert trained.run.resumed == 2
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert "FAILED: the disk is full; resumed" in run.data.tags["interruption.1"]
    assert "KILLED" in run.data.tags["interruption.2"]
    first, second = Provenance.load(trained.provenance).interruptions
    assert first.epoch <= 3 < second.epoch <= 5
    assert f"goes on after epoch {second.epoch} of 8" in capfd.readouterr().err
    history = connect().get_metric_history(run.info.run_id, "val_loss")
    assert sorted(row.step for row in history) == list(range(1, 9))
    assert len(run.inputs.dataset_inputs) == 1
    assert kept(store) == []


def test_a_run_that_is_gone_is_said_and_a_new_one_has_all_epochs(train, capfd):
    with pytest.raises(Stopped):
        train(stop=3)
    (first,) = runs()
    assert look_up(first, public_store()).gone is None
    assert "is in sqlite:///other" in str(look_up(first, "sqlite:///other.db").gone)
    connect().delete_run(first)
    trained = train()
    assert trained.run.run_id != first
    assert trained.run.resumed == 1
    assert f"in a new MLflow run: run {first}, in which it began, was deleted" in (
        capfd.readouterr().err
    )
    history = connect().get_metric_history(trained.run.run_id, "loss")
    assert sorted(row.step for row in history) == list(range(1, 9))


def test_who_wants_no_resume_begins_anew_and_what_went_wrong_by_itself_is_over(train, store):
    with pytest.raises(Stopped):
        train(stop=4)
    (first,) = runs()
    with pytest.raises(TrainingError):
        train(stop=2, error=TrainingError, resume=False)
    (second,) = runs().keys() - {first}
    assert len(connect().get_metric_history(second, "loss")) == 1
    assert kept(store) == []


def test_a_model_that_was_not_saved_needs_no_epoch_again(train, monkeypatch):
    def fails(*_):
        raise Stopped("no space left, or an epoch that was trained again")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_save", fails)
        with pytest.raises(Stopped):
            train()
    monkeypatch.setattr("pipeline.training.engine._Epochs._epoch", fails)
    assert train().run.epochs == 8
    (run,) = runs().values()
    assert run.info.status == "FINISHED"


def test_another_recipe_data_or_code_has_another_key():
    made = describe(tiny_plan().recipe, deterministic=False, device="cpu: x", hardware={})

    def described(**changes):
        return made.model_copy(update=changes)

    sources = {**made.sources, "pipeline/training/engine.py": "0" * 32}
    packages = {**made.environment.packages, "keras": "2.0"}
    other = made.environment.model_copy(update={"packages": packages})
    keys = [
        key(tiny_plan(), "md5", made),
        key(tiny_plan(seed=1), "md5", made),
        key(tiny_plan(batch_size=16), "md5", made),
        key(tiny_plan(), "md5 of other data", made),
        key(tiny_plan(), "md5", described(device="gpu: y")),
        key(tiny_plan(), "md5", described(deterministic=True)),
        key(tiny_plan(), "md5", described(sources=sources)),
        key(tiny_plan(), "md5", described(environment=other)),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key(tiny_plan(), "md5", made)
