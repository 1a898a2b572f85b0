"""What the rules of the gate find: pure functions of a case and the thresholds.

Every stage reads params.yaml and with it the rules, so it imports nothing that is slow, and nothing
that would make a new metric run `resolve` again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.production.comparable import listed

if TYPE_CHECKING:
    from pipeline.production.decision import Case
    from pipeline.production.rules import Thresholds

# The most that two ways of asking one model may differ by.
MAX_DIFFERENCE = 1e-4


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


def equal(value: str, limit: str) -> Found:
    """Find whether a text is the one that is wanted."""
    return Found(value == limit, value, limit)


def test_set(case: "Case", thresholds: "Thresholds") -> Found:
    """Find whether the candidate is scored on its own test split, or what it has seen is known."""
    value, text = case.candidate.test_md5 or "unknown", "evaluated on this test split"
    if value != case.test_md5:
        text = "evaluated on another test split, but which images it has seen is recorded"
    passed = value == case.test_md5 or case.images.seen is not None
    return Found(passed, value, case.test_md5, {"text": text})


def unseen_images(case: "Case", thresholds: "Thresholds") -> Found:
    """Find whether enough images are left that no version has seen, of every class.

    A first version that has seen none of them is as good as its few test images can say.
    """
    images = case.images
    limited = case.incumbent is not None or images.left < images.test
    short = limited and images.count < thresholds.min_test_images
    text = f"scored on {_images(case)}"
    reason = f"at least {thresholds.min_test_images} are required" if short else ""
    if images.emptied:
        reason += f"{reason and ', and '}none is left of {listed(images.emptied)}"
    words = {"text": text, "reason": reason}
    passed = not short and not images.emptied
    return Found(passed, images.count, thresholds.min_test_images, words)


def _images(case: "Case") -> str:
    """Say on how many images the versions are scored, and what each has seen of the rest."""
    images = case.images
    asked = [(case.candidate.version, images.seen)]
    if case.old is not None:
        asked.append((case.old.version, images.seen_by_incumbent))
    seen = ", ".join(
        f"version {version} has no record of its images and may have seen some"
        if count is None
        else f"version {version} was trained or validated on {count:,}"
        for version, count in asked
    )
    left_out = images.test - images.left
    text = f"{images.left:,} of {images.test:,} test images; {left_out:,} left out as seen: {seen}"
    if images.compared is not None:
        text += f"; compared on the {images.compared:,} of classes that both know"
    return text


def loads(case: "Case", thresholds: "Thresholds") -> Found:
    """Find how far the MLflow flavour is from the model file."""
    largest = case.candidate.max_difference
    value = largest if math.isfinite(largest) else "not finite"
    return Found(largest <= MAX_DIFFERENCE, value, MAX_DIFFERENCE, {"largest": largest})


def clean(case: "Case", thresholds: "Thresholds") -> Found:
    """Find whether the code is in a commit."""
    state = "dirty" if case.candidate.dirty else "clean"
    limit = "any" if thresholds.allow_dirty else "clean"
    text = "uncommitted code is allowed" if case.candidate.dirty else "made by committed code"
    return Found(limit in ("any", state), state, limit, {"text": text})


def forgotten(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find whether the candidate was made with images that are to be forgotten since."""
    if not (count := case.candidate.forgotten):
        return None
    limit = "any" if thresholds.forgotten == "warn" else 0
    images = "an image that is" if count == 1 else f"{count:,} images that are"
    return Found(limit == "any", count, limit, {"text": f"made with {images} to be forgotten"})


def comparable(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find whether the version in production can be scored again."""
    if (old := case.incumbent) is None:
        return None
    rule = thresholds.incomparable
    allowed = old.scored is not None or (old.differs and rule == "allow")
    text = f"version {old.version}, in production, is scored on the same images"
    if old.scored is None:
        text = f"not compared with version {old.version}, which promotion.incomparable allows"
    elif old.reason:
        text = f"compared with version {old.version} on images of the classes in common"
    text += f": {old.reason}" if old.reason else ""
    reason = old.reason
    if old.differs and rule != "allow":
        reason += "; promotion.incomparable says what is allowed then, now: " + rule
    words = {"version": old.version, "text": text, "reason": reason}
    limit = "any" if rule == "allow" else "yes"
    return Found(allowed, "yes" if old.scored else "no", limit, words)


def not_worse(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find the interval of the difference in accuracy."""
    if (old := case.old) is None:
        return None
    low, high = case.interval(thresholds.confidence)
    words = {
        "new": case.accuracy,
        "old": old.accuracy,
        "version": old.version,
        "confidence": 100 * thresholds.confidence,
        "high": high,
    }
    return Found(low >= -thresholds.margin, low, -thresholds.margin, words)


def better(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find whether the candidate is proven better; another form of one model need not be."""
    if (old := case.old) is None or case.derived:
        return None
    pairs, most = case.mcnemar(), 1 - thresholds.confidence
    proven = case.accuracy > old.accuracy and pairs.p_better <= most
    words = {"new": pairs.only_b, "old": pairs.only_a, "version": old.version, "most": most}
    limit = most if thresholds.better else 1.0
    return Found(proven or not thresholds.better, pairs.p_better, limit, words)


def class_losses(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find the classes that lose more recall than they may."""
    if (old := case.old) is None:
        return None
    recalls = case.candidate.recalls
    losses = {name: value - recalls[name] for name, value in old.recalls.items()}
    allowed = {name: thresholds.allowances.get(name, thresholds.allowance) for name in losses}
    over = [name for name in losses if losses[name] > allowed[name] + 1e-12]
    worst = max(losses, key=lambda name: (losses[name] - allowed[name], name))
    text = ", ".join(f"{name} loses {losses[name]:.4f} of {allowed[name]:g}" for name in over)
    return Found(not over, losses[worst], allowed[worst], {"worst": worst, "losses": text})


def not_a_reseed(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find whether more than chance makes the difference."""
    if (old := case.old) is None or case.derived:
        return None
    new = case.candidate.ingredients
    same = new is not None and new == old.ingredients
    return Found(not same, new or "unknown", f"not {old.ingredients}", {"version": old.version})


def guarantee(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find whether the candidate guarantees no more errors than the version in production."""
    if (old := case.old) is None or old.error is None:
        return None
    new = case.candidate.error
    words = {"version": old.version, "percent": f"{100 * old.error:.3g}%", "new": "nothing"}
    if new is None:
        return Found(False, "none", old.error, words)
    return Found(new <= old.error, new, old.error, words | {"new": f"{100 * new:.3g}%"})


def questions(case: "Case", thresholds: "Thresholds") -> Found | None:
    """Find how often the images were asked, and what follows of that."""
    images, most = case.images, thresholds.max_questions
    if images.asked is None:
        return None
    text = "once" if images.asked == 1 else f"{images.asked} times"
    if images.fresh and images.fresh < images.count:
        text += f" (the median; {images.fresh:,} for the first time)"
    # Each question lets a version pass wrongly with a probability of at most 1 - confidence.
    chance = 1 - thresholds.confidence**images.asked
    none = "no version better" if thresholds.better else "every version worse by the margin"
    words = {"times": text, "chance": 100 * chance, "none": none}
    passed = most is None or images.asked <= most
    return Found(passed, images.asked, "any" if most is None else most, words)
