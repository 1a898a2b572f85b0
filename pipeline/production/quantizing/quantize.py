"""quantize: a registered version -> one whose LiteRT file computes in whole numbers of 8 bits."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError, ParamsError
from pipeline.evaluation.intervals import classes, flat, intervals, robustness
from pipeline.evaluation.latency import Latency
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord, in_each_thread, read_checked
from pipeline.evaluation.metric import FileMetric, ModelFiles
from pipeline.evaluation.metrics import METRICS, scores
from pipeline.evaluation.paired import mcnemar
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.robustness.corrupted import corrupted
from pipeline.evaluation.robustness.slices import members, slices
from pipeline.images import decode
from pipeline.production.comparable import differing_classes, differing_images
from pipeline.production.quantizing import int8
from pipeline.registry import model_files, versions
from pipeline.registry.derive import derive
from pipeline.registry.passport import Example, Passport
from pipeline.registry.versions import DERIVED_FROM, Registered

COMMAND = "pipeline quantize"


@dataclass(frozen=True)
class Answers:
    """A LiteRT file and what it answers for the test split."""

    size: int
    latency: Latency
    predictions: Predictions


@dataclass(frozen=True)
class Quantized:
    """A version that was quantized, beside the one that it was made from."""

    version: Registered
    source: Registered
    before: Answers
    after: Answers

    @property
    def flips(self) -> int:
        """How many test images get another class."""
        return int((self.before.predictions.predicted != self.after.predictions.predicted).sum())

    @property
    def p_worse(self) -> float:
        """How likely it would lose that many images or more by chance (McNemar, one-sided)."""
        return mcnemar(self.after.predictions.right, self.before.predictions.right).p_better


def quantize(source: Registered, splits: Splits) -> Quantized:
    """Register a version with the LiteRT file of another one in whole numbers of 8 bits.

    Args:
        source: the version; its Keras model stays, and so does what callers give and get.
        splits: images of `train` show the ranges of activations; `test` is measured on.

    Returns:
        The new version, without an alias; the same again where it was made before.

    Raises:
        ParamsError: it is quantized already.
        ArtifactError: its files are not what was registered, it takes other images or knows other
            classes than those that are here, or it cannot be quantized.
        TrackingError: the store cannot be reached.
    """
    passport = model_files.read_passport(source)
    if (original := _quantized_from(source.name, passport)) is not None:
        raise ParamsError(
            f"{source.spec} is quantized already: it was made from version {original}"
        )
    trained, info = TrainedModel(model_files.fetch(source)), splits.info
    text = differing_images(trained.run, info)
    text = text or differing_classes(trained.run.class_names, info.class_names)
    if text or trained.run.class_names != info.class_names:
        raise ArtifactError(
            f"{source.spec} cannot be quantized with {splits.path}: {text or 'order of classes'}"
        )
    content = read_checked(trained)
    small = int8.quantize(content, splits.x("train"))
    model = LiteRTModel(small)
    before, after = _answers(LiteRTModel(content), content, splits), _answers(model, small, splits)
    difference = before.predictions.probabilities - after.predictions.probabilities
    record = LiteRTRecord(
        sha256=hashlib.sha256(small).hexdigest(),
        model_sha256=trained.run.model_sha256,
        images=len(difference),
        difference=float(np.abs(difference).max()),
    )
    if found := _made_before(source, record.sha256):
        return Quantized(found, source, before, after)
    by_slice = slices(after.predictions.right, members(splits))
    under = corrupted(in_each_thread(small), splits.x("test"), after.predictions)
    measured = {
        **scores(after.predictions),
        **flat(intervals(after.predictions)),
        **robustness(by_slice, under),
        **_litert_metrics(after, record),
    }
    # An interval that is not found again is none.
    kept = {k: v for k, v in passport.metrics.items() if not k.endswith(("_low", "_high"))}
    with TemporaryDirectory() as folder:
        made = TrainedModel(Path(folder))
        made.litert.write_bytes(small)
        record.save(made.litert_record)
        version = derive(
            source,
            f"{COMMAND} {source.spec}",
            {file.name: file for file in (made.litert, made.litert_record)},
            {
                "metrics": kept | measured,
                "classes": classes(after.predictions),
                "slices": by_slice.rows,
                "examples": _examples(passport, model),
            },
        )
    return Quantized(version, source, before, after)


def _quantized_from(name: str, passport: Passport) -> int | None:
    """Return the version that was quantized on the way to this one; None for none."""
    while made := passport.derived_from:
        if made.by.startswith(COMMAND):
            return made.version
        passport = model_files.read_passport(versions.find(f"{name}/{made.version}"))
    return None


def _made_before(source: Registered, sha256: str) -> Registered | None:
    """Return the version that has this LiteRT file already; latencies make no other version."""
    wanted = {DERIVED_FROM: str(source.version), "portable_sha256": sha256}
    there = versions.all_of(source.name)
    return next((v for v in there if wanted.items() <= v.tags.items()), None)


def _answers(model: LiteRTModel, content: bytes, splits: Splits) -> Answers:
    probabilities = model.probabilities(splits.x("test"))
    predictions = Predictions(splits.info.class_names, splits.y("test"), probabilities)
    return Answers(len(content), model.latency(), predictions)


def _litert_metrics(answers: Answers, record: LiteRTRecord) -> dict[str, float]:
    """Return the metrics of the LiteRT file; those of the Keras file stay as they are."""
    files = ModelFiles(
        keras=answers.latency,
        keras_bytes=0,
        litert=answers.latency,
        litert_bytes=answers.size,
        difference=record.difference,
    )
    return {
        metric.name: metric.measure(files)
        for metric in METRICS
        if isinstance(metric, FileMetric) and metric.name.startswith("portable_")
    }


def _examples(passport: Passport, model: LiteRTModel) -> tuple[Example, ...]:
    """Return the examples with what the model answers for them."""
    run, examples = passport.run, passport.examples
    files = (base64.b64decode(example.png) for example in examples)
    pixels = np.stack([decode(file, run.image_shape, run.fit) for file in files])
    return tuple(
        example.model_copy(update={"probabilities": tuple(map(float, row))})
        for example, row in zip(examples, model.probabilities(pixels), strict=True)
    )
