"""The schema of the random changes of training images."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.artifacts.record import Frozen
from pipeline.models.layer import FractionBelowOne

MOST_MAGNITUDE = 30  # of RandAugment: the last of 31 bins, as torchvision counts


class ColorJitter(Frozen):
    """Random changes of colours.

    Attributes:
        brightness: the largest change of the factor of all values: 0.4 is 0.6 to 1.4.
        contrast: the same for the distance to the mean brightness of the image.
        saturation: the same for the distance of colours to gray.
        hue: the largest turn of colours in either direction, as a fraction of a full turn.
    """

    brightness: FractionBelowOne = 0.0
    contrast: FractionBelowOne = 0.0
    saturation: FractionBelowOne = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class RandAugment(Frozen):
    """Operations that are drawn for each image from a list of fourteen.

    Attributes:
        num_ops: how many, one after the other; the same one may be drawn again.
        magnitude: how strong all of them are, from 0 to 30.
    """

    num_ops: Annotated[int, Field(ge=1, le=8)] = 2
    magnitude: Annotated[int, Field(ge=0, le=MOST_MAGNITUDE)] = 9


class Augmentation(Frozen):
    """Random changes of the training images, different for every image of every batch.

    Attributes:
        shift: largest move in either direction, as a fraction of the height and width.
        flip: mirror half of the images; `alternating` mirrors each image from left to right in
            every second epoch, so that it is seen both ways in any two.
        rotation: largest rotation in either direction, in degrees.
        zoom: largest enlargement or reduction, as a fraction.
        crop: width in pixels of a reflected border; a window of the old size is then cut out.
        rand_augment: operations drawn for each image; None draws none.
        cutout: side of a square that is blanked, as a fraction of the image's side.
        random_resized_crop: the least share of the image's area that is cut out, with sides in a
            ratio of 3:4 to 4:3 to those of the image, and enlarged to all of it; None cuts nothing.
        color_jitter: changes of brightness, contrast, saturation and hue.
        random_erasing: the probability that a rectangle of 2% to 33% of an image is blanked.
        mixup: alpha of the Beta distribution of how much of an image remains when it is mixed with
            another one of its batch; its label is mixed likewise. 0 mixes nothing.
        cutmix: alpha of the Beta distribution of how much of an image remains when a rectangle of
            it is replaced by that of another one of its batch; its label is mixed likewise. With
            `mixup` each image gets one of the two.
        fill: how pixels are filled that shift, rotation, zoom and `rand_augment` leave empty.
    """

    shift: FractionBelowOne = 0.0
    flip: Literal["none", "horizontal", "alternating", "vertical", "both"] = "none"
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: FractionBelowOne = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    rand_augment: RandAugment | None = None
    cutout: FractionBelowOne = 0.0
    random_resized_crop: Annotated[float, Field(gt=0, lt=1)] | None = None
    color_jitter: ColorJitter = ColorJitter()
    random_erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    fill: Literal["constant", "nearest", "reflect"] = "nearest"

    @property
    def mirrors(self) -> bool:
        """Whether images are mirrored from left to right."""
        return self.flip in ("horizontal", "alternating", "both")
