"""The device that trains: chosen, described, or refused."""

from dataclasses import dataclass
from typing import Any, Literal

import keras
import pynvml

from pipeline.artifacts.record import DeviceChoice
from pipeline.errors import TrainingError
from pipeline.parallel import cores
from pipeline.tracking.describe import cpu_flags, cpu_name
from pipeline.training.claim import claim, visible


@dataclass(frozen=True)
class Device:
    """The device that trains.

    Attributes:
        kind: `cpu` or `gpu`.
        name: the model of the CPU or GPU.
        threads: the number of CPU threads per operation.
        driver: the version of the GPU's driver, if known.
        memory_gib: the GPU's memory, if known.
    """

    kind: Literal["cpu", "gpu"]
    name: str
    threads: int
    driver: str | None = None
    memory_gib: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}, {self.threads} threads"

    def hardware(self) -> dict[str, Any]:
        """Return what is known of a GPU, its driver and its libraries; of a CPU nothing."""
        if self.kind == "cpu":
            return {}
        return {
            "gpu": self.name,
            "gpu_driver": self.driver,
            "gpu_memory_gib": self.memory_gib,
            **_backend().libraries(),
        }


def _backend() -> Any:
    """Return the module for the devices of Keras' backend."""
    if keras.backend.backend() == "jax":
        from pipeline.training.backends import device_jax

        return device_jax
    from pipeline.training.backends import device_tensorflow

    return device_tensorflow


def gpus() -> list[Any]:
    """List the GPUs that Keras' backend finds."""
    found: list[Any] = _backend().gpus()
    return found


def choose(wanted: DeviceChoice, *, small_steps: bool = False) -> Device:
    """Make Keras' backend use a device; to be called before anything is built.

    A GPU is claimed until this process ends: no two trainings share one.

    Args:
        wanted: `auto` takes a GPU where there is one.
        small_steps: each operation gets one thread, as more would slow down small operations.

    Raises:
        TrainingError: a GPU is wanted and there is none, or none is free, or the backend already
            uses another device.
    """
    if small_steps:
        _backend().use_one_thread()
    found = require(wanted)
    names = visible(len(found))
    number = claim(names) if found else 0
    used = found[number : number + 1]
    try:
        _backend().use(used)
    except RuntimeError as error:
        raise TrainingError(f"device {wanted} must be chosen before training: {error}") from error
    if not used:
        return Device("cpu", cpu_name(), _threads())
    return describe(used[0], names[number])


def require(wanted: DeviceChoice) -> list[Any]:
    """Return the GPUs that may be used; for `cpu` there are none.

    Raises:
        TrainingError: a GPU is wanted and there is none.
    """
    found = [] if wanted == "cpu" else gpus()
    if wanted == "gpu" and not found:
        raise TrainingError(
            f"device is gpu, but {_backend().NAME} finds no GPU here; allowed: device: cpu or auto"
        )
    return found


def describe(gpu: Any, name: str) -> Device:
    """Describe a GPU as the backend and the driver know it."""
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
        pass  # not a GPU of NVIDIA
    return Device("gpu", _backend().name_of(gpu), _threads(), driver, memory)


def uses_gpu() -> bool:
    """Whether a GPU is in use."""
    return bool(_backend().used())


def computes_bfloat16() -> bool:
    """Whether the device in use has instructions for `bfloat16`."""
    if used := _backend().used():
        capability = _backend().capability_of(used[0])
        return capability is not None and capability >= (8, 0)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def make_deterministic(seed: int) -> None:
    """Make equal seeds give equal weights on CPU, for the rest of this process."""
    # TensorFlow refuses to be deterministic before it has been given a seed.
    keras.utils.set_random_seed(seed)
    _backend().make_deterministic()


def _threads() -> int:
    """Return how many threads compute an operation."""
    return _backend().threads() or cores()
