"""The rules of the gate, as a list: what a version must answer before it goes into production.

To add a rule, add an entry to `RULES` and a row to docs/promotion.md; a threshold that it obeys is
a field of `Thresholds`. A metric gets a floor by its entry in `evaluation.metrics.METRICS`.

Every stage reads params.yaml and with it this file, so it imports nothing that is slow, and nothing
that would make a new metric run `resolve` again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.artifacts.record import Frozen

if TYPE_CHECKING:
    from pipeline.production.decision import Case

ZeroToOne = Annotated[float, Field(ge=0, le=1)]
# The most that two ways of asking one model may differ by.
MAX_DIFFERENCE = 1e-4


class Thresholds(Frozen):
    """`promotion` in params.yaml.

    Attributes:
        floors: what each metric must reach on the test split; null: anything.
        margin: the most that accuracy may be below that of the version in production; it is the
            lower end of the interval of the difference that counts.
        better: whether it must be better, with `confidence`; otherwise not being worse is enough.
        confidence: the confidence of the interval, and of the paired test.
        allowance: the most recall that a class may lose.
        allowances: the same of single classes, by name.
        allow_dirty: whether code may have made it that is in no commit.
        require_approval: whether a person has to agree.
    """

    floors: dict[str, Annotated[float, Field(ge=0)] | None] = Field(default_factory=dict)
    margin: ZeroToOne = 0.005
    better: bool = True
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    allowance: ZeroToOne = 0.05
    allowances: dict[str, ZeroToOne] = Field(default_factory=dict)
    allow_dirty: bool = False
    require_approval: bool = False


@dataclass(frozen=True)
class Found:
    """What a rule finds.

    Attributes:
        limit: what is allowed.
        words: what else the wordings of the rule name.
    """

    passed: bool
    value: float | str
    limit: float | str
    words: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """A question that a version must answer before it goes into production.

    Attributes:
        question: as docs/promotion.md asks it.
        passed: the answer where the version passes; `{value}`, `{limit}` and `Found.words` are
            filled in.
        failed: the answer where it does not.
        find: answers; None where there is nothing to ask.
        thresholds: the keys of `promotion` in params.yaml that it obeys.
    """

    name: str
    question: str
    passed: str
    failed: str
    find: "Callable[[Case, Thresholds], Found | None]"
    thresholds: tuple[str, ...] = ()

    def message(self, found: Found, passed: bool) -> str:
        """Return the answer as a sentence."""
        wording = self.passed if passed else self.failed
        return wording.format(value=found.value, limit=found.limit, **found.words)


def _equal(value: str, limit: str) -> Found:
    return Found(value == limit, value, limit)


def _loads(case: "Case", thresholds: Thresholds) -> Found:
    largest = case.candidate.max_difference
    value = largest if math.isfinite(largest) else "not finite"
    return Found(largest <= MAX_DIFFERENCE, value, MAX_DIFFERENCE, {"largest": largest})


def _clean(case: "Case", thresholds: Thresholds) -> Found:
    state = "dirty" if case.candidate.dirty else "clean"
    limit = "any" if thresholds.allow_dirty else "clean"
    text = "uncommitted code is allowed" if case.candidate.dirty else "made by committed code"
    return Found(limit in ("any", state), state, limit, {"text": text})


def _comparable(case: "Case", thresholds: Thresholds) -> Found | None:
    if (old := case.incumbent) is None:
        return None
    words = {"version": old.version, "reason": old.reason}
    return Found(old.scored is not None, "yes" if old.scored else "no", "yes", words)


def _not_worse(case: "Case", thresholds: Thresholds) -> Found | None:
    if (old := case.old) is None:
        return None
    low, high = case.interval(thresholds.confidence)
    words = {
        "new": case.candidate.accuracy,
        "old": old.accuracy,
        "version": old.version,
        "confidence": 100 * thresholds.confidence,
        "high": high,
    }
    return Found(low >= -thresholds.margin, low, -thresholds.margin, words)


def _better(case: "Case", thresholds: Thresholds) -> Found | None:
    if (old := case.old) is None:
        return None
    pairs, most = case.mcnemar(), 1 - thresholds.confidence
    proven = case.candidate.accuracy > old.accuracy and pairs.p_better <= most
    words = {"new": pairs.only_b, "old": pairs.only_a, "version": old.version, "most": most}
    limit = most if thresholds.better else 1.0
    return Found(proven or not thresholds.better, pairs.p_better, limit, words)


def _class_losses(case: "Case", thresholds: Thresholds) -> Found | None:
    if (old := case.old) is None:
        return None
    losses = {name: old.recalls[name] - value for name, value in case.candidate.recalls.items()}
    allowed = {name: thresholds.allowances.get(name, thresholds.allowance) for name in losses}
    over = [name for name in losses if losses[name] > allowed[name] + 1e-12]
    worst = max(losses, key=lambda name: (losses[name] - allowed[name], name))
    text = ", ".join(f"{name} loses {losses[name]:.4f} of {allowed[name]:g}" for name in over)
    return Found(not over, losses[worst], allowed[worst], {"worst": worst, "losses": text})


def _not_a_reseed(case: "Case", thresholds: Thresholds) -> Found | None:
    if (old := case.old) is None:
        return None
    new = case.candidate.ingredients
    same = new is not None and new == old.ingredients
    return Found(not same, new or "unknown", f"not {old.ingredients}", {"version": old.version})


RULES: tuple[Rule, ...] = (
    Rule(
        "test_set",
        question="Was it evaluated on the test split that is here?",
        passed="evaluated on this test split",
        failed="evaluated on a test split of md5 {value}; the one here has {limit}",
        find=lambda case, _: _equal(case.candidate.test_md5 or "unknown", case.test_md5),
    ),
    Rule(
        "lineage",
        question="Is its [passport](passport.md) complete?",
        passed="the passport is complete",
        failed="the passport lacks {missing}",
        find=lambda case, _: Found(
            not case.candidate.missing,
            len(case.candidate.missing),
            0,
            {"missing": ", ".join(case.candidate.missing)},
        ),
    ),
    Rule(
        "loads",
        question="Does the MLflow flavour, which must not be a pickle, give the probabilities of "
        "the model file, and those that Keras gave when it was evaluated?",
        passed="the MLflow flavour answers as the model file does, and as Keras did when evaluated",
        failed="the MLflow flavour differs by {largest:.2g} from the model file or from what Keras "
        "answered when evaluated, allowed: {limit:g}",
        find=_loads,
    ),
    Rule(
        "validated",
        question="Did its data pass the validation?",
        passed="made from data that passed validation",
        failed="made from data that did not pass validation",
        find=lambda case, _: _equal(str(case.candidate.validated), "True"),
    ),
    Rule(
        "clean",
        question="Is its code in a commit?",
        thresholds=("allow_dirty",),
        passed="{text}",
        failed="made by code that is not committed: commit it and train again, or allow it with "
        "promotion.allow_dirty",
        find=_clean,
    ),
    Rule(
        "comparable",
        question="Can the version in production be scored again?",
        passed="version {version}, in production, is scored on the same images",
        failed="version {version} cannot be scored again: {reason}",
        find=_comparable,
    ),
    Rule(
        "not_worse",
        question="Is the lower end of the interval of the accuracy difference at least `-margin`?",
        thresholds=("margin", "confidence"),
        passed="accuracy {new:.4f} against {old:.4f} of version {version}, {confidence:g}% "
        "interval of the difference {value:+.4f} to {high:+.4f}",
        failed="may be worse: accuracy {new:.4f} against {old:.4f} of version {version}, "
        "{confidence:g}% interval of the difference {value:+.4f} to {high:+.4f}",
        find=_not_worse,
    ),
    Rule(
        "better",
        question="Is it better, by a paired test?",
        thresholds=("better", "confidence"),
        passed="{new} test images are right where version {version} is wrong, {old} the other way "
        "round: p = {value:.3g}",
        failed="not proven better: {new} test images are right where version {version} is wrong, "
        "{old} the other way round: p = {value:.3g}, at most {most:.3g} is allowed",
        find=_better,
    ),
    Rule(
        "classes",
        question="Does no class lose more recall than it may?",
        thresholds=("allowance", "allowances"),
        passed="no class loses more recall than it may; {worst} comes nearest: {value:.4f}",
        failed="recall: {losses} allowed",
        find=_class_losses,
    ),
    Rule(
        "not_a_reseed",
        question="Do its recipe, data or training code differ from those of the version in "
        "production?",
        passed="not made as version {version} was",
        failed="the recipe, the data and the training code of version {version}: only chance makes "
        "the difference",
        find=_not_a_reseed,
    ),
)
