"""What an interrupted training goes on with: its checkpoint, and its MLflow run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import keras
from pydantic import TypeAdapter

from pipeline.artifacts.record import Frozen
from pipeline.errors import TrainingError
from pipeline.models.plan import ModelPlan
from pipeline.tracking.provenance import Interruption, Provenance
from pipeline.tracking.resumed import look_up, public_store, resumed_run, tags_of
from pipeline.tracking.run import Run
from pipeline.tracking.runs import new_run
from pipeline.training.checkpoints.files import key_of
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.history import Epoch

# The packages that compute weights.
_COMPUTING = ("jax", "jaxlib", "keras", "numpy", "scikit-learn", "tensorflow")


def key(plan: ModelPlan, data_md5: str, provenance: Provenance) -> str:
    """Return the key of the checkpoint, which names all that decides which model is made.

    Args:
        plan: the recipe and its seed.
        data_md5: of the splits.
        provenance: the code, the packages and the device.
    """
    packages = provenance.environment.packages
    return key_of(
        {
            "plan": plan.model_dump(mode="json"),
            "data": data_md5,
            "device": provenance.device,
            "deterministic": provenance.deterministic,
            "backend": keras.backend.backend(),
            "packages": {name: packages.get(name) for name in _COMPUTING},
            "sources": provenance.sources,
        }
    )


class Tracked(Frozen):
    """What a checkpoint says of its MLflow run.

    Attributes:
        store: its address, without a login.
        interruptions: the earlier ones.
    """

    run_id: str
    store: str
    interruptions: tuple[Interruption, ...] = ()


@contextmanager
def run_of(
    plan: ModelPlan, checkpoints: Checkpoints
) -> Iterator[tuple[Run, tuple[Interruption, ...]]]:
    """Open the run of a training: that of the checkpoint where the store still has it.

    Yields:
        The run, and all interruptions of the training.

    Raises:
        TrackingError: the store cannot be reached.
    """
    name = f"{plan.dataset} {plan.model}"
    interruptions: tuple[Interruption, ...] = ()
    opened = None
    if found := checkpoints.found:
        tracked = Tracked.model_validate(found.facts)
        left = look_up(tracked.run_id, tracked.store)
        this = left.interruption(found.snapshot.epoch, found.saved)
        interruptions = (*tracked.interruptions, this)
        place = f"in MLflow run {left.run_id}"
        if left.gone:
            place = f"in a new MLflow run: run {left.run_id}, in which it began, {left.gone}"
        else:
            opened = resumed_run(left.run_id)
        _say(f"{name}: goes on after epoch {this.epoch} of {plan.recipe.total_epochs}, {place}")
    with opened or new_run(plan.dataset, plan.model) as run:
        facts = Tracked(run_id=run.run_id, store=public_store(), interruptions=interruptions)
        checkpoints.note(facts.model_dump(mode="json"))
        run.log_tags(tags_of(interruptions))
        if found:
            rows = TypeAdapter(list[Epoch]).validate_python(found.snapshot.values["epochs"])
            for row in rows:
                log_epoch(run, row)
        yield run, interruptions


class EpochLog:
    """Logs epochs to a run once they are in a checkpoint.

    So a run that goes on has no value of an epoch that is trained again.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints) -> None:
        self.run, self.checkpoints = run, checkpoints
        self._held: list[tuple[Epoch, float]] = []

    def add(self, row: Epoch) -> None:
        """Take an epoch."""
        self._held.append((row, time.time()))
        self.send()

    def send(self) -> None:
        """Log what was saved meanwhile."""
        while self._held and self._held[0][0].epoch <= self.checkpoints.durable:
            row, at = self._held.pop(0)
            log_epoch(self.run, row, at)

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Log all the rest of a training that went wrong by itself: nobody goes on with it."""
        if kind is not None and issubclass(kind, TrainingError):
            self.checkpoints.durable = float("inf")
        self.send()


def log_epoch(run: Run, row: Epoch, at: float | None = None) -> None:
    """Log a row of the history to a run; `at` is when it was reached, in seconds since 1970."""
    values = asdict(row)
    run.log_metrics(values, step=values.pop("epoch"), at=at)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
