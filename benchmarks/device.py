"""The parts of `benchmarks/device.sh`: the engine on a GPU through JAX, as JSON lines.

    python -m benchmarks.device PART [ARGUMENT …]

BENCH_DATA is the folder of the arrays, BENCH_RESULTS the file of JSON lines, and BENCH_LIMIT, for a
rehearsal, the number of images.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.device_engine import backbone, engine, full, profile, tutorial
from benchmarks.device_results import STARTED, say, table
from benchmarks.packed import CIFAR10, DATA, LIMIT, load, pack, prepare


def check() -> None:
    """Import everything that a part needs, and describe this machine."""
    import h5py
    import jax
    import keras
    import sklearn

    for module in (
        "benchmarks.bare",
        "pipeline.training.engine",
        "pipeline.params.params",
        "pipeline.training.backends.steps_jax",
    ):
        import_module(module)
    libraries = {module.__name__: module.__version__ for module in (jax, keras, h5py, sklearn, np)}
    device = jax.devices()[0]
    say("check", device=device.device_kind, platform=device.platform, **libraries)


def roof() -> None:
    """Measure the fastest matrix product and the fastest copy."""
    import jax
    from jax import numpy as jnp

    size, rounds, found = 512 if LIMIT else 8192, 10, {}

    def seconds(run: Callable[[Any], Any], given: Any) -> float:
        compiled = jax.jit(run)
        compiled(given).block_until_ready()
        begin = time.perf_counter()
        for _ in range(rounds):
            last = compiled(given)
        last.block_until_ready()
        return (time.perf_counter() - begin) / rounds

    for kind in ("float32", "bfloat16"):
        matrix = jax.random.normal(jax.random.key(0), (size, size)).astype(kind)
        found[f"{kind}_tflops"] = 2 * size**3 / seconds(lambda a: a @ a, matrix) / 1e12
    bytes_copied = 2**20 if LIMIT else 2**30
    copied = seconds(lambda a: a + jnp.uint8(1), jnp.zeros(bytes_copied, jnp.uint8))
    say("roof", **found, copy_tb_s=2 * bytes_copied / copied / 1e12)


def tests() -> None:
    """Run the tests of the JAX backend, on this device."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "tests/training/test_jax.py"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout[-2000:])
    say("tests", passed=done.returncode == 0, last=done.stdout.strip().splitlines()[-1])


def anchor(script: str, runs: str = "5") -> None:
    """Run airbench94 on the same pixels, compiled by default and not with `max-autotune`."""
    import torch

    data, folder = load(CIFAR10), DATA / "anchor"
    (folder / "cifar10").mkdir(parents=True, exist_ok=True)
    both = [np.concatenate([data[f"{kind}_train"], data[f"{kind}_val"]]) for kind in "xy"]
    for name, (x, y) in {"train": both, "test": (data["x_test"], data["y_test"])}.items():
        content = {"images": torch.tensor(x), "labels": torch.tensor(y), "classes": list(range(10))}
        torch.save(content, folder / "cifar10" / f"{name}.pt")
    code = Path(script).read_text().replace("range(200)", f"range({runs})")
    code = code.replace('mode="max-autotune"', 'mode="default"')
    (folder / "anchor.py").write_text(code)
    command = [sys.executable, "-u", "anchor.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as running:
        for line in running.stdout or ():
            if "eval" in line or "Mean" in line:
                say("anchor", after=time.perf_counter() - STARTED, line=line.strip())


def results() -> None:
    """Print the results as tables."""
    print(table())


_ALL = (
    check,
    pack,
    prepare,
    roof,
    engine,
    tutorial,
    full,
    profile,
    backbone,
    tests,
    anchor,
    results,
)
PARTS: dict[str, Callable[..., None]] = {part.__name__: part for part in _ALL}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"{__doc__}\nPART is one of: {', '.join(PARTS)}")
    PARTS[sys.argv[1]](*sys.argv[2:])
