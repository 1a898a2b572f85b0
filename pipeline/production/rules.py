"""The rules of the gate, as a list: what a version must answer before it goes into production.

To add a rule, add an entry to `RULES` and a row to docs/promotion.md; a threshold that it obeys is
a field of `Thresholds`. A metric gets a floor by its entry in `evaluation.metrics.METRICS`.

Every stage reads params.yaml and with it this file: see `findings`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.artifacts.record import Frozen
from pipeline.production import findings
from pipeline.production.findings import Found

if TYPE_CHECKING:
    from pipeline.production.decision import Case

ZeroToOne = Annotated[float, Field(ge=0, le=1)]


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
        min_test_images: the fewest test images that neither version has seen.
        incomparable: what follows where the version in production takes other images, or knows
            other classes: it fails; it is compared on images of the classes in common; or that,
            and where nothing can be compared, the floors alone decide.
        max_questions: how often test images may be asked which version is better; null: any number.
        forgotten: what follows where it was made with images that are to be forgotten since.
        allow_dirty: whether code may have made it that is in no commit.
        require_approval: whether a person has to agree.
    """

    floors: dict[str, Annotated[float, Field(ge=0)] | None] = Field(default_factory=dict)
    margin: ZeroToOne = 0.005
    better: bool = True
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    allowance: ZeroToOne = 0.05
    allowances: dict[str, ZeroToOne] = Field(default_factory=dict)
    min_test_images: Annotated[int, Field(ge=1)] = 20
    incomparable: Literal["refuse", "common_classes", "allow"] = "refuse"
    max_questions: Annotated[int, Field(ge=1)] | None = None
    forgotten: Literal["warn", "refuse"] = "warn"
    allow_dirty: bool = False
    require_approval: bool = False


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
        noted: whether its answer is shown where the version passes, too.
    """

    name: str
    question: str
    passed: str
    failed: str
    find: "Callable[[Case, Thresholds], Found | None]"
    thresholds: tuple[str, ...] = ()
    noted: bool = False

    def message(self, found: Found, passed: bool) -> str:
        """Return the answer as a sentence."""
        wording = self.passed if passed else self.failed
        return wording.format(value=found.value, limit=found.limit, **found.words)


RULES: tuple[Rule, ...] = (
    Rule(
        "test_set",
        question="Was it evaluated on the test split that is here, or is it known which images it "
        "has seen?",
        passed="{text}",
        failed="evaluated on a test split of md5 {value}; the one here has {limit}",
        find=findings.test_set,
    ),
    Rule(
        "unseen_images",
        question="Are enough test images left that neither version was trained or validated on, "
        "and some of every class?",
        thresholds=("min_test_images",),
        passed="{text}",
        failed="too few test images: {reason}; {text}",
        find=findings.unseen_images,
        noted=True,
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
        find=findings.loads,
    ),
    Rule(
        "validated",
        question="Did its data pass the validation?",
        passed="made from data that passed validation",
        failed="made from data that did not pass validation",
        find=lambda case, _: findings.equal(str(case.candidate.validated), "True"),
    ),
    Rule(
        "clean",
        question="Is its code in a commit?",
        thresholds=("allow_dirty",),
        passed="{text}",
        failed="made by code that is not committed: commit it and train again, or allow it with "
        "promotion.allow_dirty",
        find=findings.clean,
    ),
    Rule(
        "forgotten",
        question="Was it trained or validated on images that `pipeline forget` keeps out since?",
        thresholds=("forgotten",),
        passed="{text}",
        failed="{text}: train a version without them, dvc repro, or allow it with "
        "promotion.forgotten: warn",
        find=findings.forgotten,
        noted=True,
    ),
    Rule(
        "comparable",
        question="Can the version in production be scored again, on images as it takes them and "
        "with the same classes?",
        thresholds=("incomparable",),
        passed="{text}",
        failed="version {version} cannot be scored again: {reason}",
        find=findings.comparable,
        noted=True,
    ),
    Rule(
        "not_worse",
        question="Is the lower end of the interval of the accuracy difference at least `-margin`?",
        thresholds=("margin", "confidence"),
        passed="accuracy {new:.4f} against {old:.4f} of version {version}, {confidence:g}% "
        "interval of the difference {value:+.4f} to {high:+.4f}",
        failed="may be worse: accuracy {new:.4f} against {old:.4f} of version {version}, "
        "{confidence:g}% interval of the difference {value:+.4f} to {high:+.4f}",
        find=findings.not_worse,
    ),
    Rule(
        "better",
        question="Is it better, by a paired test?",
        thresholds=("better", "confidence"),
        passed="{new} test images are right where version {version} is wrong, {old} the other way "
        "round: p = {value:.3g}",
        failed="not proven better: {new} test images are right where version {version} is wrong, "
        "{old} the other way round: p = {value:.3g}, at most {most:.3g} is allowed",
        find=findings.better,
    ),
    Rule(
        "classes",
        question="Does no class lose more recall than it may?",
        thresholds=("allowance", "allowances"),
        passed="no class loses more recall than it may; {worst} comes nearest: {value:.4f}",
        failed="recall: {losses} allowed",
        find=findings.class_losses,
    ),
    Rule(
        "guarantee",
        question="Does it guarantee to err on no more images than the version in production "
        "guarantees?",
        passed="guarantees to err on at most {new} of images, version {version} on {percent}",
        failed="version {version} guarantees to err on at most {percent} of images, this one "
        "guarantees {new}; give it a guarantee: pipeline guarantee",
        find=findings.guarantee,
    ),
    Rule(
        "questions",
        question="Were the test images asked about versions at most this often?",
        thresholds=("max_questions", "confidence"),
        passed="asked {times} on these images; were {none}, the chance of at least one false "
        "promotion so far would be at most {chance:.3g}%",
        failed="asked {times} on these images, and {limit} is the most: were {none}, the chance of "
        "at least one false promotion so far would be up to {chance:.3g}%; add images that no "
        "version was asked about",
        find=findings.questions,
        noted=True,
    ),
    Rule(
        "not_a_reseed",
        question="Do its recipe, data or training code differ from those of the version in "
        "production?",
        passed="not made as version {version} was",
        failed="the recipe, the data and the training code of version {version}: only chance makes "
        "the difference",
        find=findings.not_a_reseed,
    ),
)
