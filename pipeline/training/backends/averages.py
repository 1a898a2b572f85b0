"""The moving averages of weights, on any backend."""

from typing import Any

import keras


def new_share(ema: float, steps: Any) -> Any:
    """Return how much of the weights goes into their moving averages after so many steps.

    At first it is more than the recipe says, or the averages would be of untrained weights.
    """
    done = keras.ops.cast(steps, "float32")
    return 1.0 - keras.ops.minimum(ema, (1.0 + done) / (10.0 + done))
