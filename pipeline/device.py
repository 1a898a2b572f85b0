"""The device that trains: taken as found, described, or refused."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import keras
import pynvml
import tensorflow as tf

from pipeline.claim import claim, visible
from pipeline.errors import TrainingError
from pipeline.provenance import cpu_name


@dataclass(frozen=True)
class Device:
    """What computes: `cpu` or `gpu`, its name, and how many CPU threads serve it.

    Attributes:
        driver: version of the GPU's driver, where it tells.
        memory_gib: of the GPU, where its driver tells.
    """

    kind: Literal["cpu", "gpu"]
    name: str
    threads: int
    driver: str | None = None
    memory_gib: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}, {self.threads} threads"

    def hardware(self) -> dict[str, Any]:
        """Return what is known of a GPU and of what drives it; nothing of a CPU."""
        if self.kind == "cpu":
            return {}
        built = tf.sysconfig.get_build_info()
        return {
            "gpu": self.name,
            "gpu_driver": self.driver,
            "gpu_memory_gib": self.memory_gib,
            "cuda": built.get("cuda_version"),
            "cudnn": built.get("cudnn_version"),
        }


def gpus() -> list[Any]:
    """List the GPUs that TensorFlow finds."""
    return list(tf.config.list_physical_devices("GPU"))


def choose(wanted: Literal["auto", "cpu", "gpu"]) -> Device:
    """Set TensorFlow to the wanted device; call it before anything is built.

    A GPU is claimed until this process ends: no two trainings share one.

    Args:
        wanted: `auto` takes a GPU where there is one.

    Raises:
        TrainingError: a GPU is wanted and there is none, or none is free, or TensorFlow already
            runs on another.
    """
    found = require(wanted)
    names = visible(len(found))
    number = claim(names) if found else 0
    used = found[number : number + 1]
    try:
        # Without growth TensorFlow takes all of a GPU's memory at once.
        for gpu in used:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.set_visible_devices(used, "GPU")
    except RuntimeError as error:
        raise TrainingError(f"device {wanted} must be chosen before training: {error}") from error
    if not used:
        return Device("cpu", cpu_name(), _threads())
    return describe(used[0], names[number])


def require(wanted: Literal["auto", "cpu", "gpu"]) -> list[Any]:
    """Return the GPUs that may be used: none for `cpu`.

    Raises:
        TrainingError: a GPU is wanted and there is none.
    """
    found = [] if wanted == "cpu" else gpus()
    if wanted == "gpu" and not found:
        raise TrainingError(
            "device is gpu, but TensorFlow finds no GPU here; allowed: device: cpu or auto"
        )
    return found


def describe(gpu: Any, name: str) -> Device:
    """Return what TensorFlow and the driver tell of a GPU."""
    details = tf.config.experimental.get_device_details(gpu)
    driver, memory = None, None
    try:
        pynvml.nvmlInit()
        by_number = name.isdigit()
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(name))
            if by_number
            else pynvml.nvmlDeviceGetHandleByUUID(name)
        )
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        memory = round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 1)
    except pynvml.NVMLError:
        pass  # a GPU of another maker
    return Device("gpu", str(details.get("device_name", gpu.name)), _threads(), driver, memory)


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
