"""Versions in 8 bits: made from real ones, and asked about by the gate."""

import hashlib
import json

import numpy as np
import pytest

from pipeline.errors import ParamsError
from pipeline.evaluation.litert import LiteRTModel
from pipeline.production.audit import audit
from pipeline.production.quantizing.quantize import quantize
from pipeline.registry import model_files, versions
from tests.promotable import ask, files_of, here, run, two

__all__ = ["here", "two"]


def test_a_version_in_8_bits_answers_as_before_and_goes_into_production(two):
    ask(2, two)
    said = run("quantize", "tiny@production", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert (found["version"], found["from"]) == (3, 2)
    assert found["after"]["accuracy"] == found["before"]["accuracy"]
    assert found["flips"] == 0
    made = versions.find("tiny/3")
    before, after = files_of(2), files_of(3)
    content = (after / "model.tflite").read_bytes()
    assert made.tags["portable_sha256"] == hashlib.sha256(content).hexdigest()
    assert content != (before / "model.tflite").read_bytes()
    assert (after / "model.keras").read_bytes() == (before / "model.keras").read_bytes()
    probabilities = LiteRTModel(content).probabilities(two.splits.x("test"))
    assert probabilities.dtype == np.float32
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    passport = model_files.read_passport(made)
    assert passport.derived_from
    assert passport.derived_from.by == "pipeline quantize tiny/2"
    assert passport.metrics["portable_size_bytes"] == len(content)
    assert passport.metrics["corruption_accuracy"] > 0
    assert ask(3, two).action == "promoted"
    assert audit(["tiny"]) == []
    again = run("quantize", "tiny/2", "--json")
    assert json.loads(again.stdout)["version"] == 3, "the same is registered once"
    with pytest.raises(ParamsError, match="quantized already: it was made from version 2"):
        quantize(made, two.splits)


def test_a_bad_quantization_is_refused_with_the_classes_that_lost(two):
    ask(2, two)
    # Of images that are all alike, the activations have no range.
    splits = two.splits
    dark = np.zeros_like(np.asarray(splits.x("train")))
    splits.save_split("train", dark, splits.y("train"))
    said = run("quantize", "tiny@production")
    assert said.exit_code == 3, said.output
    assert "size " in said.stdout
    assert "test images get another class" in said.stdout
    text = " ".join(said.stdout.split())
    assert "recall: " in text
    assert " loses " in text
    assert versions.alias_holders("tiny")["production"] == 2
