"""Who moved production, when, from what to what and why: the entries, and what follows from them.

Entries are numbered and never change. Which version is in production follows from them alone; the
alias in the registry is moved after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.artifacts.record import Frozen

Action = Literal["promoted", "forced", "rolled back", "restored", "refused"]
MOVES = ("promoted", "forced", "rolled back")


class Entry(Frozen):
    """One entry.

    Attributes:
        sequence: counted from 1.
        key: tells this entry from another that was written for the same place.
        previous: the version in production before; None where there was none.
        version: that is in production after, or was refused.
        when: UTC, ISO 8601.
        who: asked for it, as they say; by default the user and the machine.
        account: the MLflow account that wrote the entry, as the server confirmed it; None where
            nothing did. An entry from before there was this field has none.
        decision: the id under which the whole decision is kept; empty where none was taken.
        commit: where the code stood from which it was asked for.
    """

    sequence: int
    key: str
    action: Action
    previous: int | None
    version: int | None
    who: str
    when: str
    reason: str
    account: str | None = None
    decision: str = ""
    commit: str | None = None

    @property
    def by(self) -> str:
        """Who it was, in words that tell what is proven from what is only said."""
        said = f"{self.who} (not proven)"
        return f"MLflow account {self.account}; {said}" if self.account else said

    @property
    def time(self) -> datetime:
        """When it was made, in UTC."""
        return datetime.fromisoformat(self.when).astimezone(UTC)


@dataclass(frozen=True)
class Standing:
    """What follows from the entries.

    Attributes:
        versions: those in production one after the other, the present one last; a rollback takes
            the later ones away.
        ever: all versions that ever were in production.
        sequence: of the last entry; 0 where there is none.
    """

    versions: tuple[int, ...]
    ever: frozenset[int]
    sequence: int

    @property
    def production(self) -> int | None:
        """The version in production."""
        return self.versions[-1] if self.versions else None

    @property
    def previous(self) -> int | None:
        """The version that a rollback returns to."""
        return self.versions[-2] if len(self.versions) > 1 else None


def standing(entries: Sequence[Entry]) -> Standing:
    """Follow the entries from the first to the last."""
    versions: list[int] = []
    ever: set[int] = set()
    for entry in entries:
        if entry.action not in MOVES or entry.version is None:
            continue
        if entry.action == "rolled back" and entry.version in versions:
            del versions[versions.index(entry.version) :]
        versions.append(entry.version)
        ever.add(entry.version)
    last = entries[-1].sequence if entries else 0
    return Standing(tuple(versions), frozenset(ever), last)


def in_production(entries: Sequence[Entry], begin: datetime, end: datetime) -> tuple[Entry, ...]:
    """Return the entries whose versions served between two moments, the first of them first."""
    moves = [entry for entry in entries if entry.action in MOVES]
    before = [entry for entry in moves if entry.time <= begin]
    return (*before[-1:], *(entry for entry in moves if begin < entry.time <= end))
