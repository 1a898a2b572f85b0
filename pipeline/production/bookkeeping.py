"""Entries in the ledger of a registered model, and the aliases that follow them.

An entry is written first, then the aliases are moved. Whoever is killed in between leaves an entry
that is not done; the next one who asks moves the aliases as it says.
"""

import getpass
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pipeline.errors import ParamsError, TrackingError
from pipeline.production.decision import Decision
from pipeline.production.notify import Announcement, announce
from pipeline.production.promotion import PREVIOUS, PRODUCTION
from pipeline.registry import versions as registry
from pipeline.registry.ledger import Action, Entry, Standing, standing
from pipeline.registry.ledger_run import Conflict, LedgerRun
from pipeline.registry.versions import Registered
from pipeline.tracking.addresses import mlflow_page
from pipeline.tracking.store import account, server_time
from pipeline.tracking.working_tree import head

# Clocks differ a little; what they differ by more would put entries into a wrong order.
CLOCKS_DIFFER = timedelta(seconds=60)
# An entry is a line, not an essay.
LONGEST_REASON = 500


def settle(ledger: LedgerRun) -> Standing:
    """Let the aliases follow the last entry, where it is not done, and return how things stand."""
    while True:
        entries = ledger.entries()
        now = standing(entries)
        last = next((e for e in reversed(entries) if e.action != "refused"), None)
        if last is None or ledger.is_done(last.sequence):
            return now
        holders = registry.alias_holders(ledger.name)
        for alias, version in wanted(now).items():
            # One that was deleted cannot be pointed at; the audit tells of it.
            there = version is None or registry.exists(ledger.name, version)
            if holders.get(alias) != version and there:
                registry.set_alias(ledger.name, alias, version)
        # Whoever wrote an entry in the meantime has moved them too, perhaps before.
        if ledger.entries() == entries:
            ledger.mark_done(last.sequence)


def wanted(now: Standing) -> Mapping[str, int | None]:
    """Return where the aliases have to point."""
    return {PRODUCTION: now.production, PREVIOUS: now.previous}


def time_for(ledger: LedgerRun, version: Registered | None) -> datetime:
    """Return the time for an entry: never before that of an earlier one.

    Raises:
        TrackingError: this machine's clock and another one disagree.
    """
    now = datetime.now(UTC)
    server, entries = server_time(), ledger.entries()
    if server is not None and abs(server - now) > CLOCKS_DIFFER:
        raise _clocks(now, server, "the MLflow server's clock says")
    times = [entry.time for entry in entries]
    if version is not None:
        times.append(datetime.fromtimestamp(version.created, UTC))
    latest = max(times, default=now)
    if latest - now > CLOCKS_DIFFER:
        raise _clocks(now, latest, "the last entry, or the version itself, was made at")
    return max(latest, now)


def _clocks(now: datetime, other: datetime, what: str) -> TrackingError:
    return TrackingError(
        f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC, {what} {other:%Y-%m-%d %H:%M:%S} "
        "UTC: set the clock that is wrong; nothing changed"
    )


def check_reason(reason: str) -> None:
    """Refuse a reason that is longer than an entry takes.

    Raises:
        ParamsError: it says how long it may be.
    """
    if len(reason) > LONGEST_REASON:
        raise ParamsError(
            f"the reason has {len(reason)} letters; allowed: {LONGEST_REASON}: keep it short, and "
            "name the page that says more"
        )


def write(
    ledger: LedgerRun,
    now: Standing,
    action: Action,
    version: int | None,
    when: datetime,
    who: str,
    reason: str,
    decision: Decision | None = None,
) -> Entry:
    """Write the next entry.

    Raises:
        Conflict: somebody else has written it.
    """
    kept = ledger.keep_decision(decision.model_dump(mode="json")) if decision else ""
    entry = Entry(
        sequence=now.sequence + 1,
        key=uuid4().hex,
        action=action,
        previous=now.production,
        version=version,
        who=who or me(),
        account=account(),
        when=when.isoformat(timespec="seconds"),
        reason=reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…",
        decision=kept,
        commit=head(),
    )
    while True:
        try:
            ledger.append(entry)
            return entry
        except Conflict:
            # What somebody else wrote down may have changed nothing, such as a refusal.
            fresh = standing(ledger.entries())
            if fresh.versions != now.versions:
                raise
            entry = entry.model_copy(update={"sequence": fresh.sequence + 1})


def me() -> str:
    """Return who works here: the user and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def tell(entry: Entry, name: str, lines: Sequence[str] = ()) -> None:
    """Tell those who want to know of an entry."""
    announce(
        Announcement(
            action=entry.action,
            name=name,
            version=entry.version,
            previous=entry.previous,
            who=entry.by,
            reason=entry.reason,
            summary=tuple(lines),
            url=mlflow_page(f"models/{name}/versions/{entry.version}"),
        )
    )
