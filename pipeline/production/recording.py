"""Record an entry in the ledger of a registered model, and let its aliases follow.

An entry is written first, then the aliases are moved. A process that is killed in between leaves an
entry that is not done; the next command that asks moves the aliases as it says.
"""

import getpass
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pipeline.errors import ParamsError, TrackingError
from pipeline.production.decision import Decision
from pipeline.production.notify import Announcement, announce
from pipeline.registry import versions
from pipeline.registry.ledger import Action, Entry, Standing, standing
from pipeline.registry.ledger_run import Conflict, LedgerRun
from pipeline.registry.versions import PREVIOUS, PRODUCTION, Registered
from pipeline.tracking.addresses import mlflow_page
from pipeline.tracking.store import account, server_time
from pipeline.tracking.working_tree import head

# Clocks differ a little; if they differ by more, entries would be in the wrong order.
CLOCKS_DIFFER = timedelta(seconds=60)
# An entry is a line, not an essay.
LONGEST_REASON = 500


def sync_aliases(ledger: LedgerRun) -> Standing:
    """Move the aliases as the last entry says, unless that is done, and return what serves."""
    while True:
        entries = ledger.entries()
        now = standing(entries)
        last = next((e for e in reversed(entries) if e.action != Action.REFUSED), None)
        if last is None or ledger.is_done(last.sequence):
            return now
        holders = versions.alias_holders(ledger.name)
        for alias, version in expected_aliases(now).items():
            # No alias can point at a version that was deleted; the audit reports it.
            there = version is None or versions.exists(ledger.name, version)
            if holders.get(alias) != version and there:
                versions.set_alias(ledger.name, alias, version)
        # Another process that wrote an entry meanwhile may have moved them before this one did.
        if ledger.entries() == entries:
            ledger.mark_done(last.sequence)


def expected_aliases(now: Standing) -> Mapping[str, int | None]:
    """Return the version that each alias has to point at."""
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
            f"the reason is {len(reason)} characters long; allowed: {LONGEST_REASON}: keep it "
            "short, and name the page that says more"
        )


def record(
    ledger: LedgerRun,
    now: Standing,
    action: Action,
    version: int | None,
    *,
    when: datetime,
    who: str,
    reason: str,
    decision: Decision | None = None,
) -> Entry:
    """Write the next entry, let the aliases follow and announce it.

    Raises:
        Conflict: another process wrote it first.
        TrackingError: the store cannot be reached.
    """
    stored = ledger.keep_decision(decision.model_dump(mode="json")) if decision else ""
    entry = _append(
        ledger,
        now,
        Entry(
            sequence=now.sequence + 1,
            key=uuid4().hex,
            action=action,
            previous=now.production,
            version=version,
            who=who or current_user(),
            account=account(),
            when=when.isoformat(timespec="seconds"),
            reason=reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…",
            decision=stored,
            commit=head(),
        ),
    )
    if action != Action.REFUSED:
        sync_aliases(ledger)
    _announce(entry, ledger.name, _lines(decision))
    return entry


def _append(ledger: LedgerRun, now: Standing, entry: Entry) -> Entry:
    while True:
        try:
            ledger.append(entry)
            return entry
        except Conflict:
            # What another process wrote may have changed nothing, such as a refusal.
            fresh = standing(ledger.entries())
            if fresh.versions != now.versions:
                raise
            entry = entry.model_copy(update={"sequence": fresh.sequence + 1})


def current_user() -> str:
    """Return who works here: the user and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _lines(decision: Decision | None) -> Sequence[str]:
    """Return what there is to say about a decision: what failed, else all of it."""
    if decision is None:
        return ()
    return decision.failures or [answer.message for answer in decision.answers]


def _announce(entry: Entry, name: str, lines: Sequence[str]) -> None:
    announce(
        Announcement(
            action=entry.action,
            name=name,
            version=entry.version,
            previous=entry.previous,
            who=entry.asked_by,
            reason=entry.reason,
            summary=tuple(lines),
            url=mlflow_page(f"models/{name}/versions/{entry.version}"),
        )
    )
