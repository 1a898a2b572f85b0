"""scikit-learn's digits as a RawDataset, which tests damage."""

from functools import cache
from hashlib import sha256

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from pipeline.artifacts.datasets import DatasetInfo, RawDataset

TRAIN = 1437


@cache
def digits():
    data = load_digits()
    return np.rint(data.images * 255 / 16).astype(np.uint8)[..., None], data.target


def raw_dataset(folder, damage=None, expected=None):
    """Write digits below a folder; `damage` may change the arrays and the table of files first."""
    x, y = (part.copy() for part in digits())
    files = pd.DataFrame(
        {
            "split": ["train"] * TRAIN + ["test"] * (len(y) - TRAIN),
            "file": [f"{number:04}.png" for number in range(len(y))],
            "height": 8,
            "width": 8,
            "mode": "L",
            "error": "",
            "key": "",
            "content": [sha256(image.tobytes()).hexdigest() for image in x],
        }
    )
    if damage:
        x, y = damage(x, y, files) or (x, y)
    raw = RawDataset(folder / "raw")
    raw.path.mkdir(parents=True, exist_ok=True)
    raw.save_split("train", x[:TRAIN], y[:TRAIN])
    raw.save_split("test", x[TRAIN:], y[TRAIN:])
    files.to_parquet(raw.files)
    DatasetInfo(
        name="digits",
        class_names=tuple("0123456789"),
        image_shape=(8, 8, 1),
        counts={"train": TRAIN, "test": len(y) - TRAIN},
        expected=expected,
    ).save(raw.path / "metadata.json")
    return raw
