"""The devices of TensorFlow; `device_jax` has the same functions for JAX."""

from contextlib import suppress
from typing import Any

import tensorflow as tf

NAME = "TensorFlow"


def gpus() -> list[Any]:
    """List the GPUs."""
    return list(tf.config.list_physical_devices("GPU"))


def use(chosen: list[Any]) -> None:
    """Use the chosen GPU, or none.

    Raises:
        RuntimeError: something was computed already on another device.
    """
    # Without memory growth TensorFlow takes all memory of a GPU at once.
    for gpu in chosen:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.set_visible_devices(chosen, "GPU")


def used() -> list[Any]:
    """List the GPUs in use."""
    return list(tf.config.get_visible_devices("GPU"))


def name_of(gpu: Any) -> str:
    """Return the name of its model."""
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))


def capability_of(gpu: Any) -> tuple[int, int] | None:
    """Return its compute capability, where it has one."""
    found: tuple[int, int] | None = tf.config.experimental.get_device_details(gpu).get(
        "compute_capability"
    )
    return found


def libraries() -> dict[str, Any]:
    """Return the versions of the GPU's libraries."""
    built = tf.sysconfig.get_build_info()
    return {"cuda": built.get("cuda_version"), "cudnn": built.get("cudnn_version")}


def threads() -> int:
    """Return the threads per operation; 0 means one per core."""
    return int(tf.config.threading.get_intra_op_parallelism_threads())


def use_one_thread() -> None:
    """Compute each operation in one thread; two operations may still run in parallel."""
    # TensorFlow refuses to change this after the first computation.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


def make_deterministic() -> None:
    """Make equal seeds give equal weights; the seed must have been set."""
    tf.config.experimental.enable_op_determinism()
