"""What goes into production, and out of it again."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.artifacts.datasets import Splits
from pipeline.errors import ArtifactError, ParamsError, TrackingError
from pipeline.production import bookkeeping, gate
from pipeline.production.decision import Decision
from pipeline.production.promotion import PRODUCTION
from pipeline.production.rules import Rules
from pipeline.registry import versions as registry
from pipeline.registry.ledger import Action, Entry, Standing
from pipeline.registry.ledger_run import LedgerRun, ledger_of
from pipeline.registry.passport import Passport
from pipeline.registry.versions import Registered
from pipeline.tracking.store import reaching

# Of a smoke test, which may run on other hardware than the training did.
SMOKE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Outcome:
    """What came of asking for a promotion.

    Attributes:
        action: `nothing` where the version is in production already, `would pass` where it was
            only asked.
        entry: None where nothing was written.
    """

    version: Registered
    action: str
    decision: Decision | None
    entry: Entry | None = None


def promote(
    version: Registered,
    splits: Splits,
    rules: Rules,
    *,
    force: str = "",
    only_ask: bool = False,
    who: str = "",
) -> Outcome:
    """Put a version into production if the gate lets it, or by force.

    Args:
        version: that is to serve.
        splits: its test split decides.
        rules: what the gate asks.
        force: the reason to do it against the gate; empty: what is refused is not done.
        only_ask: decide, and change nothing.
        who: asks; by default the user and the machine.

    Raises:
        ArtifactError: the version has no passport, or its files are not what was registered.
        TrackingError: the store cannot be reached, somebody was first, or the alias was moved by
            hand.
    """
    bookkeeping.check_reason(force)
    ledger = ledger_of(version.name)
    now = bookkeeping.settle(ledger)
    incumbent = _agreed(ledger, now, forced=bool(force))
    if incumbent == version.version:
        return Outcome(version, "nothing", None)
    when = bookkeeping.time_for(ledger, version)
    decision = gate.examine(version, incumbent, splits, rules)
    if only_ask:
        return Outcome(version, "would pass" if decision.passed else "refused", decision)
    action: Action = "promoted" if decision.passed else "forced" if force else "refused"
    failed = ", ".join(check.name for check in decision.checks if not check.passed)
    reason = force or (f"failed: {failed}" if failed else "every check passed")
    entry = bookkeeping.write(ledger, now, action, version.version, when, who, reason, decision)
    if action != "refused":
        bookkeeping.settle(ledger)
    bookkeeping.tell(
        entry,
        version.name,
        decision.failures or [check.message for check in decision.checks],
    )
    return Outcome(version, action, decision, entry)


def rollback(name: str, to: int | None, reason: str, who: str = "") -> Entry:
    """Put the version into production that was there before, or another that once was.

    It is loaded, and must say of its examples what it said when it was registered, before
    anything changes.

    Args:
        name: of the registered model.
        to: a version that was in production at some time; None: the one before the present one.
        reason: why.
        who: asks.

    Raises:
        ParamsError: no reason, or there is nothing to go back to.
        ArtifactError: that version is not what was registered, or does not say what it said.
        TrackingError: that version is gone, the store cannot be reached, or somebody was first.
    """
    if not reason.strip():
        raise ParamsError("a rollback needs a reason: --reason TEXT")
    bookkeeping.check_reason(reason)
    registry.check_name(name)
    ledger = ledger_of(name)
    now = bookkeeping.settle(ledger)
    version = registry.find(f"{name}/{_target(name, now, to)}")
    when = bookkeeping.time_for(ledger, version)
    smoke_test(version)
    entry = bookkeeping.write(ledger, now, "rolled back", version.version, when, who, reason)
    bookkeeping.settle(ledger)
    bookkeeping.tell(entry, name)
    return entry


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
    """Load a version as callers do, and hold it against the examples of its passport.

    Raises:
        ArtifactError: its files are not what was registered, or it says something else.
        TrackingError: it does not load.
    """
    passport: Passport = registry.read_passport(version)
    registry.fetch(version)  # checks the bytes, before anything of them is run
    served = registry.load(f"models:/{version.name}/{version.version}")
    with reaching(f"ask {version.spec}"):
        answer = served.predict(pd.DataFrame({"image": [e.png for e in passport.examples]}))
    said = np.stack(answer["probabilities"].to_list())
    differ = float(np.abs(said - [e.probabilities for e in passport.examples]).max())
    if not differ <= SMOKE_TOLERANCE:
        raise ArtifactError(
            f"{version.spec} does not say of its examples what it said when it was registered: "
            f"probabilities differ by {differ:.2g}, allowed: {SMOKE_TOLERANCE:g}; nothing changed"
        )


def _agreed(ledger: LedgerRun, now: Standing, forced: bool) -> int | None:
    """Return the version in production, if alias and ledger agree on it.

    Raises:
        TrackingError: they do not, and nobody insists.
    """
    holder = registry.alias_holders(ledger.name).get(PRODUCTION)
    if holder == now.production or forced:
        return now.production
    if not now.ever:
        return holder  # of an earlier release, which kept no ledger
    raise TrackingError(
        f"{ledger.name}@{PRODUCTION} is version {holder or 'nobody'}, the ledger says "
        f"{now.production}: somebody moved the alias by hand; put it back: "
        f"pipeline audit {ledger.name} --restore"
    )
