"""The parts of `benchmarks/device.sh`: the engine on a GPU through JAX, as JSON lines.

    python -m benchmarks.device PART [ARGUMENT …]

BENCH_DATA is where arrays are kept, BENCH_RESULTS the file of JSON lines, and BENCH_LIMIT, for a
rehearsal, how many images are taken.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.packed import CIFAR10, DATA, LIMIT, Arrays, load, pack, prepare

STARTED = time.perf_counter()
RESULTS = Path(os.environ.get("BENCH_RESULTS", ".benchmarks/device.jsonl"))
TUTORIAL_EPOCHS, WIDE_EPOCHS, WIDE_BATCH = 3, 8, 1000
STEPS_TO_PROFILE = 20


def say(part: str, **row: Any) -> None:
    """Print a line of JSON, and add it to the results."""
    line = json.dumps({"part": part, **row})
    print(line, flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(line + "\n")


def check() -> None:
    """Import everything that any part needs, and say what this machine is."""
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


def recipe_of(name: str) -> Any:
    """Return `fast` of CIFAR-10, or `wide`: the layers of `best`, trained as airbench94 trains."""
    from pipeline.params.params import load_params

    params = load_params()
    if name != "wide":
        return _shortened(params.recipe("cifar10", name))
    raw = params.recipe("cifar10", "best").model_dump(mode="json", exclude_none=True)
    raw |= {"epochs": WIDE_EPOCHS, "batch_size": WIDE_BATCH}
    raw["augmentation"] = {"flip": "alternating", "crop": 2}
    return _shortened(type(params.recipe("cifar10", "best")).model_validate(raw))


def _shortened(recipe: Any) -> Any:
    """Return the recipe; for a rehearsal one epoch of a narrow one, in small batches, `float32`."""
    if not LIMIT:
        return recipe
    from pipeline.models.layers import layer_kind

    layers = (
        layer.model_copy(update={kind: 8})
        if (kind := layer_kind(layer)) in ("conv", "conv_block")
        and not getattr(layer, "whiten", False)
        else layer
        for layer in recipe.layers
    )
    change = {"epochs": 1, "batch_size": 32, "precision": "float32", "then": ()}
    return recipe.model_copy(update={**change, "layers": tuple(layers)})


def engine(name: str, how: str) -> None:
    """Train on CIFAR-10: `cold`, then from `disk` in the next process, `warm`, or four `seeds`."""
    from pipeline.models.build import multiplications
    from pipeline.training.device import choose

    data, recipe = load(CIFAR10), recipe_of(name)
    images = {
        split: np.concatenate([data[f"{split}_train"], data[f"{split}_val"]]) for split in "xy"
    }
    data |= {"x_train": images["x"], "y_train": images["y"]}
    data |= {"x_val": data["x_test"], "y_val": data["y_test"]}
    device, before = choose("auto"), time.perf_counter() - STARTED
    for seed in range({"warm": 4, "seeds": 4}.get(how, 1)):
        row = _fit(recipe, data, seed)
        if how == "warm" and seed == 0:
            continue
        flop = 6 * multiplications(recipe, data["x_train"].shape[1:]) * len(data["x_train"])
        row["tflops"] = flop / statistics.median(row["epochs"]) / 1e12
        say("engine", recipe=name, how=how, seed=seed, imports=before, device=str(device), **row)


def _fit(recipe: Any, data: Arrays, seed: int) -> dict[str, Any]:
    """Train once, and return what was measured."""
    import jax

    from pipeline.models.build import build
    from pipeline.training import engine as training

    if LIMIT:  # so few images teach too little for every class to be predicted
        setattr(training, "check_every_class_is_predicted", lambda *_: None)  # noqa: B010
    begin = time.perf_counter()
    model = build(recipe, data["x_train"].shape[1:], 10, seed)
    built = time.perf_counter()
    arrays = {name: data[name] for name in ("x_train", "y_train", "x_val", "y_val")}
    seen = training.Data(class_names=tuple("0123456789"), **arrays)
    history = training.fit(model, recipe, seen, seed=seed)
    fitted = time.perf_counter()
    answers = model.predict(data["x_test"], batch_size=500, verbose=0).argmax(axis=1)
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "build": built - begin,
        "fit": fitted - built,
        "epochs": [round(row.seconds, 3) for row in history.epochs],
        "test_accuracy": float((answers == data["y_test"]).mean()),
        "precision": history.precision,
        "agreement": history.agreement,
        "peak_gib": memory.get("peak_bytes_in_use", 0) / 2**30,
    }


def tutorial(name: str) -> None:
    """Train some epochs of a tutorial's recipe on the engine."""
    from pipeline.params.params import load_params
    from pipeline.training.device import choose

    choose("auto")
    change = {"epochs": TUTORIAL_EPOCHS, "then": (), "keep": "last"}
    recipe = _shortened(load_params().recipe(*name.split(".")).model_copy(update=change))
    say("tutorial", recipe=name, side="engine", **_fit(recipe, load(name.split(".")[0]), 0))


