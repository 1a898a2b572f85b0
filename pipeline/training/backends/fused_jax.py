"""Keras' layers in a form that XLA computes faster; see also `fused_tensorflow`."""

from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import keras
from jax import numpy as jnp


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation that computes both moments in one pass over the images."""

    def _moments(self, inputs: Any, mask: Any) -> Any:
        if mask is not None:
            return super()._moments(inputs, mask)
        axes = tuple(range(inputs.ndim - 1))
        # A sum of squares loses precision if the mean is large: an estimate is subtracted first.
        shift = jax.lax.stop_gradient(self.moving_mean.value)
        centred = inputs - shift
        mean = jnp.mean(centred, axes)
        variance = jnp.mean(jnp.square(centred), axes) - jnp.square(mean)
        return mean + shift, jnp.maximum(variance, 0.0)


class MaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
    """Max pooling with windows that do not overlap.

    XLA computes the gradient by scattering, which is the slowest operation of a small network on a
    GPU. Here it is a comparison with the position of the largest value.
    """

    def call(self, inputs: Any) -> Any:
        """Pool images (n, height, width, channels)."""
        size, strides = self.pool_size, self.strides
        if size != strides or size[0] != size[1] or self.data_format != "channels_last":
            return super().call(inputs)
        return _largest(_whole_windows(inputs, size[0], self.padding), size[0])


def _whole_windows(images: Any, size: int, padding: str) -> Any:
    """Pad the images to whole windows, on both sides, or cut off the rest."""
    over = [side % size for side in images.shape[1:3]]
    if padding == "valid":
        height, width = (side - more for side, more in zip(images.shape[1:3], over, strict=True))
        return images[:, :height, :width]
    fill = [-more % size for more in over]
    sides = [(0, 0), *((more // 2, more - more // 2) for more in fill), (0, 0)]
    return jnp.pad(images, sides, constant_values=-jnp.inf) if any(fill) else images


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest(images: Any, size: int) -> Any:
    return reduce(jnp.maximum, _corners(images, size))


def _corners(images: Any, size: int) -> list[Any]:
    """Return, for each position in a window, the values there in all windows."""
    return [images[:, row::size, column::size] for row, column in product(range(size), repeat=2)]


def _forward(images: Any, size: int) -> Any:
    """Pool, and keep in a byte the position of the first largest value, as Keras does."""
    pooled, corners = _largest(images, size), _corners(images, size)
    first = jnp.full(pooled.shape, len(corners) - 1, jnp.uint8)
    for place, corner in reversed(list(enumerate(corners[:-1]))):
        first = jnp.where(corner == pooled, jnp.uint8(place), first)
    return pooled, first


def _backward(size: int, first: Any, upstream: Any) -> Any:
    """Give the gradient to that position."""
    images, height, width, channels = first.shape
    places = jnp.arange(size * size, dtype=jnp.uint8).reshape(1, 1, size, 1, size, 1)
    first, upstream = (each[:, :, None, :, None] for each in (first, upstream))
    spread = jnp.where(first == places, upstream, 0)
    return (spread.reshape(images, height * size, width * size, channels),)


_largest.defvjp(_forward, _backward)
