"""The devices of JAX; `device_tensorflow` has the same functions for TensorFlow."""

import hashlib
import os
from typing import Any

import jax
import jax.extend
from platformdirs import user_cache_path

from pipeline.tracking.describe import cpu_flags

NAME = "JAX"
# The most that compilations take on disk; those not used for the longest time are deleted first.
MOST_BYTES_KEPT = 2**30


def gpus() -> list[Any]:
    """List the GPUs."""
    try:
        return list(jax.devices("gpu"))
    except RuntimeError:
        return []  # this build of JAX has no support for GPUs


def use(chosen: list[Any]) -> None:
    """Use the chosen GPU, or none; keep compilations on disk for the next process."""
    jax.config.update("jax_default_device", chosen[0] if chosen else jax.devices("cpu")[0])
    if jax.config.jax_compilation_cache_dir:
        return  # set by the user
    # Code that was compiled for another CPU may not run on this one, which may share the folder.
    cpu = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:12]
    folder = user_cache_path("image-classification-pipeline") / "jax" / cpu
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES_KEPT)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def used() -> list[Any]:
    """List the GPUs that are computed on."""
    device = jax.config.jax_default_device or jax.devices()[0]
    return [device] if device.platform == "gpu" else []


def name_of(gpu: Any) -> str:
    """Return the name of its model."""
    return str(gpu.device_kind)


def capability_of(gpu: Any) -> tuple[int, int] | None:
    """Return its compute capability, where it has one."""
    major, _, minor = str(getattr(gpu, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major and minor else None


def libraries() -> dict[str, Any]:
    """Return the version of CUDA."""
    return {"cuda": jax.extend.backend.get_backend().platform_version}


def threads() -> int:
    """Return 0, which means one thread per core."""
    return 0


def use_one_thread() -> None:
    """Do nothing: XLA itself decides when a second thread is worth it."""


def make_deterministic() -> None:
    """Make equal seeds give equal weights; on CPU they do so anyway."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
