"""What people call the splits of a dataset."""

import re

from pipeline.artifacts.datasets import Split

_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_NAMES: dict[str, Split] = {
    f"{word}{end}": split
    for split, words in _WORDS.items()
    for word in words
    for end in ("", "set", "data", "images", "split")
}


WORDS = re.compile(r"[^_\- ]+")


def split_named(name: str) -> Split | None:
    """Return the split that a name stands for, such as `Training` or `test_set`; None for none."""
    return _NAMES.get("".join(letter for letter in name.lower() if letter not in "_- "))


def split_within(name: str) -> Split | None:
    """Return the split that one word of a name stands for, such as `seg_train`; None for none."""
    found = [split for word in WORDS.findall(name) if (split := split_named(word))]
    return found[0] if len(found) == 1 else None
