"""The rules that decide which model is registered and which goes into production: pure, no I/O."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.paired import mcnemar, paired_interval
from pipeline.production.decision import Check, Decision, answer, at_least, at_most
from pipeline.production.rules import Floors, Rules

CHALLENGER, PRODUCTION, PREVIOUS = "challenger", "production", "previous"
# What two ways of asking one model may differ by.
SAME = 1e-4


@dataclass(frozen=True)
class Contender:
    """One of the models of a run.

    Attributes:
        name: of the model in params.yaml.
        val_accuracy: on the validation split; it alone chooses.
    """

    name: str
    parameters: int
    val_accuracy: float


def best(contenders: Iterable[Contender]) -> Contender:
    """Choose on validation; between equals the smaller model, then the first by name."""
    return min(contenders, key=lambda c: (-c.val_accuracy, c.parameters, c.name))


@dataclass(frozen=True)
class Scored:
    """A version, asked now about the frozen test split.

    Attributes:
        right: (n,) whether each test image is classified correctly.
        recalls: by class name; only classes with test images.
        skill: equal for models that differ by chance alone; None where that is not known.
        test_md5: of the test split that it was evaluated on when it was made.
    """

    version: int
    right: NDArray[np.bool_]
    recalls: Mapping[str, float]
    skill: str | None
    test_md5: str | None

    @property
    def accuracy(self) -> float:
        """The share of test images that is classified correctly."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Candidate(Scored):
    """A version that asks to go into production.

    Attributes:
        calibration_error: on the test split, now.
        latency_p95_ms: of one image, when it was evaluated.
        size_mb: of the model file, in 10^6 bytes.
        missing: parts of its passport that are not known.
        apart: the most that the MLflow flavour differs by from the model file, asked now, and from
            what Keras said of the passport's examples.
        validated: whether the data that it was made from passed the checks.
        dirty: whether it was made by code that is in no commit.
    """

    calibration_error: float = 0.0
    latency_p95_ms: float = 0.0
    size_mb: float = 0.0
    missing: tuple[str, ...] = ()
    apart: float = 0.0
    validated: bool = True
    dirty: bool = False


@dataclass(frozen=True)
class Incumbent:
    """The version in production.

    Attributes:
        scored: None where it cannot be asked.
        reason: why not.
    """

    version: int
    scored: Scored | None = field(default=None)
    reason: str = ""


def decide(
    candidate: Candidate, incumbent: Incumbent | None, rules: Rules, test_md5: str
) -> Decision:
    """Ask everything that a version must answer before it goes into production.

    Args:
        candidate: scored on the test split.
        incumbent: scored on the same; None where nothing is in production.
        rules: from params.yaml.
        test_md5: of that test split.
    """
    checks = [*_floors(candidate, rules.floors), *_in_order(candidate, rules, test_md5)]
    if incumbent is not None:
        checks += _against(candidate, incumbent, rules)
    return Decision(
        candidate=candidate.version,
        incumbent=incumbent.version if incumbent else None,
        test_md5=test_md5,
        checks=tuple(checks),
    )


def _floors(candidate: Candidate, floors: Floors) -> list[Check]:
    """Ask whether a candidate is good enough, whatever is in production."""
    lowest = min(candidate.recalls, key=lambda name: (candidate.recalls[name], name))
    recall = candidate.recalls[lowest]
    most = [
        ("calibration_error", candidate.calibration_error, floors.calibration_error),
        ("latency_p95_ms", candidate.latency_p95_ms, floors.latency_p95_ms),
        ("size_mb", candidate.size_mb, floors.size_mb),
    ]
    return [
        at_least("accuracy", candidate.accuracy, floors.accuracy, "accuracy"),
        at_least("recall", recall, floors.recall, f"recall of {lowest}, the lowest,"),
        *(at_most(name, value, limit) for name, value, limit in most if limit is not None),
    ]


