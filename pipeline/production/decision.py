"""A decision about a version: what every rule answers, and what follows; pure, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from pipeline.artifacts.record import Frozen
from pipeline.evaluation.paired import McNemar, mcnemar, paired_interval
from pipeline.production.floors import floors
from pipeline.production.rules import RULES, Thresholds
from pipeline.production.scored_images import ScoredImages
from pipeline.registry.ledger import Action


@dataclass(frozen=True)
class Scored:
    """A version, scored now on test images that it has not seen.

    Attributes:
        right: (n,) whether each image is classified correctly.
        recalls: by class name; only classes with test images.
        ingredients: equal for models that differ by chance alone; None where it is not known.
        test_md5: the md5 of the test split that it was evaluated on when it was made.
        model_sha256: that of the Keras model; versions derived from each other have the same.
        error: the share of images on which it errs at most, as it guarantees; None where it
            guarantees nothing.
    """

    version: int
    right: NDArray[np.bool_]
    recalls: Mapping[str, float]
    ingredients: str | None
    test_md5: str | None
    model_sha256: str | None
    error: float | None

    @property
    def accuracy(self) -> float:
        """The share of test images that is classified correctly."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Candidate(Scored):
    """A version that asks to go into production.

    Attributes:
        metrics: those that have a floor, by its key in params.yaml and in its unit.
        worst_slice: of its test images; empty where none has enough.
        missing: parts of its passport that are not known.
        max_difference: how far the MLflow flavour is from the model file, asked now, and from what
            Keras answered for the passport's examples.
        validated: whether the data that it was made from passed the checks.
        dirty: whether it was made by code that is in no commit.
        forgotten: how many images it was made with that are to be forgotten since.
        derived_from: the version that it was made from without training; None where it was trained.
    """

    metrics: Mapping[str, float]
    worst_slice: str = ""
    missing: tuple[str, ...] = ()
    max_difference: float = 0.0
    validated: bool = True
    dirty: bool = False
    forgotten: int = 0
    derived_from: int | None = None


@dataclass(frozen=True)
class Incumbent:
    """The version in production.

    Attributes:
        scored: None where it cannot be scored.
        reason: why not, or why only on images of the classes in common.
        differs: whether the reason is that its images or classes are not those that are here.
        common: of the candidate's images, those on which both are scored: (n,); None: all.
    """

    version: int
    scored: Scored | None = None
    reason: str = ""
    differs: bool = False
    common: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Case:
    """What the rules are asked about.

    Attributes:
        incumbent: None where nothing is in production.
        test_md5: the md5 of the test split that is here.
        images: those of it on which both are scored.
    """

    candidate: Candidate
    incumbent: Incumbent | None
    test_md5: str
    images: ScoredImages

    @property
    def old(self) -> Scored | None:
        """The version in production, where it can be scored."""
        return self.incumbent.scored if self.incumbent else None

    @property
    def derived(self) -> bool:
        """Whether the candidate is the model in production in another form."""
        new, old = self.candidate, self.old
        return (
            new.derived_from is not None
            and old is not None
            and new.model_sha256 is not None
            and new.model_sha256 == old.model_sha256
        )

    @property
    def accuracy(self) -> float:
        """That of the candidate on the images on which both are scored."""
        return float(self._pair()[1].mean())

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the difference in accuracy, candidate less incumbent."""
        return paired_interval(*self._pair(), confidence)

    def mcnemar(self) -> McNemar:
        """Return McNemar's test of whether the candidate is better than the incumbent."""
        return mcnemar(*self._pair())

    def _pair(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if self.incumbent is None or self.incumbent.scored is None:
            raise ValueError("the version in production is not scored")
        common, new = self.incumbent.common, self.candidate.right
        return self.incumbent.scored.right, new if common is None else new[common]


class Answer(Frozen):
    """What a rule answers.

    Attributes:
        name: the name of the rule.
        value: what was found.
        limit: what is allowed.
        message: the answer as a sentence.
    """

    name: str
    value: float | str
    limit: float | str
    passed: bool
    message: str


class Decision(Frozen):
    """Whether a version may go into production, and why.

    Attributes:
        incumbent: the version in production; None where there is none.
        test_md5: the md5 of the test split that was there.
        images: those of it on which both were scored; None in decisions of earlier releases.
        answers: stored as `checks`.
    """

    # What the command line prints has `passed` as well.
    model_config = ConfigDict(serialize_by_alias=True, extra="ignore")

    candidate: int
    incumbent: int | None
    test_md5: str
    images: ScoredImages | None = None
    answers: tuple[Answer, ...] = Field(alias="checks")

    @property
    def passed(self) -> bool:
        """Whether every rule is met."""
        return all(answer.passed for answer in self.answers)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the rules that are not met."""
        return tuple(answer.name for answer in self.answers if not answer.passed)

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not met, as sentences."""
        return tuple(answer.message for answer in self.answers if not answer.passed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is met and said all the same, as sentences."""
        noted = {rule.name for rule in RULES if rule.noted}
        return tuple(row.message for row in self.answers if row.passed and row.name in noted)


class PromotionReport(Frozen):
    """What `pipeline promote --json` prints.

    Attributes:
        sequence: the number of the entry; None where none was written.
        decision: None where the version is in production already.
    """

    name: str
    version: int
    action: Action
    sequence: int | None
    decision: Decision | None


def decide(case: Case, thresholds: Thresholds) -> Decision:
    """Ask every rule whether a version may go into production.

    Args:
        case: candidate and incumbent, scored on the same test split.
        thresholds: from params.yaml.
    """
    answers = []
    for rule in (*floors(), *RULES):
        if (found := rule.find(case, thresholds)) is not None:
            answers.append(
                Answer(
                    name=rule.name,
                    value=found.value,
                    limit=found.limit,
                    passed=found.passed,
                    message=rule.message(found, found.passed),
                )
            )
    return Decision(
        candidate=case.candidate.version,
        incumbent=case.incumbent.version if case.incumbent else None,
        test_md5=case.test_md5,
        images=case.images,
        checks=tuple(answers),
    )
