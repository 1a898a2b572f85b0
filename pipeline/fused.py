"""Keras' optimizers and layers on TensorFlow's faster kernels.

Keras writes each as some ten operations that read and write whole arrays; at small batches the
update alone is up to half of a training step. The kernels compute the same formulas in one pass,
and keep their state in the same variables.
"""

from typing import Any

import keras
import tensorflow as tf

_UPDATE = tf.raw_ops


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam without amsgrad."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, and its two moments."""
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        _UPDATE.ResourceApplyAdam(
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
    """Adam, whose weights Keras lets decay before the update."""


class RMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSprop that is not centered."""

    def build(self, variables: Any) -> None:
        """Make the state; the kernel asks for a momentum even where there is none."""
        if not self.built:
            super().build(variables)
            if not self.momentum:
                self._momentums: Any = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, its mean square and its momentum."""
        index = self._get_variable_index(variable)
        _UPDATE.ResourceApplyRMSProp(
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
            _UPDATE.ResourceApplyGradientDescent(
                var=variable.handle, alpha=learning_rate, delta=gradient
            )
            return
        _UPDATE.ResourceApplyKerasMomentum(
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
        """Normalise, and move the averages while training."""
        if not training or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel gives the variance of the population; Keras averages that of the batch.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance *= (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution; of a single pixel, a matrix product.

    The last layers of a small network see images of one pixel. All of a padded kernel but its
    centre meets zeros there, which the convolution would multiply all the same.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve; images of one pixel with the part of the kernel that reaches them."""
        if tuple(inputs.shape[1:3]) != (1, 1):
            return super().convolution_op(inputs, kernel)
        # TensorFlow pads an even kernel by one pixel less before the image than after it.
        row, column = ((size - 1) // 2 for size in self.kernel_size)
        centre = tf.convert_to_tensor(kernel)[row, column]
        return tf.matmul(inputs[:, 0, 0], centre)[:, None, None]