def bare(name: str) -> None:
    """Train the same with `model.fit`."""
    from benchmarks.bare import train

    epochs = 2 if LIMIT else TUTORIAL_EPOCHS
    row = train(name, DATA / name.split(".")[0], epochs, 0, LIMIT)
    say("tutorial", recipe=name, side="bare", **row)


def full(name: str) -> None:
    """Train a recipe to its end, with all of its phases."""
    from pipeline.params.params import load_params
    from pipeline.training.device import choose

    choose("auto")
    recipe = _shortened(load_params().recipe(*name.split(".")))
    say("full", recipe=name, **_fit(recipe, load(name.split(".")[0]), 0))


def profile() -> None:
    """Name the kernels in which steps of `wide` spend their time on the GPU."""
    import jax
    from jax.profiler import ProfileData

    from pipeline.models.build import build, core
    from pipeline.training.backends import steps_jax
    from pipeline.training.device import choose
    from pipeline.training.feed import order
    from pipeline.training.optimizers import optimizer_of
    from pipeline.training.twin import twin

    choose("auto")
    data, recipe = load(CIFAR10), recipe_of("wide")
    images, batch = len(data["x_train"]), recipe.batch_size
    model = twin(core(build(recipe, data["x_train"].shape[1:], 10, 0)), recipe.precision)
    optimizer = optimizer_of(recipe, images // batch, recipe.precision)
    optimizer.build(model.trainable_variables)
    run = steps_jax.compile_training(model, optimizer, recipe, recipe.augmentation, 0, 1)
    x, y = steps_jax.put(data["x_train"], data["y_train"])
    count = min(STEPS_TO_PROFILE, images // batch)
    rows, mirrored = order(0, 1, images, recipe.augmentation)
    rows, mirrored = np.resize(rows, (count, batch)), np.resize(mirrored, (count, batch))
    run(x, y, rows, mirrored)
    folder = DATA / "profile"
    with jax.profiler.trace(str(folder)):
        run(x, y, rows, mirrored)
    spent: Counter[str] = Counter()
    trace = ProfileData.from_file(str(max(folder.rglob("*.xplane.pb"))))
    for plane in trace.planes:
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            if line.name.startswith("Stream"):
                for event in line.events:
                    spent[event.name] += event.duration_ns / 1e6 / count
    say("profile", ms_per_step=sum(spent.values()), kernels=dict(spent.most_common(20)))


def tests() -> None:
    """Run the tests of the JAX backend, on this device."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "tests/test_jax.py"]
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
    command = [sys.executable, "anchor.py"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, cwd=folder)
    last = [line for line in done.stdout.splitlines() if "eval" in line or "Mean" in line]
    say("anchor", passed=done.returncode == 0, seconds=time.perf_counter() - STARTED, lines=last)


def table() -> None:
    """Print the results as tables in Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print("\n| recipe | how | build, s | fit, s | s/epoch | TFLOP/s | accuracy | in | cosine |")
    print("|---" * 9 + "|")
    for row in rows:
        if row["part"] in ("engine", "full"):
            pace, tflops = statistics.median(row["epochs"]), row.get("tflops", 0)
            print(
                f"| {row['recipe']} | {row.get('how', 'all epochs')}, seed {row.get('seed', 0)} "
                f"| {row['build']:.2f} | {row['fit']:.2f} | {pace:.3f} | {tflops:.0f} "
                f"| {row['test_accuracy']:.2%} | {row['precision']} | {row['agreement']} |"
            )
    sides = {(row["recipe"], row["side"]): row for row in rows if row["part"] == "tutorial"}
    print("\n| recipe | model.fit, s/epoch | engine, s/epoch | times faster |\n|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in sides):
        if (name, "bare") in sides and (name, "engine") in sides:
            slow, fast = (
                statistics.median(sides[name, side]["epochs"][1:] or sides[name, side]["epochs"])
                for side in ("bare", "engine")
            )
            print(f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |")


_ALL = (check, pack, prepare, roof, engine, tutorial, bare, full, profile, tests, anchor, table)
PARTS: dict[str, Callable[..., None]] = {part.__name__: part for part in _ALL}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"{__doc__}\nPART is one of: {', '.join(PARTS)}")
    PARTS[sys.argv[1]](*sys.argv[2:])
