"""Write docs/benchmarks.md from what was measured: the end of `make bench`."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import accuracy_report, prediction, speed, whole
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
    ]
    lines = [
        HEAD.format(machines="; ".join(machines), versions="; ".join(sorted(versions)), **best)
    ]
    for title, text, table in parts:
        lines += [f"## {title}\n", f"{text}\n", f"{table()}\n"]
    with atomic(PAGE) as part:
        part.write_text("\n".join(lines))


HEAD = """# Benchmarks

`make bench` measures all of this anew and writes this page; the single runs are the JSON lines in
`benchmarks/`. It takes hours, most of them for `model.fit`. Delete lines to measure them again.

Measured on {machines}. A large matrix product reaches {float32:.0f} GFLOP/s there in `float32` and
{bfloat16:.0f} in `bfloat16`. Both sides of a ratio ran in turn, each in a process of its own.

With {versions}.
"""
ENGINE = """Same arrays, architecture, optimizer, batch size, number of images and epochs. `bare` is
`benchmarks/bare.py`: Keras layers, `float32` arrays, `model.fit` by default, which imports nothing
of this project. Seconds per epoch are the median after the first, validation included. The first
step is the time to the second one, compiling included. `p` is Welch's test of the accuracies over
the seeds: from 0.05 on, their difference is one that seeds make by themselves. The engine trains
the convolutional recipes in `bfloat16`, as `params.yaml` says. Asked of the memory is what
importing TensorFlow takes, twice the arrays, and the model. *Streamed* is the engine when the
arrays do not fit into memory and are read chunk by chunk, as a share of its speed when they do."""
WHOLE = """Both sides train as many epochs. The scripts do nothing else; the pipeline also reads the
raw files, validates, splits, evaluates, draws, exports and registers. Most of the rest are imports
as well: of MLflow in five stages, of Great Expectations in one."""
PREDICTION = """`pipeline predict` of one image from the start of the process, and the same model
asked again and again in one process."""
ACCURACY = """On the test split, which no recipe has seen. Seconds are the mean from the raw files
to the trained model: data preparation, TensorFlow's start, compiling and training."""


if __name__ == "__main__":
    main()
