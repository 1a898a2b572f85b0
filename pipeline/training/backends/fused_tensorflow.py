"""Keras' optimizers and layers on TensorFlow's faster kernels.

Keras computes each with about ten operations that read and write whole arrays; with small batches
the update of the weights takes up to half of a training step. The kernels compute the same formulas
in one pass, and keep their state in the same variables.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_RAW = tf.raw_ops
# A convolution becomes a matrix product only if the matrix has at most so many times its weights.
_MOST_COPIES = 4


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam without amsgrad."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, and its two moments."""
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        _RAW.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class AdamW(Adam, keras.optimizers.AdamW):  # type: ignore[misc]
    """Adam with weight decay, which Keras applies before the update."""


class RMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSprop that is not centered."""

    def build(self, variables: Any) -> None:
        """Create the state; the kernel needs a momentum variable even without momentum."""
        if not self.built:
            super().build(variables)
            if not self.momentum:
                self._momentums: Any = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, its mean square and its momentum."""
        index = self._get_variable_index(variable)
        _RAW.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=gradient,
        )


class SGD(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent, with and without momentum."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, and its momentum where there is one."""
        if not self.momentum:
            _RAW.ResourceApplyGradientDescent(
                var=variable.handle, alpha=learning_rate, delta=gradient
            )
            return
        _RAW.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation of images."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; while training, update the moving averages."""
        # A frozen layer keeps its moving averages, and uses them.
        if not training or not self.trainable or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = _RAW.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones_like(self.beta.value),
            offset=self.beta.value,
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the variance with n - 1; Keras averages the one with n.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance *= (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs


class MaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
    """Max pooling; after `relu_before_pooling` it also computes the gradient of the relu.

    Attributes:
        follows_relu: whether its input comes from `relu_before_pooling`.
    """

    follows_relu = False

    def call(self, inputs: Any) -> Any:
        """Pool images (n, height, width, channels)."""
        pooled = super().call(inputs)
        return _gradient_of_relu(pooled) if self.follows_relu else pooled


@tf.custom_gradient  # type: ignore[untyped-decorator]
def relu_before_pooling(inputs: Any) -> Any:
    """Relu that leaves its gradient to the pooling, which has a quarter of the values.

    No gradient flows where the largest value of a window is 0, nor to the other values.
    """
    return tf.nn.relu(inputs), lambda upstream: upstream


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _gradient_of_relu(pooled: Any) -> Any:
    return tf.identity(pooled), lambda upstream: _RAW.ReluGrad(gradients=upstream, features=pooled)


class Dropout(keras.layers.Dropout):  # type: ignore[misc]
    """Dropout that draws 16 random bits per value, instead of 32."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop some of the values while training, and scale up the others."""
        if not training or not self.rate:
            return inputs
        if self.noise_shape is not None:
            return super().call(inputs, training=training)
        dropped, count = round(self.rate * 2**16), tf.size(inputs)
        draws = tf.random.stateless_uniform(
            [(count + 1) // 2], self.seed_generator.next(), None, None, tf.uint32
        )
        bits = tf.reshape(tf.bitcast(draws, tf.uint16), [-1])[:count]
        kept = tf.cast(tf.reshape(bits, tf.shape(inputs)) >= dropped, inputs.dtype)
        return inputs * (kept * (2**16 / (2**16 - dropped)))


class MaxNorm(keras.constraints.MaxNorm):  # type: ignore[misc]
    """Max norm of the columns of a kernel; writes the kernel only if a column is longer."""

    def __call__(self, w: Any) -> Any:
        """Return the kernel with no column longer than allowed."""
        w = tf.convert_to_tensor(w)
        bound = super().__call__
        norms = _RAW.EuclideanNorm(input=w, axis=self.axis)
        return tf.cond(tf.reduce_any(norms > self.max_value), lambda: bound(w), lambda: w)


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution; on images of few pixels, as at the end of small networks, a matrix product.

    The kernels for convolutions take as long for few pixels as for many, and multiply the zeros of
    the padding too.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve images (n, height, width, channels)."""
        if self.groups > 1 or self.dilation_rate != (1, 1):
            return super().convolution_op(inputs, kernel)
        seen = [
            _seen(size, self.kernel_size[axis], self.strides[axis], self.padding)
            for axis, size in enumerate(inputs.shape[1:3])
        ]
        (rows_out, rows_in, _), (columns_out, columns_in, _) = (axis.shape for axis in seen)
        pixels_out, pixels_in = rows_out * columns_out, rows_in * columns_in
        taps = self.kernel_size[0] * self.kernel_size[1]
        if pixels_out * pixels_in > _MOST_COPIES * taps:
            return super().convolution_op(inputs, kernel)
        # Which tap connects which pair of pixels: none or one.
        leads = np.einsum("oit,puv->opiutv", *seen).reshape(-1, taps)
        blocks = tf.matmul(
            tf.constant(leads, kernel.dtype), tf.reshape(kernel, [taps, -1])
        )  # of the matrix, one for each pair of pixels
        blocks = tf.reshape(blocks, [pixels_out, pixels_in, -1, self.filters])
        matrix = tf.reshape(tf.transpose(blocks, [1, 2, 0, 3]), [-1, pixels_out * self.filters])
        outputs = tf.matmul(tf.reshape(inputs, [-1, matrix.shape[0]]), matrix)
        return tf.reshape(outputs, [-1, rows_out, columns_out, self.filters])


def _seen(size: int, taps: int, stride: int, padding: str) -> NDArray[np.float32]:
    """Return (outputs, inputs, taps) along one axis: 1 where a tap reads an input for an output."""
    outputs, before = (size - taps) // stride + 1, 0
    if padding == "same":
        outputs = -(-size // stride)
        before = max((outputs - 1) * stride + taps - size, 0) // 2
    to, at, tap = np.ogrid[:outputs, :size, :taps]
    seen: NDArray[np.float32] = (to * stride - before + tap == at).astype(np.float32)
    return seen
