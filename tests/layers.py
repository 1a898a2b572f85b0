"""A layer of each kind, and others that differ in one key: for tests that walk all of them."""

from pydantic import ValidationError

from pipeline.models.layer import Layer
from pipeline.models.layers import BY_KIND

# Of every key of a layer, two of these are values.
VALUES = (
    *(2, 3, 16, 24, 0.25, 0.35, 0.5, "relu", "tanh", "same", "valid", True, False),
    *("efficientnet_lite0", "mobilenet_v2", "all", "last_2"),
)


def layers_with(kind, key):
    """Layers of one kind that say no more than they must, each with another value of one key."""
    found: dict[object, Layer] = {}
    for first in VALUES:
        for value in VALUES if key != kind else (first,):
            try:
                layer = BY_KIND[kind].model_validate({kind: first, key: value})
            except ValidationError:
                continue
            found.setdefault(value, layer)
    assert found, f"VALUES has no value of {key} of {kind}; add one"
    return list(found.values())


def smallest(kind):
    """A layer of a kind that says no more than it must."""
    return layers_with(kind, kind)[0]


def all_in_a_row():
    """A layer of each kind but a backbone, each fitting on the one before: vectors come last."""
    kinds = (kind for kind in BY_KIND if kind != "backbone")
    return sorted(map(smallest, kinds), key=ends_as_a_vector)


def ends_as_a_vector(layer):
    return layer.parts()[-1].output_shape((8, 8, 2))[:2] == (1, 1)
