"""The softmax layer alone, trained on all images at once: logistic regression by L-BFGS.

Several strengths of its L2 penalty are tried, and each is a row of the history; the one with the
lowest loss on the validation split is kept. That split is not trained on afterwards, so what it
says of the model holds, as for any other recipe.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.artifacts.datasets import Images, Labels, Vectors
from pipeline.models.parts import core
from pipeline.models.recipes import Recipe
from pipeline.training.backends.sums import images_per_forward
from pipeline.training.engine import Data, check
from pipeline.training.history import Epoch, History
from pipeline.training.losses import weights_of
from pipeline.training.training_checks import check_every_class_is_predicted, check_finite

# From strong to weak: 30, 10, 3, 1, … 0.0003. Each begins where the one before ended.
STRENGTHS = tuple(float(f"{10**power * lead:g}") for power in range(1, -5, -1) for lead in (3, 1))
# After so many that are worse than the best one, no weaker one is tried.
WORSE_IN_A_ROW = 3
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]  # kernel (d, num_classes), bias


def fit_softmax(
    head: keras.Model,
    recipe: Recipe,
    data: Data,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train the softmax layer of a model in which nothing else is trained.

    Args:
        head: from what `data` holds to probabilities; its last layer gets the weights.
        recipe: its optimizer is `lbfgs`; `epochs` are the most iterations for each strength.
        data: images or features to train on, and to choose the strength with.
        on_epoch: called after each strength.

    Raises:
        TrainingError: the data do not fit the model, the loss is not finite, or the trained model
            never predicts a class.
    """
    check(data, head.input_shape[1:], head.inputs[0].dtype)
    x_train, x_val = (_vectors(head, images) for images in (data.x_train, data.x_val))
    mean, scale = _standard(x_train)
    x_train, x_val = (x_train - mean) / scale, (x_val - mean) / scale
    of_classes = weights_of(recipe.class_weights, data.y_train, data.class_names)
    of_images = None if of_classes is None else np.array(of_classes)[data.y_train]
    fit = _Fit(x_train, data.y_train, of_images, recipe.epochs)
    rows: list[Epoch] = []
    kept: tuple[Epoch, Weights] | None = None
    for number, l2 in enumerate(strengths(recipe), start=1):
        start = time.perf_counter()
        weights = fit(l2)
        loss, accuracy = _measured(x_train, data.y_train, weights)
        val_loss, val_accuracy = _measured(x_val, data.y_val, weights)
        check_finite(loss + val_loss, f"logistic regression with l2 {l2:g}", 0.0)
        seconds = time.perf_counter() - start
        rows.append(Epoch(number, loss, accuracy, val_loss, val_accuracy, 0.0, seconds))
        if kept is None or val_loss < kept[0].val_loss:
            kept = rows[-1], weights
        if on_epoch:
            on_epoch(rows[-1])
        if number - kept[0].epoch == WORSE_IN_A_ROW:
            break  # the weaker, the longer it takes, and the less it helps from here on
    assert kept is not None  # there is at least one strength
    row, (kernel, bias) = kept
    predicted = np.bincount((x_val @ kernel + bias).argmax(1), minlength=len(bias))
    check_every_class_is_predicted(predicted, data.y_val, data.class_names)
    # What is multiplied with standardised vectors is then multiplied with vectors.
    kernel = kernel / scale[:, None]
    core(head).layers[-1].set_weights([kernel, bias - mean @ kernel])
    return History(tuple(rows), row, strengths=strengths(recipe)[: len(rows)])


def strengths(recipe: Recipe) -> tuple[float, ...]:
    """Return the strengths of the penalty that may be tried: the one of the recipe, or all."""
    return STRENGTHS if recipe.optimizer.l2 is None else (recipe.optimizer.l2,)


def _vectors(head: keras.Model, images: Images | Vectors) -> Vectors:
    """Return what the softmax layer of a model takes."""
    layers = core(head).layers
    if len(layers) == 1:
        return np.asarray(images, np.float32)  # features already
    before = keras.Model(core(head).input, layers[-1].input)
    size = images_per_forward(images.shape[1:])
    found = [
        np.asarray(before.predict_on_batch(np.asarray(images[start : start + size])))
        for start in range(0, len(images), size)
    ]
    return np.concatenate(found)


def _standard(x: Vectors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each feature; 1 for one that is constant."""
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = x.std(axis=0, dtype=np.float64).astype(np.float32)
    # A feature that is zero but for rounding says nothing, and must not be made large.
    return mean, np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, np.float32(1))


class _Fit:
    """Fits for one strength after the other, each from the weights of the one before."""

    def __init__(
        self,
        x: Vectors,
        y: Labels,
        image_weights: NDArray[np.float64] | None,
        iterations: int,
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        self.x, self.y, self.image_weights = x, y, image_weights
        self.total = len(y) if image_weights is None else float(np.sum(image_weights))
        self.regression = LogisticRegression(max_iter=iterations, warm_start=True)

    def __call__(self, l2: float) -> Weights:
        """Minimise the mean loss and `l2` / 2 times the sum of the squares of the kernel."""
        # scikit-learn weighs the sum of the losses instead of the penalty.
        self.regression.C = 1 / (l2 * self.total)
        # Of two threads one waits, longer than these products take, as soon as a core is busy.
        with warnings.catch_warnings(), threadpool_limits(1, "blas"):
            # As many iterations as the recipe allows, which is no mistake.
            warnings.filterwarnings("ignore", message="lbfgs failed to converge")
            self.regression.fit(self.x, self.y, self.image_weights)
        kernel, bias = self.regression.coef_.T, self.regression.intercept_
        if kernel.shape[1] == 1:
            # Of two classes there is one score, half of it for and half of it against.
            kernel, bias = np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2
        return kernel.astype(np.float32), bias.astype(np.float32)


def _measured(x: Vectors, y: Labels, weights: Weights) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    from scipy.special import log_softmax

    scores: Any = x @ weights[0] + weights[1]
    losses = -log_softmax(scores, axis=1)[np.arange(len(y)), y]
    return float(losses.mean()), float((scores.argmax(1) == y).mean())
