import pytest

from pipeline.errors import TrainingError
from pipeline.training import device


def test_a_device_is_found_described_or_refused():
    found = device.choose("cpu")
    assert (found.kind, found.threads > 0, bool(found.name)) == ("cpu", True, True)
    assert str(found).startswith("cpu: ")
    if not device.gpus():
        assert device.choose("auto").kind == "cpu"
        with pytest.raises(TrainingError, match="device is gpu, but TensorFlow finds no GPU"):
            device.choose("gpu")
