import numpy as np
import pytest

from pipeline.artifacts.datasets import RawDataset
from pipeline.errors import ArtifactError
from pipeline.models.plan import ModelPlan


def test_arrays_come_back_memory_mapped(tmp_path):
    raw = RawDataset(tmp_path)
    raw.save_split("train", np.full((3, 4, 4, 1), 7, np.uint8), np.arange(3, dtype=np.uint8))
    assert isinstance(raw.x("train"), np.memmap)
    assert raw.x("train").dtype == np.uint8
    assert raw.y("train").dtype == np.int64
    assert raw.y("train").tolist() == [0, 1, 2]


def test_a_record_of_another_form_is_named(tmp_path):
    (tmp_path / "plan.json").write_text('{"dataset": "digits"}')
    with pytest.raises(ArtifactError, match=r"plan\.json is not a ModelPlan"):
        ModelPlan.load(tmp_path / "plan.json")
