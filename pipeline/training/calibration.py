"""Temperature scaling (Guo et al., 2017): confidence as high as the accuracy on validation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import chi2

from pipeline.artifacts.datasets import Images, Labels, Vectors
from pipeline.models.calibration import calibration_error
from pipeline.models.parts import core
from pipeline.models.recipes import OUTPUT_LAYER, VIEWS_LAYER
from pipeline.training.backends.sums import images_per_forward

LOWEST, HIGHEST = 0.05, 20.0
# Twice the gain in log-likelihood that chance alone exceeds in 5% of splits (Wilks, 1938).
CHANCE = float(chi2.ppf(0.95, df=1))
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """How well the probabilities fit the validation split: both are lower where they do better.

    Attributes:
        loss: the mean cross-entropy, in nats.
    """

    calibration_error: float
    loss: float


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling did.

    Attributes:
        temperature: by which the inputs of the softmax are divided now; 1 where none was found
            that fits better by more than chance.
        before: with the weights that training found.
        after: with the temperature.
    """

    temperature: float
    before: Fit
    after: Fit

    @property
    def metrics(self) -> dict[str, float]:
        """What MLflow and `run.json` say of it."""
        return {
            "temperature": self.temperature,
            "val_calibration_error_before": self.before.calibration_error,
            "val_calibration_error": self.after.calibration_error,
            "val_cross_entropy_before": self.before.loss,
            "val_cross_entropy": self.after.loss,
        }


def calibrate(model: keras.Model, x_val: Images | Vectors, y_val: Labels) -> Calibration:
    """Fit one temperature on the validation split, and divide the softmax layer's weights by it.

    No image gets another class by it. With test-time augmentation the average over the views is
    fitted, as that is what is served; where views disagree, its class may change.

    Args:
        model: trained; it keeps its layers, and only its softmax layer gets other weights.
        x_val: `uint8` images (n, height, width, channels), n at least 1; or their features, where
            the model is the head alone.
        y_val: (n,) labels.
    """
    y = np.asarray(y_val)
    logits = _logits(model, x_val)
    before = _fit(_log_probabilities(logits, 1.0), y)
    temperature = _best_temperature(logits, y)
    after = _fit(_log_probabilities(logits, temperature), y)
    if not 2 * len(y) * (before.loss - after.loss) > CHANCE:
        return Calibration(1.0, before, before)
    for weight in core(model).get_layer(OUTPUT_LAYER).trainable_weights:
        weight.assign(weight / temperature)
    return Calibration(temperature, before, after)


def _best_temperature(logits: Floats, y: Labels) -> float:
    """Return the temperature of the lowest cross-entropy, as if one more image had been wrong.

    Without that image a split on which every answer is right would fit best at temperature 0, with
    every answer certain.
    """

    def objective(log_temperature: float) -> float:
        log_p = _log_probabilities(logits, float(np.exp(log_temperature)))
        # The confidence of all images together, in the logarithm so that 1 - 1e-20 is not 1.
        doubt = np.delete(np.sort(np.exp(log_p), axis=1), -1, axis=1).sum(axis=1).mean()
        return float(_losses(log_p, y).sum() - np.log(max(doubt, 1e-300)))

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(objective, bounds=bounds, method="bounded").x))


def _log_probabilities(logits: Floats, temperature: float) -> Floats:
    """Return the log of the mean over the views: (n, num_classes).

    Args:
        logits: (views, n, num_classes).
        temperature: divides them.
    """
    by_view = log_softmax(logits / temperature, axis=2)
    mean: Floats = np.logaddexp.reduce(by_view, axis=0) - np.log(len(logits))
    return mean


def _losses(log_p: Floats, y: Labels) -> Floats:
    losses: Floats = -log_p[np.arange(len(y)), y]
    return losses


def _fit(log_p: Floats, y: Labels) -> Fit:
    right = log_p.argmax(axis=1) == y
    error = calibration_error(np.exp(log_p.max(axis=1)).clip(max=1), right)
    return Fit(error, float(_losses(log_p, y).mean()))


def _logits(model: keras.Model, images: Images | Vectors) -> Floats:
    """Return the inputs of the softmax for each view of the images: (views, n, num_classes)."""
    layer, single = core(model).get_layer(OUTPUT_LAYER), core(model) is model
    outputs = list(model.outputs) if single else model.get_layer(VIEWS_LAYER).input
    with _without_softmax(layer):
        forward = keras.Model(model.inputs, outputs)
        shape = (len(outputs), -1, model.output_shape[-1])
        step = images_per_forward(images.shape[1:])
        answers = [
            # A list only where there are several views.
            np.reshape(forward.predict_on_batch(np.asarray(images[start : start + step])), shape)
            for start in range(0, len(images), step)
        ]
    return np.concatenate(answers, axis=1).astype(np.float64)


@contextmanager
def _without_softmax(layer: keras.layers.Dense) -> Iterator[None]:
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation
