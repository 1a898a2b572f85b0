"""The ledger of a registered model: who moved production, when, from what to what, and why.

Entries are numbered and never change. Which version is in production follows from them alone; the
aliases in the registry are moved after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from pipeline.artifacts.record import Frozen


class Action(StrEnum):
    """What came of asking for a change of production; the ledger has entries of the first five."""

    PROMOTED = "promoted"
    FORCED = "forced"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"
    RESTORED = "restored"
    WOULD_PASS = "would pass"
    NOTHING = "nothing"
    FOUND = "found"

    @property
    def words(self) -> str:
        """What is said of the version, or of the model, in every place where people read it."""
        return _WORDS[self]

    def sentence(self, name: str, version: int | None, previous: int | None = None) -> str:
        """Return what came of it as a sentence.

        Args:
            name: the registered model.
            version: the version that it is about.
            previous: the version in production before; None where there was none, or it is not
                to be said.
        """
        of_model = self in (Action.RESTORED, Action.FOUND) or version is None
        subject = name if of_model else f"{name} version {version}"
        more = ""
        if previous and self in MOVES:
            more = f"; before: version {previous}"
        elif previous and self == Action.REFUSED:
            more = f": version {previous}"
        return f"{subject} {self.words}{more}"


_WORDS = {
    Action.PROMOTED: "is in production",
    Action.FORCED: "is in production, against the gate",
    Action.REFUSED: "is refused; production stays as it is",
    Action.ROLLED_BACK: "is in production again",
    Action.RESTORED: "has its aliases back where the ledger says",
    Action.WOULD_PASS: "passes the gate; nothing was changed",
    Action.NOTHING: "is in production already",
    Action.FOUND: "is not as the ledger says",
}
MOVES = (Action.PROMOTED, Action.FORCED, Action.ROLLED_BACK)


class Entry(Frozen):
    """One entry.

    Attributes:
        sequence: counted from 1.
        key: tells this entry from another one that was written under the same number.
        previous: the version in production before; None where there was none.
        version: the version in production after, or the one that was refused.
        when: UTC, ISO 8601.
        who: the name that was given for who asked; by default the user and the machine.
        account: the MLflow account that wrote the entry, as the server confirmed it; None where
            there are no accounts, and in entries from before this field.
        decision: the id under which the whole decision is stored; empty where none was taken.
        commit: the commit of the project from which it was asked for.
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
    def asked_by(self) -> str:
        """Who asked, with what is proven told from what is not."""
        unproven = f"{self.who} (not proven)"
        return f"MLflow account {self.account}; {unproven}" if self.account else unproven

    @property
    def time(self) -> datetime:
        """When it was made, in UTC."""
        return datetime.fromisoformat(self.when).astimezone(UTC)


class Question(NamedTuple):
    """Two versions that were compared on some test images.

    Attributes:
        images: the digest of the set of images.
    """

    candidate: int
    incumbent: int
    images: str


class Discrepancy(Frozen):
    """Something about a registered model that its ledger does not account for.

    Attributes:
        holder: the version that the alias points at; None where it points at none.
        ledger: the version that the ledger says.
    """

    name: str
    alias: str
    holder: int | None
    ledger: int | None
    message: str


@dataclass(frozen=True)
class Standing:
    """What follows from the entries.

    Attributes:
        versions: those in production one after the other, the present one last; a rollback takes
            the later ones away.
        ever: all versions that ever were in production.
        sequence: the number of the last entry; 0 where there is none.
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
        if entry.action == Action.ROLLED_BACK and entry.version in versions:
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
