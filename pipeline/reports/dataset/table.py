"""A dataset's images, changes and checks as tables for a terminal."""

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.reports.dataset.facts import Change, Facts

MOST_CLASSES = 30
# What is said of a dataset even where it is in order.
ALWAYS = ("duplicates", "near_duplicates", "shift")


def render(facts: Facts) -> RenderableType:
    """Return what is known of a dataset."""
    info = facts.info
    lines = [f"source  {facts.source}"]
    if info.forgotten:
        lines.append(f"forgotten  {info.forgotten:,} images are kept out: data/forgotten.csv")
    if info.ignored:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in info.ignored.items())
        lines.append(f"ignored  {listed}")
    title = Text(f"{info.name}: {facts.total:,} images, {len(facts.images)} classes", "bold")
    return Group(title, _classes(facts), _versions(facts), _checks(facts), *map(Text, lines))


def _classes(facts: Facts) -> Table:
    table = Table("class", box=SIMPLE, show_footer=True)
    table.columns[0].footer = "all"
    for split in facts.splits:
        table.add_column(split, f"{facts.info.counts[split]:,}", justify="right")
    for name, counts in list(facts.images.items())[:MOST_CLASSES]:
        table.add_row(escape(name), *(f"{counts[split]:,}" for split in facts.splits))
    if (more := len(facts.images) - MOST_CLASSES) > 0:
        table.add_row(f"and {more} more: --json", *("" for _ in facts.splits))
    return table


def _versions(facts: Facts) -> RenderableType:
    if not facts.changes:
        return Text("no version is registered yet")
    table = Table("since version", "added", "removed", box=SIMPLE)
    for change in facts.changes:
        aliases = f" {', '.join(change.aliases)}" if change.aliases else ""
        table.add_row(f"{change.version}{escape(aliases)}", *numbers(change))
    return table


def numbers(change: Change) -> tuple[str, str]:
    """Return how many images were added and removed, in words."""
    if change.added is None or change.removed is None:
        return "not recorded", "not recorded"
    return f"{change.added:,}", f"{change.removed:,}"


def _checks(facts: Facts) -> Table:
    shown = [row for row in facts.checks if not row.passed or row.check in ALWAYS]
    others = len(facts.checks) - len(shown)
    table = Table("check", "", f"found ({others} other checks passed)", box=SIMPLE)
    for row in shown:
        mark = Text("ok", "green")
        if not row.passed:
            mark = Text(row.severity, "red" if row.severity == "error" else "yellow")
        table.add_row(row.check, mark, Text(row.message))
    return table
