"""Parquet files of pseudo-labels: a row for each image, its boxes as a list, and in the footer what is in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    found = [predictions.get(image) for image in images]
    own = [one for one in found if one is not None]
    ids, scores, boxes = (
        np.concatenate([np.zeros(shape, kind), *(getattr(one, name) for one in own)])
        for name, shape, kind in (
            ("classes", 0, np.int64),
            ("scores", 0, np.float64),
            ("boxes_xywhn", (0, 4), np.float64),
        )
    )
    taken = thresholds.zone(ids, scores) == ACCEPT
    ends = np.cumsum([0, *(0 if one is None else len(one.classes) for one in found)])
    box = schema().field("boxes").type.value_type
    values = dict(zip("xywh", boxes.T, strict=True), class_id=ids, score=scores, accepted=taken)
    columns = [
        pa.array(images),
        *(pa.array([one and getattr(one, side) for one in found], pa.int32()) for side in ("width", "height")),
        pa.array([problems.get(image) for image in images], pa.string()),
        pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()),
            pa.StructArray.from_arrays([pa.array(values[field.name], field.type) for field in box], fields=list(box)),
        ),
    ]
    unreadable = len(columns[3]) - columns[3].null_count
    accepted, ignored = (np.bincount(ids[which], minlength=len(names)).tolist() for which in (taken, ~taken))
    about = Shard(
        images=len(images),
        unreadable=unreadable,
        accepted=dict(zip(names, accepted, strict=True)),
        ignored=dict(zip(names, ignored, strict=True)),
        **made_with,
    )
    told = {KEY: json.dumps(asdict(about), ensure_ascii=False, sort_keys=True).encode()}
    table = pa.Table.from_arrays(columns, schema=schema().with_metadata(told))
    with atomic_write(file) as temporary, open(temporary, "wb") as opened:  # which may have any name
        pa.parquet.write_table(
            table, opened, compression="zstd", row_group_size=max(len(images), 1), write_page_checksum=True
        )
    return about


def read_shard(file: Path, *, whole: bool = False) -> Shard | None:
    """What is in a shard, as its footer says; None if it is not there, or is no shard.

    Args:
        file: The file.
        whole: Also read all of it, and compare its checksums; None if one differs.
    """
    pa = arrow()
    if not file.is_file():
        return None
    try:
        with open(file, "rb") as opened:
            told = pa.parquet.read_schema(opened).metadata or {}
            if whole:
                pa.parquet.read_table(opened, page_checksum_verification=True)
        return Shard(**json.loads(told[KEY]))
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):  # cut, or of somebody else
        return None
