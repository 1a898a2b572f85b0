"""The layer of a recipe that is a whole network with weights."""

import re
import sys
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from pipeline.models.backbones.backbones import BackboneKind, BackboneName, find
from pipeline.models.layer import Shape, SingleLayer

FEATURES = "features"  # the name of the Keras layer whose output they are
Trainable = Annotated[str, Field(pattern=r"^(none|all|last_[1-9]\d*)$")]


class Backbone(SingleLayer):
    """`{backbone: name, …}`: a network with weights, and the average of its features.

    It becomes many Keras layers: `backbones.build` makes them.

    Attributes:
        alpha: the width of the network, where there are several.
        trainable: which of its layers are trained: `none`, `all`, or `last_30` of Keras' layers.
    """

    keras_class: ClassVar[str] = "Functional"
    backbone: BackboneName
    alpha: float | None = None
    trainable: Trainable = "none"

    @model_validator(mode="after")
    def _is_known(self) -> "Backbone":
        find(self.backbone, self.alpha)
        return self

    @property
    def kind(self) -> BackboneKind:
        """The entry of `BACKBONES`."""
        return find(self.backbone, self.alpha)

    def settings(self) -> dict[str, Any]:
        """Return the architecture, its arguments, and how many layers are trained."""
        return {
            "architecture": self.kind.architecture,
            **self.kind.settings,
            "trained": trained_layers(self.trainable),
        }

    def multiplications(self, shape: Shape) -> int:
        """Return the multiplications, which grow with the number of pixels."""
        pixels, usual = shape[0] * shape[1], self.kind.side**2
        return self.kind.multiplications * pixels // usual

    def output_shape(self, shape: Shape) -> Shape:
        """Return a vector of the features."""
        return 1, 1, self.kind.features


def trained_layers(trainable: Trainable) -> int:
    """Return how many of the last layers are trained; more than there are for `all`."""
    return sys.maxsize if trainable == "all" else int(re.sub(r"\D", "", trainable) or 0)
