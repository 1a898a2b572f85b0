"""A comparison for a terminal of 80 columns."""

from collections.abc import Iterable

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pipeline.reports.comparing.changes import Section
from pipeline.reports.comparing.comparison import Comparison
from pipeline.reports.comparing.side_by_side import (
    ComparedMetric,
    difference_text,
    interval_text,
    label_text,
    points,
    value_text,
)
from pipeline.reports.wording import forgotten_text

# The page shows all of them.
MOST_ROWS = 12
LONGEST = 120


def render(comparison: Comparison) -> RenderableType:
    """Return the metrics side by side, the number of flips, and what changed."""
    return Group(
        _sides(comparison),
        _metrics(comparison.metrics),
        *_pair(comparison),
        "",
        *(line for section in comparison.sections for line in _section(section)),
    )


def _sides(comparison: Comparison) -> RenderableType:
    lines = [
        f"{letter}  {escape(side.spec)}  recipe {escape(side.model)}, run {side.run_id[:8]}"
        + (f"; {', '.join(side.aliases)}" if side.aliases else "")
        + (f"; {forgotten_text(side.forgotten)}" if side.forgotten else "")
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    ]
    return Group(*lines)


def _metrics(metrics: Iterable[ComparedMetric]) -> Table:
    table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("")
    for name in ("A", "B", "B - A"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in metrics:
        table.add_row(
            label_text(row.name),
            value_text(row.a, row.name),
            value_text(row.b, row.name),
            difference_text(row),
        )
        intervals = interval_text(row.a, row.name), interval_text(row.b, row.name)
        if any(intervals):
            table.add_row("[dim]  95% interval[/]", *(f"[dim]{text}[/]" for text in intervals))
    return table


def _pair(comparison: Comparison) -> Iterable[str]:
    pairs = comparison.paired
    yield f"[bold]{escape(comparison.verdict)}[/]"
    if pairs is None:
        yield escape(comparison.reason)
        return
    low, high = pairs.difference.interval or (0.0, 0.0)
    yield f"  right -> wrong  {pairs.only_a:,}"
    yield f"  wrong -> right  {pairs.only_b:,}"
    yield f"  p = {pairs.p_value:.3g}  (McNemar, exact, two-sided)"
    if comparison.note:
        yield f"  {escape(comparison.note)}"
    yield f"  B - A = {points(pairs.difference.value)} points, {points(low)} to {points(high)}"


def _section(section: Section) -> Iterable[RenderableType]:
    if section.unknown:
        yield f"{section.name}: not known for {' and '.join(section.unknown)}"
        return
    if not section.changes:
        yield f"{section.name}: the same"
        return
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for change in section.changes[:MOST_ROWS]:
        table.add_row(*(escape(_short(text)) for text in (change.key, change.a, change.b)))
    yield f"{section.name}: what differs, A and B"
    yield table
    if len(section.changes) > MOST_ROWS:
        yield f"  and {len(section.changes) - MOST_ROWS} more, on the page"


def _short(text: str) -> str:
    if not text:
        return "-"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
