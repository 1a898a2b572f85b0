"""audit: compare what the registry shows with what the ledger says."""

from collections.abc import Sequence

from pipeline.errors import PipelineError
from pipeline.production.notify import Announcement, announce
from pipeline.production.recording import (
    LONGEST_REASON,
    current_user,
    expected_aliases,
    record,
    sync_aliases,
    time_for,
)
from pipeline.registry import model_files, versions
from pipeline.registry.ledger import Action, Discrepancy, Standing
from pipeline.registry.ledger_run import LedgerRun, ledger_of
from pipeline.tracking.addresses import mlflow_page


def audit(names: Sequence[str], restore: bool = False, who: str = "") -> list[Discrepancy]:
    """Compare the aliases and the files of registered models with the ledger.

    Args:
        names: the models; none: all of them.
        restore: put aliases back that somebody has moved by hand.
        who: asks; by default the user and the machine.

    Returns:
        What was found; with `restore`, what it was before it was put back.

    Raises:
        TrackingError: there is no such model, or the store cannot be reached.
    """
    for name in names:
        versions.check_name(name)
    found: list[Discrepancy] = []
    for name in names or versions.names():
        ledger = ledger_of(name)
        now = sync_aliases(ledger)
        moved = _moved(name, now)
        here = [*moved, *_damaged(name, now)]
        found += here
        if here:
            _announce(name, here, who)
        if restore and moved:
            _restore(ledger, now, moved, who)
    return found


def _moved(name: str, now: Standing) -> list[Discrepancy]:
    """Return the aliases that do not point where the ledger says."""
    holders = versions.alias_holders(name)
    return [
        Discrepancy(
            name=name,
            alias=alias,
            holder=holders.get(alias),
            ledger=version,
            message=f"{name}@{alias} is {versions.version_text(holders.get(alias))}; the ledger "
            f"says {versions.version_text(version)}",
        )
        for alias, version in expected_aliases(now).items()
        if holders.get(alias) != version
    ]


def _damaged(name: str, now: Standing) -> list[Discrepancy]:
    """Return the versions that serve, or would after a rollback, and are not what they were."""
    found = []
    for alias, number in expected_aliases(now).items():
        if number is None:
            continue
        try:
            version = versions.find(f"{name}/{number}")
            model_files.read_passport(version)
            model_files.fetch(version)
        except PipelineError as error:
            if error.retryable:
                raise
            found.append(
                Discrepancy(
                    name=name, alias=alias, holder=number, ledger=number, message=str(error)
                )
            )
    return found


def _restore(ledger: LedgerRun, now: Standing, moved: Sequence[Discrepancy], who: str) -> None:
    """Put aliases back, and record that it was necessary."""
    when = time_for(ledger, None)
    if now.production is not None:
        versions.find(f"{ledger.name}/{now.production}")  # raises where it is gone
    reason = "; ".join(row.message for row in moved)[:LONGEST_REASON]
    record(ledger, now, Action.RESTORED, now.production, when=when, who=who, reason=reason)


def _announce(name: str, found: Sequence[Discrepancy], who: str) -> None:
    announce(
        Announcement(
            action=Action.FOUND,
            name=name,
            version=found[0].holder,
            previous=found[0].ledger,
            who=who or current_user(),
            reason="the registry is not as the ledger says",
            summary=tuple(row.message for row in found),
            url=mlflow_page(f"models/{name}"),
        )
    )
