"""Parquet files of pseudo-labels: a row for each image, its boxes as a list, and in the footer what is in the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.thresholds import ACCEPT, ClassThresholds

FOLDER = "shards"
"""Folder of the shards, below that of the labels."""

KEY = b"dfssd"
"""The entry of a footer with :class:`Shard`, in JSON."""

MISSING = "Parquet files need pyarrow, which is not installed: pip install 'dfssd[parquet]'"


@dataclass(frozen=True)
class Shard:
    """What is in a file.

    Attributes:
        plan: SHA-256 of the plan that it was made by.
        images: Number of images.
        unreadable: How many of them cannot be read.
        accepted: Boxes by class with a score of at least the threshold of the class.
        ignored: Boxes by class below it, which are neither labels nor background.
        dfssd: Version of dfssd.
        torch: Version of PyTorch.
        ultralytics: Version of Ultralytics.
    """

    plan: str
    images: int
    unreadable: int
    accepted: Mapping[str, int]
    ignored: Mapping[str, int]
    dfssd: str
    torch: str
    ultralytics: str


def arrow() -> Any:
    """The package ``pyarrow``, with its module ``parquet``.

    Raises:
        UserError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as e:
        raise UserError(MISSING) from e
    return pyarrow


@cache
def schema() -> Any:
    """Columns of a shard.

    ``image``: as in the list. ``width``, ``height``: of the file [px]. ``problem``: why an image cannot be read, else
    null. ``boxes``: ``class_id``; ``score`` in [0, 1]; ``x``, ``y``, ``w``, ``h``: center and size as shares of width
    and height; ``accepted``: a label; otherwise the box is neither a label nor background.
    """
    pa = arrow()
    shares = [(name, pa.float32()) for name in ("score", "x", "y", "w", "h")]
    box = pa.struct([("class_id", pa.int32()), *shares, ("accepted", pa.bool_())])
    return pa.schema(
        [
            pa.field("image", pa.string(), nullable=False),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("problem", pa.string()),
            pa.field("boxes", pa.list_(box), nullable=False),
        ]
    )


def file_of(folder: Path, number: int, total: int) -> Path:
    """The file of a shard of ``total``."""
    return folder / FOLDER / f"labels-{number:05}-of-{total:05}.parquet"


def write_shard(
    file: Path,
    images: Sequence[str],
    predictions: Mapping[str, ImagePrediction],
    problems: Mapping[str, str],
    thresholds: ClassThresholds,
    names: Sequence[str],
    **made_with: str,
) -> Shard:
    """Write a shard, whole or not at all; the same labels make the same bytes.

    Args:
        file: Where to.
        images: All its images, as the list names them.
        predictions: Image -> what was found, of those that can be read.
        problems: Image -> why it cannot be read, of the others.
        thresholds: Of the classes.
        names: Class names in id order.
        made_with: ``plan`` and versions of :class:`Shard`.

    Returns:
        What is in it.
    """
    pa = arrow()
    rows, accepted, ignored = [], Counter(dict.fromkeys(names, 0)), Counter(dict.fromkeys(names, 0))
    for image in images:
        found = predictions.get(image)
        boxes = [] if found is None else list(_boxes(found, thresholds.zone(found.classes, found.scores) == ACCEPT))
        for box in boxes:
            (accepted if box["accepted"] else ignored)[names[box["class_id"]]] += 1
        rows.append(
            {
                "image": image,
                "width": None if found is None else found.width,
                "height": None if found is None else found.height,
                "problem": problems.get(image),
                "boxes": boxes,
            }
        )
    unreadable = sum(row["problem"] is not None for row in rows)
    about = Shard(images=len(rows), unreadable=unreadable, accepted=dict(accepted), ignored=dict(ignored), **made_with)
    told = {KEY: json.dumps(asdict(about), ensure_ascii=False, sort_keys=True).encode()}
    table = pa.Table.from_pylist(rows, schema=schema().with_metadata(told))
    with atomic_write(file) as temporary:
        pa.parquet.write_table(table, temporary, compression="zstd", row_group_size=max(len(rows), 1))
    return about


def _boxes(found: ImagePrediction, accepted: np.ndarray) -> Iterator[dict[str, Any]]:
    for number, score, (x, y, w, h), taken in zip(
        found.classes.tolist(), found.scores.tolist(), found.boxes_xywhn.tolist(), accepted.tolist(), strict=True
    ):
        yield {"class_id": number, "score": score, "x": x, "y": y, "w": w, "h": h, "accepted": taken}


def read_footer(file: Path) -> Shard | None:
    """What is in a shard; None if it is not there, or is no shard."""
    pa = arrow()
    if not file.is_file():
        return None
    try:
        told = pa.parquet.read_schema(file).metadata or {}
        return Shard(**json.loads(told[KEY]))
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):  # cut, or of somebody else
        return None
