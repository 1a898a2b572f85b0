"""The measures behind the checks of a whole dataset: pure functions of its manifest."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from pipeline.artifacts.datasets import NO_ENDING
from pipeline.artifacts.record import Frozen

if TYPE_CHECKING:
    from pandas import DataFrame

# People need a few examples in a message, not ten thousand.
MOST_OFFENDERS = 10
Histograms = tuple[tuple[int, ...], ...]  # by channel: how many pixels each bin of brightness has


class Facts(Frozen):
    """What the manifest is compared with.

    Attributes:
        image_shape: height, width, channels.
        expected: images per split.
        histograms: the histograms of all readable images of this version.
        accepted: the histograms of the version that was accepted before it; None for none.
        ignored: files of the source that are not read, by ending or system folder.
        forgotten: images that are kept out because `data/forgotten.csv` names them.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    expected: dict[str, int]
    histograms: Histograms
    accepted: Histograms | None = None
    ignored: dict[str, int] = Field(default_factory=dict)
    forgotten: int = 0


@dataclass(frozen=True)
class Finding:
    """What a check found: a number, the first offenders, and a note."""

    observed: float
    offenders: tuple[str, ...] = ()
    note: str = ""


def addresses(rows: "DataFrame") -> list[str]:
    """Name images so that the split is seen, as in `test/cat/1.png`."""
    return [
        file if file.startswith(f"{split}/") else f"{split}/{file}"
        for split, file in zip(rows["split"], rows["file"], strict=True)
    ]


