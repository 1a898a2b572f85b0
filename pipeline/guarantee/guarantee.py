"""The guarantee of a version: above which confidence it answers, and what is promised of that."""

from typing import Annotated

from pydantic import Field

from pipeline.artifacts.record import Frozen

Share = Annotated[float, Field(ge=0, le=1)]


class Guarantee(Frozen):
    """`guarantee` in the passport of a version that answers `unknown` where it may be wrong.

    Attributes:
        error: it answers wrongly on at most this share of all images like those it was calibrated
            on.
        confidence: the probability that this holds, over the draw of the calibration images.
        above: it answers where the probability of the best class is higher than this.
        turned: it answers where the cosine distance of the features to the nearest training image
            is not higher than this.
        far: likewise, the Mahalanobis distance to the mean of the training images.
        images: how many images it was calibrated on.
        answered: how many of them it answers.
        wrong: how many of them it answers wrongly.
        unlike: how many of them are not answered because they are unlike the training images.
        training_images: how many training images their features are compared with.
    """

    error: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    above: Share
    turned: float
    far: Annotated[float, Field(ge=0)]
    images: Annotated[int, Field(ge=1)]
    answered: int
    wrong: int
    unlike: int
    training_images: int

    @property
    def not_sure(self) -> int:
        """How many calibration images are not answered because the best class is too unlikely."""
        return self.images - self.answered - self.unlike

    @property
    def coverage(self) -> float:
        """The share of the calibration images that it answers."""
        return self.answered / self.images

    @property
    def sentence(self) -> str:
        """What is promised, in one line."""
        return (
            f"answers {self.coverage:.1%} of images, errs on at most {100 * self.error:.3g}% of "
            f"all images like the {self.images:,} it was calibrated on, with "
            f"{100 * self.confidence:.3g}% confidence"
        )
