"""A ledger and its decisions, as tables for people and as JSON for machines."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pipeline.cli.app import print_json
from pipeline.errors import ParamsError
from pipeline.registry.ledger import Action, Entry, in_production

if TYPE_CHECKING:
    from pipeline.production.decision import Decision


def show(name: str, on: datetime | None, number: int | None, as_json: bool) -> None:
    """Print a ledger, or what it says of a day, or one entry with its decision.

    Raises:
        ParamsError: there is no such entry.
        TrackingError: there is no such model, or the store cannot be reached.
    """
    from pipeline.production.decision import Decision
    from pipeline.registry import versions
    from pipeline.registry.ledger_run import ledger_of

    versions.check_name(name)
    ledger = ledger_of(name)
    entries = ledger.entries()
    if on is not None:
        _show_day(name, entries, on, as_json)
    elif number is not None:
        entry = next((e for e in entries if e.sequence == number), None)
        if entry is None:
            raise ParamsError(
                f"the ledger of {name} has no entry {number}; it has {len(entries)}, from 1 up"
            )
        decision = ledger.decision(entry)
        if as_json:
            print_json({**entry.model_dump(mode="json"), "decision": decision})
            return
        Console().print(render([entry], name))
        if decision is not None:
            Console().print(render_decision(Decision.model_validate(decision)))
    elif as_json:
        print_json({"name": name, "entries": [entry.model_dump(mode="json") for entry in entries]})
    else:
        Console().print(render(entries, name) if entries else f"{name}: no entry yet")


def _show_day(name: str, entries: tuple[Entry, ...], on: datetime, as_json: bool) -> None:
    begin = on.replace(tzinfo=UTC)
    # Without a time the whole day is meant.
    whole_day = begin.time() == datetime.min.time()
    end = begin + timedelta(days=1, microseconds=-1) if whole_day else begin
    served = in_production(entries, begin, end)
    if as_json:
        rows = [entry.model_dump(mode="json") for entry in served]
        print_json({"name": name, "from": begin.isoformat(), "to": end.isoformat(), "served": rows})
        return
    if not served:
        print(f"{name}: nothing was in production then")
    for entry in served:
        print(
            f"{name}: version {entry.version}, {entry.action} at {entry.when} by {entry.asked_by}"
        )


def render(entries: Sequence[Entry], name: str) -> Table:
    """Return the entries as a table, the last one first."""
    table = Table(title=f"{name}: who moved production", box=SIMPLE)
    for column in ("", "when (UTC)", "what", "MLflow account", "who, as they say", "why"):
        table.add_column(column, overflow="fold", no_wrap=column == "when (UTC)")
    for entry in reversed(entries):
        before, after = entry.previous or "-", entry.version or "-"
        refused = entry.action == Action.REFUSED
        what = f"{entry.action} {after}" if refused else f"{entry.action}: {before} → {after}"
        when = f"{entry.time:%Y-%m-%d %H:%M}"
        texts = (escape(text) for text in (entry.account or "-", entry.who, entry.reason))
        table.add_row(str(entry.sequence), when, what, *texts)
    return table


def render_decision(decision: "Decision") -> RenderableType:
    """Return every rule with its value and limit, what failed, and what the decision rests on."""
    other = f"against version {decision.incumbent}" if decision.incumbent else "nothing serves yet"
    table = Table(title=f"version {decision.candidate}, {other}", box=SIMPLE)
    for column in ("", "rule", "value", "limit"):
        table.add_column(column)
    for answer in decision.answers:
        mark = "[green]pass[/]" if answer.passed else "[red]FAIL[/]"
        table.add_row(mark, answer.name, _short(answer.value), _short(answer.limit))
    said = (*decision.failures, *decision.notes)
    return Group(table, *(f"- {escape(text)}" for text in said))


def _short(value: float | str) -> str:
    # The start of an md5 is enough to recognise it.
    return value[:12] if isinstance(value, str) else f"{value:.4g}"
