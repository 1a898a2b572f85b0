"""audit: what the registry shows against what the ledger says."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.production import bookkeeping
from pipeline.production.notify import Announcement, announce
from pipeline.registry import versions as registry
from pipeline.registry.ledger import Standing
from pipeline.registry.ledger_run import LedgerRun, ledger_of
from pipeline.tracking.addresses import mlflow_page


@dataclass(frozen=True)
class Finding:
    """Something about a model in the registry that the ledger does not account for.

    Attributes:
        holder: the version that the alias points at; None where nobody has it.
        ledger: the version that the ledger says.
    """

    name: str
    alias: str
    holder: int | None
    ledger: int | None
    message: str


def audit(names: Sequence[str], restore: bool = False, who: str = "") -> list[Finding]:
    """Hold the aliases and the files of registered models against the ledger.

    Args:
        names: of the models; none: all of them.
        restore: put aliases back that somebody has moved by hand.
        who: asks.

    Returns:
        What was found; with `restore`, what it was before it was put back.

    Raises:
        TrackingError: there is no such model, or the store cannot be reached.
    """
    for name in names:
        registry.check_name(name)
    found: list[Finding] = []
    for name in names or registry.names():
        ledger = ledger_of(name)
        now = bookkeeping.settle(ledger)
        moved = _moved(name, now)
        here = [*moved, *_damaged(name, now)]
        found += here
        if here:
            _tell(name, here, who)
        if restore and moved:
            _restore(ledger, now, moved, who)
    return found


def _moved(name: str, now: Standing) -> list[Finding]:
    """Return the aliases that do not point where the ledger says."""
    holders = registry.alias_holders(name)
    wanted = bookkeeping.wanted(now)
    text = "nobody"
    return [
        Finding(
            name,
            alias,
            holders.get(alias),
            version,
            f"{name}@{alias} is version {holders.get(alias, text)}; the ledger says "
            f"{text if version is None else version}",
        )
        for alias, version in wanted.items()
        if holders.get(alias) != version
    ]


def _damaged(name: str, now: Standing) -> list[Finding]:
    """Return the versions that serve, or would after a rollback, and are not what they were."""
    found = []
    for alias, number in bookkeeping.wanted(now).items():
        if number is None:
            continue
        try:
            version = registry.find(f"{name}/{number}")
            registry.read_passport(version)
            registry.fetch(version)
        except PipelineError as error:
            if error.retryable:
                raise
            found.append(Finding(name, alias, number, number, str(error)))
    return found


def _restore(ledger: LedgerRun, now: Standing, moved: Sequence[Finding], who: str) -> None:
    """Put aliases back, and write down that it was necessary."""
    when = bookkeeping.time_for(ledger, None)
    reason = "; ".join(finding.message for finding in moved)[: bookkeeping.LONGEST_REASON]
    if now.production is not None:
        registry.find(f"{ledger.name}/{now.production}")  # it must be there to be pointed at
    entry = bookkeeping.write(ledger, now, "restored", now.production, when, who, reason)
    bookkeeping.settle(ledger)
    bookkeeping.tell(entry, ledger.name)


def _tell(name: str, found: Sequence[Finding], who: str) -> None:
    announce(
        Announcement(
            action="found",
            name=name,
            version=found[0].holder,
            previous=found[0].ledger,
            who=who or bookkeeping.me(),
            reason="the registry is not as the ledger says",
            summary=tuple(finding.message for finding in found),
            url=mlflow_page(f"models/{name}"),
        )
    )