def pixel_range(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of images that are not `uint8`, or that seem to be scaled to 0..1."""
    scaled = (manifest["max"] > 0) & (manifest["max"] <= 1)
    bad = manifest[(manifest["dtype"] != "uint8") | scaled]
    return Finding(_share(bad, manifest), tuple(addresses(bad.head(MOST_OFFENDERS))))


def classes_in_every_split(manifest: "DataFrame", facts: Facts) -> Finding:
    """Number of pairs of a split and a class that have no image."""
    pairs = manifest[["split", "label"]].drop_duplicates()
    present = set(zip(pairs["split"], pairs["label"], strict=True))
    missing = [
        f"{split}: no {name}"
        for split in facts.expected
        for label, name in enumerate(facts.class_names)
        if (split, label) not in present
    ]
    return Finding(len(missing), tuple(missing[:MOST_OFFENDERS]))


def balance(manifest: "DataFrame", facts: Facts) -> Finding:
    """Largest class over smallest class, of the split where that is highest."""
    if manifest.empty:
        return Finding(1)
    counts = manifest.groupby(["split", "class_name"]).size()
    by_split = counts.groupby("split")
    ratios = by_split.max() / by_split.min()
    worst = str(ratios.idxmax())
    classes = by_split.get_group(worst).droplevel("split")
    note = (
        f"{worst} has {classes.max()} of {classes.idxmax()} and {classes.min()} of "
        f"{classes.idxmin()}"
    )
    return Finding(float(ratios.max()), note=note)


def row_counts(manifest: "DataFrame", facts: Facts) -> Finding:
    """Sum of the differences to the counts that the dataset must have."""
    found = manifest["split"].value_counts()
    counts = {split: (int(found.get(split, 0)), want) for split, want in facts.expected.items()}
    wrong = [f"{split}: {got}, not {want}" for split, (got, want) in counts.items() if got != want]
    return Finding(sum(abs(got - want) for got, want in counts.values()), tuple(wrong))


def duplicates(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of images that have the pixels of an earlier one of the same split."""
    rows = manifest.dropna(subset="sha256")
    again = rows[rows.duplicated(["split", "sha256"])]
    return Finding(_share(again, rows), _pairs(again, rows, ["split", "sha256"]))


def leakage(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of the test images that have the pixels of a train image."""
    rows = manifest.dropna(subset="sha256")
    in_train, in_test = rows["split"] == "train", rows["split"] == "test"
    # Numbers for the checksums: isin() of a million texts takes seconds, and a copy of them all.
    codes = rows["sha256"].factorize()[0]
    train, test = rows[in_train], rows[in_test]
    known = rows[in_test & np.isin(codes, codes[in_train])]
    return Finding(_share(known, test), _pairs(known, train, ["sha256"]))


def near_duplicates(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of images that nearly repeat an earlier one, of whichever split."""
    first = manifest["near_duplicate_of"]
    # Where only some of the images are looked at, the first may not be among them.
    again = manifest[(first != manifest.index) & first.isin(manifest.index)]
    twins = manifest.loc[again["near_duplicate_of"]]
    across = (again["split"].to_numpy() != twins["split"].to_numpy()).nonzero()[0]
    # Those in two splits first: they make a test easier than it looks.
    order = np.concatenate([across, np.setdiff1d(np.arange(len(again)), across)])
    shown = order[:MOST_OFFENDERS]
    named = zip(addresses(again.iloc[shown]), addresses(twins.iloc[shown]), strict=True)
    note = f"{len(across)} of {len(again)} across splits" if len(again) else ""
    return Finding(_share(again, manifest), tuple(f"{a} ~ {b}" for a, b in named), note)


def group_leakage(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of the images outside of train whose group is in train too."""
    in_train = manifest["split"] == "train"
    others = manifest[~in_train]
    leaked = others[(others["group"] != "") & others["group"].isin(manifest["group"][in_train])]
    shown = leaked.head(MOST_OFFENDERS)
    named = zip(addresses(shown), shown["group"], strict=True)
    groups = leaked["group"].nunique()
    note = f"{groups} group{'s' if groups != 1 else ''}" if groups else ""
    return Finding(_share(leaked, others), tuple(f"{a} of group {g}" for a, g in named), note)


def label_conflict(manifest: "DataFrame", facts: Facts) -> Finding:
    """Share of images whose pixels occur under more than one label, in whichever split."""
    rows = manifest.dropna(subset="sha256")
    again = rows[rows.duplicated("sha256", keep=False)]
    bad = again[again.groupby("sha256")["label"].transform("nunique") > 1]
    first = bad.sort_values("sha256", kind="stable").head(MOST_OFFENDERS)
    named = zip(addresses(first), first["class_name"], strict=True)
    return Finding(_share(bad, rows), tuple(f"{file} is {name}" for file, name in named))


def shift(manifest: "DataFrame", facts: Facts) -> Finding:
    """How far the brightness of the pixels moved, of the channel where it moved most.

    It is the Wasserstein distance of two histograms as a share of the range: 0.1 is what making
    every pixel brighter by a tenth of the range gives. Where the number of channels changed, the
    histograms of all channels together are compared.
    """
    if facts.accepted is None:
        return Finding(0, note="there is no earlier version")
    now, before = np.array(facts.histograms, float), np.array(facts.accepted, float)
    if len(now) != len(before):
        now, before = now.sum(axis=0, keepdims=True), before.sum(axis=0, keepdims=True)
    gaps = np.abs(_cumulative(now) - _cumulative(before)).mean(axis=1)
    return Finding(float(gaps.max()), note="compared with the version accepted before")


def ignored(manifest: "DataFrame", facts: Facts) -> Finding:
    """Number of files that are not read because of their ending; the note has the others."""
    unread = {
        name: count
        for name, count in facts.ignored.items()
        if name == NO_ENDING or (name.startswith(".") and not name.endswith("/"))
    }
    shown = tuple(f"{count} {name}" for name, count in sorted(unread.items()))
    others = sum(facts.ignored.values()) - sum(unread.values())
    notes = [f"and {others} that systems or tools made, or `ignore` names"] if others else []
    if facts.forgotten:
        notes.append(f"and {facts.forgotten} images that data/forgotten.csv names")
    return Finding(sum(unread.values()), shown[:MOST_OFFENDERS], ", ".join(notes))


def _cumulative(histograms: "np.typing.NDArray[np.float64]") -> "np.typing.NDArray[np.float64]":
    totals = np.maximum(1, histograms.sum(axis=1, keepdims=True))
    return np.cumsum(histograms / totals, axis=1)


def _share(some: "DataFrame", of: "DataFrame") -> float:
    return len(some) / max(1, len(of))


def _pairs(images: "DataFrame", twins: "DataFrame", on: list[str]) -> tuple[str, ...]:
    """Name the first images, each with the first of its twins: `test/1 = train/7`."""
    head = images.head(MOST_OFFENDERS)
    first = twins[twins["sha256"].isin(head["sha256"])].drop_duplicates(on)
    pairs = head.merge(first.assign(twin=addresses(first))[[*on, "twin"]], on=on)
    return tuple(f"{a} = {b}" for a, b in zip(addresses(pairs), pairs["twin"], strict=True))
