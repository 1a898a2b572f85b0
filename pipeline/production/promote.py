"""promote and rollback: what goes into production, and out of it again."""

from dataclasses import dataclass

from pipeline.artifacts.datasets import Splits
from pipeline.errors import ArtifactError, ParamsError, TrackingError
from pipeline.production import gate
from pipeline.production.decision import Decision
from pipeline.production.recording import check_reason, record, sync_aliases, time_for
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger import Action, Entry, Standing
from pipeline.registry.ledger_run import LedgerRun, ledger_of
from pipeline.registry.versions import PRODUCTION, Registered


@dataclass(frozen=True)
class Promotion:
    """What came of asking for a promotion.

    Attributes:
        decision: None where the version is in production already.
        entry: None where nothing was written.
    """

    version: Registered
    action: Action
    decision: Decision | None = None
    entry: Entry | None = None

    @property
    def sentence(self) -> str:
        """What came of it, in one line."""
        return self.action.sentence(self.version.name, self.version.version)


def promote(
    version: Registered,
    splits: Splits,
    thresholds: Thresholds,
    *,
    force: str = "",
    dry_run: bool = False,
    who: str = "",
) -> Promotion:
    """Put a version into production if it passes the gate, or by force.

    Args:
        version: the candidate.
        splits: its test split decides.
        thresholds: the thresholds of the gate.
        force: the reason to promote against the gate; empty: a refused version is not promoted.
        dry_run: decide, and change nothing but the count of questions.
        who: asks; by default the user and the machine.

    Raises:
        ArtifactError: the version has no passport, or its files are not what was registered.
        TrackingError: the store cannot be reached, another process wrote first, or the alias was
            moved by hand.
    """
    check_reason(force)
    ledger = ledger_of(version.name)
    now = sync_aliases(ledger)
    incumbent = _incumbent(ledger, now, forced=bool(force))
    if incumbent == version.version:
        return Promotion(version, Action.NOTHING)
    when = time_for(ledger, version)
    decision = gate.examine(version, incumbent, splits, thresholds, ledger)
    if dry_run:
        return Promotion(
            version, Action.WOULD_PASS if decision.passed else Action.REFUSED, decision
        )
    action = Action.FORCED if force else Action.REFUSED
    reason = force or f"failed: {', '.join(decision.failed)}"
    if decision.passed:
        action, reason = Action.PROMOTED, force or "every check passed"
    entry = record(
        ledger, now, action, version.version, when=when, who=who, reason=reason, decision=decision
    )
    return Promotion(version, action, decision, entry)


def rollback(name: str, to: int | None, reason: str, who: str = "") -> Entry:
    """Put the version into production that was there before, or another that once was.

    It is loaded first, and must predict for its examples what it did when it was registered.

    Args:
        name: the registered model.
        to: a version that was in production at some time; None: the one before the present one.
        reason: why.
        who: asks; by default the user and the machine.

    Raises:
        ParamsError: no reason, or there is nothing to go back to.
        ArtifactError: that version is not what was registered, or predicts something else.
        TrackingError: that version is gone, the store cannot be reached, or another process wrote
            first.
    """
    if not reason.strip():
        raise ParamsError("a rollback needs a reason: --reason TEXT")
    check_reason(reason)
    versions.check_name(name)
    ledger = ledger_of(name)
    now = sync_aliases(ledger)
    version = versions.find(f"{name}/{_target(name, now, to)}")
    when = time_for(ledger, version)
    smoke_test(version)
    return record(
        ledger, now, Action.ROLLED_BACK, version.version, when=when, who=who, reason=reason
    )


def _target(name: str, now: Standing, to: int | None) -> int:
    """Return the version to go back to."""
    if now.production is None:
        raise ParamsError(f"no version of {name} is in production: there is nothing to roll back")
    if to is None:
        if now.previous is None:
            raise ParamsError(
                f"nothing was in production before version {now.production} of {name}; see "
                f"pipeline history {name}"
            )
        return now.previous
    if to == now.production:
        raise ParamsError(f"version {to} of {name} is in production already")
    if to not in now.ever:
        allowed = ", ".join(map(str, sorted(now.ever - {now.production}))) or "none"
        raise ParamsError(
            f"version {to} of {name} never was in production; allowed: {allowed}; another one has "
            f"to pass the gate: pipeline promote {name} {to}"
        )
    return to


def smoke_test(version: Registered) -> None:
    """Load a version as callers do, and compare its predictions with those in its passport.

    Raises:
        ArtifactError: its files are not what was registered, or it predicts something else.
        TrackingError: it does not load.
    """
    passport = model_files.read_passport(version)
    model_files.fetch(version)  # checks the bytes before any of them is run
    difference = model_files.examples_differ(f"models:/{version.name}/{version.version}", passport)
    if not difference <= model_files.SMOKE_TOLERANCE:
        raise ArtifactError(
            f"{version.spec} does not predict for its examples what it did when it was registered: "
            f"probabilities differ by {difference:.2g}, allowed: {model_files.SMOKE_TOLERANCE:g}; "
            "nothing changed"
        )


def _incumbent(ledger: LedgerRun, now: Standing, forced: bool) -> int | None:
    """Return the version in production, on which alias and ledger have to agree.

    Raises:
        TrackingError: they do not, and the promotion is not forced.
    """
    holder = versions.alias_holders(ledger.name).get(PRODUCTION)
    if holder == now.production or forced:
        return now.production
    if not now.ever:
        return holder  # of an earlier release, which kept no ledger
    raise TrackingError(
        f"{ledger.name}@{PRODUCTION} is {versions.version_text(holder)}, the ledger says "
        f"{versions.version_text(now.production)}: somebody moved the alias by hand; put it back: "
        f"pipeline audit {ledger.name} --restore"
    )
