"""Versions with made-up predictions, as the gate scores them."""

import numpy as np

from pipeline.production.decision import Candidate, Case, Incumbent, Scored
from pipeline.production.scored_images import ScoredImages

MD5 = "a" * 32
CLASSES = ("cat", "dog")


def scored(right, version=1, ingredients="old", **more):
    """Score images of which the first half are cats."""
    right = np.asarray(right, bool)
    half = len(right) // 2
    recalls = dict(zip(CLASSES, (right[:half].mean(), right[half:].mean()), strict=True))
    return {
        "version": version,
        "right": right,
        "recalls": recalls,
        "ingredients": ingredients,
        "test_md5": MD5,
        "model_sha256": ingredients,
        "error": None,
        **more,
    }


def candidate(right, metrics=None, **more):
    """Return a candidate that passes whatever its accuracy allows."""
    found = scored(right, **{"version": 2, "ingredients": "new", **more})
    known = {"accuracy": found["right"].mean(), "recall": min(found["recalls"].values())}
    known |= {"calibration_error": 0.0, "latency_p95_ms": 1.0, "size_mb": 1.0}
    return Candidate(**found, metrics=known | (metrics or {}))


def incumbent(right, **more):
    """Return the version in production."""
    return Incumbent(1, Scored(**scored(right, **more)))


def rights(n, wrong):
    """Return n answers of which those are wrong."""
    out = np.ones(n, bool)
    out[list(wrong)] = False
    return out


def case(new, old=None, **images):
    """Put both before the gate; by default on all test images, of which neither has seen any."""
    count = len(new.right)
    known = {"test": count, "left": count, "seen": 0, "seen_by_incumbent": 0}
    known |= {"asked": 1, "fresh": count} if old and old.scored else {}
    return Case(new, old, MD5, ScoredImages(**known | images))
