"""Where images lie in shards: those of earlier versions stay, new ones are put behind them."""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.shards import Shard
from pipeline.data.shards.index import Earlier

SHARD_BYTES = 2**26
# A shard is written anew without its dead rows, of images that are gone, where they are more.
MOST_DEAD = 0.25


@dataclass(frozen=True)
class Arrangement:
    """The shards of a dataset.

    Attributes:
        kept: which of the earlier shards stay as they are.
        shards: all: those that are kept, then the new ones.
        moved: rows of the earlier shards that are copied to the first rows of the new ones.
        new: the contents that are decoded into the rows after these.
        rows: the row of each content, counted through all shards.
    """

    kept: tuple[int, ...]
    shards: tuple[Shard, ...]
    moved: NDArray[np.int64]
    new: list[bytes]
    rows: dict[bytes, int]

    @property
    def written(self) -> tuple[Shard, ...]:
        """The new shards."""
        return self.shards[len(self.kept) :]


def arrange(
    earlier: Earlier,
    wanted: Sequence[bytes],
    image_shape: tuple[int, int, int],
    made_by: str,
    forgotten: Container[bytes] = (),
) -> Arrangement:
    """Arrange images so that few files are written, and no shard stays small for ever.

    A shard with too many dead rows is written anew, and so are the last shards while they are not
    larger than what comes behind them: of n images that come a few at a time, each is so written
    log(n) times at most, and there are as many small shards.

    Args:
        earlier: the shards that are there.
        wanted: the content of each image; equal ones share a row.
        image_shape: height, width, channels.
        made_by: part of the names of new shards.
        forgotten: contents of which no dead row may stay.
    """
    found = earlier.index.content.tobytes()
    there = np.flatnonzero(earlier.index.content.any(axis=1)).tolist()
    known = {found[32 * row : 32 * row + 32]: row for row in there}
    contents = dict.fromkeys(wanted)
    new = [content for content in contents if content not in known]
    live = np.zeros(len(earlier.index.error), np.bool_)
    live[[row for content in contents if (row := known.get(content, -1)) >= 0]] = True
    most = max(1, SHARD_BYTES // int(np.prod(image_shape)))
    sizes = [shard.rows for shard in earlier.shards]
    starts = earlier.starts
    lives = [int(live[a:b].sum()) for a, b in pairwise(starts.tolist())]
    dead = [row for content, row in known.items() if not live[row] and content in forgotten]
    refused = set((np.searchsorted(starts, dead, "right") - 1).tolist())
    kept = [
        n
        for n, size in enumerate(sizes)
        if n not in refused and lives[n] and lives[n] >= (1 - MOST_DEAD) * size
    ]
    coming = len(new) + sum(lives) - sum(lives[n] for n in kept)
    while coming and kept and sizes[kept[-1]] <= min(coming, most // 2):
        coming += lives[kept.pop()]
    stay = np.zeros(len(live), np.bool_)
    for n in kept:
        stay[starts[n] : starts[n + 1]] = True
    moved = np.flatnonzero(live & ~stay)
    order = [*(found[32 * row : 32 * row + 32] for row in moved.tolist()), *new]
    parts = [order[start : start + most] for start in range(0, len(order), most)]
    written = [Shard(name=_name(part, made_by), rows=len(part)) for part in parts]
    shards = (*(earlier.shards[n] for n in kept), *written)
    # The last row of an earlier shard that stays is followed by the first of the next that does.
    now = np.where(stay, np.cumsum(stay) - 1, -1).tolist()
    rows = {content: now[row] for content, row in known.items() if now[row] >= 0}
    first = int(stay.sum())
    rows |= {content: first + place for place, content in enumerate(order)}
    return Arrangement(tuple(kept), shards, moved, new, rows)


def _name(contents: Sequence[bytes], made_by: str) -> str:
    """Return a name that says what is in a shard; equal content has the same name anywhere."""
    digest = hashlib.sha256(made_by.encode())
    for content in contents:
        digest.update(content)
    return f"shard-{digest.hexdigest()[:16]}.npy"
