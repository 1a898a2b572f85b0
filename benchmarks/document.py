"""Write docs/benchmarks.md from the measurements: the last step of `make bench`."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    accuracy_report,
    checkpoints,
    device_results,
    growth,
    prediction,
    speed,
    whole,
)
from pipeline.artifacts.files import atomic

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> None:
    """Write the page."""
    rows = speed.results()
    measured_on = [row["machine"] for row in rows]
    machines = sorted({f"{machine['cpu']}, {machine['cores']} cores" for machine in measured_on})
    versions = {
        ", ".join(
            f"{name} {version}"
            for name, version in [("Python", machine["python"]), *machine["packages"].items()]
        )
        for machine in (*measured_on, *accuracy_report.results())
    }
    peaks = [row["peak"] for row in rows]
    best = {kind: max(peak[kind] for peak in peaks) for kind in ("float32", "bfloat16")}
    parts: list[tuple[str, str, Callable[[], str]]] = [
        ("The engine against `model.fit`", ENGINE, speed.table),
        ("The whole pipeline against the scripts", WHOLE, whole.table),
        ("Prediction", PREDICTION, prediction.table),
        ("Accuracy of all recipes", ACCURACY, accuracy_report.table),
        ("A dataset that grows", GROWTH, growth.table),
        ("Checkpoints", CHECKPOINTS, checkpoints.table),
        ("On a GPU", GPU, device_results.table),
    ]
    lines = [
        HEAD.format(machines="; ".join(machines), versions="; ".join(sorted(versions)), **best)
    ]
    for title, text, table in parts:
        lines += [f"## {title}\n", f"{text}\n", f"{table()}\n"]
    with atomic(PAGE) as part:
        part.write_text("\n".join(lines))


HEAD = """# Benchmarks

`make bench` repeats these measurements and writes this page; each run is a JSON line in
`benchmarks/`. It takes hours, most of them for `model.fit`. Delete lines to measure them again.

Measured on {machines}. A large matrix product reaches {float32:.0f} GFLOP/s there in `float32` and
{bfloat16:.0f} in `bfloat16`. Both sides of a comparison ran in turn, each in its own process.

Versions: {versions}.
"""
CHECKPOINTS = """What a [checkpoint](training.md) costs, in CPU time: the training waits until the
state is copied, and a thread writes it while the next epoch trains. Where both would take more than
2% of the training, there are fewer checkpoints."""
ENGINE = """Arrays, architecture, optimizer, batch size, number of images and epochs are the same.
`bare` is `benchmarks/bare.py`: Keras layers, `float32` arrays and `model.fit`, and nothing of this
project. Seconds per epoch are the median after the first one, validation included. The first step
is the time until the second one starts, compilation included. `p` is the p-value of Welch's test of
the accuracies over the seeds: above 0.05 the difference is no larger than between seeds. The engine
trains the convolutional recipes in `bfloat16`, as set in `params.yaml`. The memory should stay
below TensorFlow's import, twice the arrays, and the model. *Streamed* is the speed of the engine
when the arrays do not fit into memory and are read chunk by chunk, relative to its usual speed."""
WHOLE = """Both sides train the same number of epochs. The scripts do nothing else; the pipeline
also reads the raw files, validates, splits, evaluates, draws, exports and registers. Most of the
rest is importing: MLflow in five stages, Great Expectations in one."""
PREDICTION = """`pipeline predict` of one image from the start of the process, and repeated
predictions of the same model within one process."""
GROWTH = """`python -m benchmarks.growth`: made-up JPEGs in ten folders, taken at 96x96. Each stage
is a process of its own, so it imports anew: some 4 seconds of each run, three of them for Great
Expectations. What DVC stores and pushes anew are the files of the outputs with another content than
any before. Training copies images from shards
into memory once, where one array was mapped: `python -m benchmarks.feeding`."""
ACCURACY = """On the test split, which is not used for training. Seconds are the mean time from the
raw files to the trained model: data preparation, TensorFlow's start, compilation and training."""

GPU = """Measured by `benchmarks/device.sh`, which takes what it needs to a machine with an NVIDIA
GPU, PyTorch and JAX, but no network. `wide` is `cifar10.best` trained like airbench94: 8 epochs in
batches of 1000. *Cold* compiles everything; *disk* finds the compilations that an earlier process
left; *warm* is a further training in one process. The fit compares gradients in `bfloat16` and
`float32` first: that took 4.5 s of each fit here and has since been cut to 128 images, which take
0.5 s. The tutorial recipes trained 3 epochs. airbench94 shared the GPU with other trainings at
first; its columns are training accuracy, accuracy without and with test-time augmentation, and
seconds."""


if __name__ == "__main__":
    main()
