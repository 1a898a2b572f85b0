"""The parts of `benchmarks/device.sh` that train on the engine, or with `model.fit`."""

import re
import statistics
import time
from collections import Counter
from itertools import product
from typing import Any

import numpy as np

from benchmarks.device_results import STARTED, say
from benchmarks.packed import CIFAR10, DATA, LIMIT, Arrays, load

TUTORIAL_EPOCHS, WIDE_EPOCHS, WIDE_BATCH = 3, 8, 1000
STEPS_TO_PROFILE = 20


def recipe_of(name: str) -> Any:
    """Return `fast` of CIFAR-10, or `wide`: the layers of `best`, trained like airbench94.

    `wide2000` has batches of 2000.
    """
    from pipeline.params.params import load_params

    params = load_params()
    if not name.startswith("wide"):
        return _shortened(params.recipe("cifar10", name))
    raw = params.recipe("cifar10", "best").model_dump(mode="json", exclude_none=True)
    raw |= {"epochs": WIDE_EPOCHS, "batch_size": int(name[4:] or WIDE_BATCH)}
    raw["augmentation"] = {"flip": "alternating", "crop": 2}
    return _shortened(type(params.recipe("cifar10", "best")).model_validate(raw))


def _shortened(recipe: Any) -> Any:
    """Return the recipe, or a narrow one with one epoch and small batches for a rehearsal."""
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
    """Train once, and return the measurements."""
    import jax

    from pipeline.models.build import build
    from pipeline.training import engine as training

    if LIMIT:  # with so few images some class may never be predicted
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


def tutorial(side: str, name: str, first: str = "0", last: str = "0", step: str = "1") -> None:
    """Train some epochs of a tutorial's recipe.

    Args:
        side: `engine`, or `bare` for plain `model.fit`.
        name: dataset and model.
        first: the first seed.
        last: the last one.
        step: from one seed to the next.
    """
    from pipeline.training.device import choose

    if side == "engine":
        choose("auto")  # once: it claims the GPU for this process
    train = _on_the_engine if side == "engine" else _bare
    for seed in range(int(first), int(last) + 1, int(step)):
        say("tutorial", recipe=name, side=side, seed=seed, **train(name, seed))


def _on_the_engine(name: str, seed: int) -> dict[str, Any]:
    from pipeline.params.params import load_params

    change = {"epochs": TUTORIAL_EPOCHS, "then": (), "keep": "last"}
    recipe = _shortened(load_params().recipe(*name.split(".")).model_copy(update=change))
    return _fit(recipe, load(name.split(".")[0]), seed)


def _bare(name: str, seed: int) -> dict[str, Any]:
    from benchmarks.bare import train

    epochs = 2 if LIMIT else TUTORIAL_EPOCHS
    return train(name, DATA / name.split(".")[0], epochs, seed, LIMIT)


def backbone() -> None:
    """Measure how many images a second MobileNetV2, of any weights, turns into features."""
    import jax
    import keras
    from jax import numpy as jnp

    images, rounds = (8, 2) if LIMIT else (512, 20)
    for precision, side in product(("float32", "mixed_bfloat16"), (160, 224)):
        keras.config.set_dtype_policy(precision)
        model = keras.applications.MobileNetV2(
            input_shape=(side, side, 3),
            alpha=0.35,
            include_top=False,
            weights=None,
            pooling="avg",
        )
        values = [[v.value for v in model.trainable_variables]]
        values.append([v.value for v in model.non_trainable_variables])

        @jax.jit  # type: ignore[untyped-decorator]
        def features(values: Any, x: Any, model: Any = model) -> Any:
            return model.stateless_call(*values, x.astype("float32") / 127.5 - 1, training=False)[0]

        x = jnp.zeros((images, side, side, 3), jnp.uint8) + jnp.arange(3, dtype=jnp.uint8)
        begin = time.perf_counter()
        features(values, x).block_until_ready()
        compiled = time.perf_counter()
        for _ in range(rounds):
            last = features(values, x)
        last.block_until_ready()
        pace = images * rounds / (time.perf_counter() - compiled)
        cold = compiled - begin
        say("backbone", side=side, precision=precision, images_per_second=pace, compile=cold)


def full(name: str) -> None:
    """Train a recipe to its end, with all of its phases."""
    from pipeline.params.params import load_params
    from pipeline.training.device import choose

    choose("auto")
    recipe = _shortened(load_params().recipe(*name.split(".")))
    say("full", recipe=name, **_fit(recipe, load(name.split(".")[0]), 0))


def profile() -> None:
    """List the kernels in which the steps of `wide` spend their time on the GPU."""
    import jax
    from jax.profiler import ProfileData

    from pipeline.models.build import build
    from pipeline.models.parts import core
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
    spent: Counter[str] = Counter()  # ms per step
    trace = ProfileData.from_file(str(max(folder.rglob("*.xplane.pb"))))
    for plane in trace.planes:
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            if line.name.startswith("Stream"):
                for event in line.events:
                    convolves = re.search("conv|fprop|dgrad|wgrad", event.name, re.IGNORECASE)
                    name = "convolution" if convolves else event.name
                    spent[name] += event.duration_ns / 1e6 / count
    say("profile", ms_per_step=sum(spent.values()), kernels=dict(spent.most_common(20)))