def _in_order(candidate: Candidate, rules: Rules, test_md5: str) -> list[Check]:
    """Ask whether a candidate is what it says, and whether all of it is known."""
    made_on = candidate.test_md5 or "unknown"
    return [
        answer(
            "test_set",
            made_on == test_md5,
            (made_on, test_md5),
            "evaluated on this test split",
            f"evaluated on a test split of md5 {made_on}; the one here has {test_md5}",
        ),
        answer(
            "lineage",
            not candidate.missing,
            (len(candidate.missing), 0),
            "the passport is complete",
            f"the passport lacks {', '.join(candidate.missing)}",
        ),
        answer(
            "loads",
            candidate.apart <= SAME,
            (candidate.apart if math.isfinite(candidate.apart) else "not finite", SAME),
            "the MLflow flavour says what the model file says, and what Keras said when evaluated",
            f"the MLflow flavour differs by {candidate.apart:.2g} from the model file or from what "
            f"Keras said when evaluated, allowed: {SAME:g}",
        ),
        answer(
            "validated",
            candidate.validated,
            (str(candidate.validated), "True"),
            "made from data that passed validation",
            "made from data that did not pass validation",
        ),
        answer(
            "clean",
            rules.allow_dirty or not candidate.dirty,
            ("dirty" if candidate.dirty else "clean", "any" if rules.allow_dirty else "clean"),
            "made by committed code" if not candidate.dirty else "uncommitted code is allowed",
            "made by code that is not committed: commit it and train again, or allow it with "
            "promotion.allow_dirty",
        ),
    ]


def _against(candidate: Candidate, incumbent: Incumbent, rules: Rules) -> list[Check]:
    """Hold a candidate against the version in production."""
    old = incumbent.scored
    if old is None:
        text = f"version {incumbent.version} cannot be scored again: {incumbent.reason}"
        return [answer("comparable", False, ("no", "yes"), "", text)]
    difference = candidate.accuracy - old.accuracy
    low, high = paired_interval(old.right, candidate.right, rules.confidence)
    pairs = mcnemar(old.right, candidate.right)
    seen = (
        f"accuracy {candidate.accuracy:.4f} against {old.accuracy:.4f} of version {old.version}, "
        f"{100 * rules.confidence:g}% interval of the difference {low:+.4f} to {high:+.4f}"
    )
    better = difference > 0 and pairs.p_better <= 1 - rules.confidence
    proof = (
        f"{pairs.only_b} test images are right where version {old.version} is wrong, "
        f"{pairs.only_a} the other way round: p = {pairs.p_better:.3g}"
    )
    same = candidate.skill is not None and candidate.skill == old.skill
    return [
        answer(
            "not_worse", low >= -rules.margin, (low, -rules.margin), seen, f"may be worse: {seen}"
        ),
        answer(
            "better",
            better or not rules.better,
            (pairs.p_better, 1 - rules.confidence if rules.better else 1.0),
            proof,
            f"not proven better: {proof}, asked: {1 - rules.confidence:.3g}",
        ),
        _class_losses(candidate, old, rules),
        answer(
            "not_a_reseed",
            not same,
            (candidate.skill or "unknown", f"not {old.skill}"),
            f"not made as version {old.version} was",
            f"the recipe, the data and the training code of version {old.version}: only chance "
            "makes the difference",
        ),
    ]


def _class_losses(candidate: Candidate, old: Scored, rules: Rules) -> Check:
    """Name the classes that lose more than they may."""
    losses = {name: old.recalls[name] - recall for name, recall in candidate.recalls.items()}
    allowed = {name: rules.allowances.get(name, rules.allowance) for name in losses}
    over = [name for name in losses if losses[name] > allowed[name] + 1e-12]
    worst = max(losses, key=lambda name: (losses[name] - allowed[name], name))
    text = ", ".join(f"{name} loses {losses[name]:.4f} of {allowed[name]:g}" for name in over)
    return answer(
        "classes",
        not over,
        (losses[worst], allowed[worst]),
        f"no class loses more recall than it may; nearest to it is {worst}: {losses[worst]:.4f}",
        f"recall: {text} allowed",
    )
