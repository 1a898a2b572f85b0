"""The device that trains: taken as found, described, or refused."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from pipeline.errors import TrainingError


@dataclass(frozen=True)
class Device:
    """What computes: `cpu` or `gpu`, its name, and how many CPU threads serve it."""

    kind: Literal["cpu", "gpu"]
    name: str
    threads: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}, {self.threads} threads"


def gpus() -> list[Any]:
    """List the GPUs that TensorFlow finds."""
    return list(tf.config.list_physical_devices("GPU"))


def choose(wanted: Literal["auto", "cpu", "gpu"]) -> Device:
    """Set TensorFlow to the wanted device; call it before anything is built.

    Args:
        wanted: `auto` takes a GPU where there is one.

    Raises:
        TrainingError: a GPU is wanted and there is none, or TensorFlow already runs on another.
    """
    found = gpus()
    if wanted == "gpu" and not found:
        raise TrainingError(
            "device is gpu, but TensorFlow finds no GPU here; allowed: device: cpu or auto"
        )
    used = [] if wanted == "cpu" else found
    try:
        # Without growth TensorFlow takes all of a GPU's memory at once.
        for gpu in used:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.set_visible_devices(used, "GPU")
    except RuntimeError as error:
        raise TrainingError(f"device {wanted} must be chosen before training: {error}") from error
    if not used:
        return Device("cpu", _cpu_name(), _threads())
    details = tf.config.experimental.get_device_details(used[0])
    return Device("gpu", str(details.get("device_name", used[0].name)), _threads())


def make_deterministic(seed: int) -> None:
    """Let equal seeds give equal weights on CPU; it cannot be undone in this process."""
    # TensorFlow refuses to be deterministic before it has been given a seed.
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _threads() -> int:
    """Return TensorFlow's threads per operation: 0 there means every core it may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return int(tf.config.threading.get_intra_op_parallelism_threads()) or cores


def _cpu_name() -> str:
    """Return the CPU's model name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else "CPU"
