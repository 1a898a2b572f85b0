"""What made a model: the commit, the libraries and the hardware."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil

import pipeline
from pipeline.artifacts.files import dvc_md5
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.models.recipes import Recipe
from pipeline.tracking.provenance import Environment, Provenance
from pipeline.tracking.working_tree import git_code

LIBRARIES = ("tensorflow", "keras", "numpy", "pandas", "pillow", "mlflow")
# What `registry.served_model` imports, and no more: a server needs no TensorFlow.
SERVING = ("ai-edge-litert", "mlflow", "numpy", "pandas", "pillow", "pydantic")
# Set by a scheduler that starts the pipeline.
FLOW_RUN_ID, FLOW_RUN_URL = "FLOW_RUN_ID", "FLOW_RUN_URL"
# The code that trains a model, in the package `pipeline`: what `train` depends on in dvc.yaml.
PACKAGES = ("artifacts", "models", "sources", "tracking", "training")
MODULES = ("errors.py", "parallel.py", "redaction.py")


def describe(
    recipe: Recipe, *, deterministic: bool, device: str, hardware: Mapping[str, Any]
) -> Provenance:
    """Describe what is about to train, in the working directory.

    Args:
        recipe: with its seed filled in.
        deterministic: whether it trains so that equal seeds give equal weights.
        device: its name.
        hardware: what is known about the device.
    """
    return Provenance(
        code=git_code(),
        environment=environment(hardware),
        params_yaml=PARAMS_FILE.read_text() if PARAMS_FILE.exists() else "",
        recipe=recipe,
        seed=recipe.seed or 0,
        deterministic=deterministic,
        device=device,
        flow_run=flow_run(),
        sources=source_files(),
        weights=recipe.weights,
    )


def source_files() -> dict[str, str]:
    """Return the md5 of each source file that can train, by its path in the repository."""
    here = Path(pipeline.__file__).parent
    files = [here / name for name in MODULES]
    files += [file for name in PACKAGES for file in (here / name).rglob("*.py")]
    return {file.relative_to(here.parent).as_posix(): dvc_md5(file) for file in sorted(files)}


def used(provenance: Provenance) -> Provenance:
    """Keep only the source files that this process has imported: those that trained.

    Args:
        provenance: described before training, so that its md5s are of the code that runs.
    """
    kept = {
        path: md5
        for path, md5 in provenance.sources.items()
        if path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in sys.modules
    }
    return provenance.model_copy(update={"sources": kept})


def flow_run() -> dict[str, str]:
    """Return the id and the page of the flow run that this process works for, if any."""
    names = {"flow_run_id": FLOW_RUN_ID, "flow_run_url": FLOW_RUN_URL}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def serving_requirements() -> list[str]:
    """Return the exact versions of the libraries that a registered model needs to answer."""
    return [f"{name}=={version(name)}" for name in SERVING]


def environment(hardware: Mapping[str, Any] | None = None) -> Environment:
    """Describe the software and the hardware of this process.

    Args:
        hardware: what else is known; None values are left out.
    """
    known = {
        "cpu": cpu_name(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        **(hardware or {}),
    }
    packages = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages=dict(sorted(packages.items())),
        hardware={key: str(value) for key, value in known.items() if value is not None},
    )


def cpu_name() -> str:
    """Return the CPU's model name, where Linux has it."""
    return next(iter(_of_cpu("model name")), "CPU")


def cpu_flags() -> frozenset[str]:
    """Return the names of the CPU's instruction sets, where Linux has them."""
    return frozenset(" ".join((*_of_cpu("flags"), *_of_cpu("Features"))).split())


def _of_cpu(field: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(field)]
