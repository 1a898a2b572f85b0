"""The tiny dataset as it was ingested and checked: what registered versions know, or a bit else."""

from hashlib import sha256

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.artifacts.datasets import DatasetInfo
from pipeline.validation.validate import validate
from pipeline.workspace import Workspace
from tests.tiny import CLASS_NAMES, IMAGE_SHAPE, images_of


def ingested(here, gone=0, more=0):
    """Make the raw dataset of a project, without the first images and with some others."""
    workspace, splits = Workspace("tiny", here.folder), here.splits
    x = np.concatenate([splits.x("train"), splits.x("val")])[gone:]
    y = np.concatenate([splits.y("train"), splits.y("val")])[gone:]
    new = np.arange(more) % len(CLASS_NAMES)
    raw = workspace.raw
    x, y = np.concatenate([x, images_of(new, 99)]), np.concatenate([y, new])
    raw.save_split("train", x, y)
    raw.save_split("test", splits.x("test"), splits.y("test"))
    every = [*x, *splits.x("test")]
    pd.DataFrame(
        {
            "split": ["train"] * len(x) + ["test"] * (len(every) - len(x)),
            "file": [f"{number}.png" for number in range(len(every))],
            "height": 8,
            "width": np.arange(len(every)) + 8,
            "mode": "L",
            "error": "",
            "key": "",
            "content": [sha256(image.tobytes()).hexdigest() for image in every],
        }
    ).to_parquet(raw.files)
    counts = {"train": len(x), "test": len(every) - len(x)}
    DatasetInfo(
        name="tiny",
        class_names=CLASS_NAMES,
        image_shape=IMAGE_SHAPE,
        counts=counts,
        expected=counts,
        origin=({"file": "tiny", "from": "made up", "sha256": ""},),
    ).save(raw.path / "metadata.json")
    validate(raw, {}, workspace.validation, workspace.accepted)
    return raw


def picture(image, path):
    """Write an image of the dataset as a file."""
    Image.fromarray(image.squeeze()).save(path)
    return path
