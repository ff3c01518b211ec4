"""Parquet files of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfssd.labeling.shards import Shard, file_of, read_shard, write_shard
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.thresholds import ClassThresholds

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'dfssd[parquet]'")

MADE = {"plan": "0" * 64, "dfssd": "1", "torch": "2", "ultralytics": "3"}
NAMES = ("pit", "dent")


def found(image: str, classes: list[int], scores: list[float]) -> ImagePrediction:
    boxes = np.array([[0.5, 0.5, 0.25, 0.125 * (1 + n)] for n in range(len(classes))]).reshape(-1, 4)
    return ImagePrediction(Path(image), 40, 20, np.array(classes, np.int64), np.array(scores, np.float64), boxes)


def written(file: Path) -> Shard:
    thresholds = ClassThresholds(2, tau_low=0.1, tau0=0.2, tau_max=0.9, decay=0.5, fixed=np.array([0.5, 0.75]))
    predictions = {"a.png": found("a.png", [0, 1, 1], [0.5, 0.7, 0.75]), "c.png": found("c.png", [], [])}
    return write_shard(file, ["a.png", "b.png", "c.png"], predictions, {"b.png": "is empty"}, thresholds, NAMES, **MADE)


def test_rows_and_footer(tmp_path: Path) -> None:
    file = file_of(tmp_path, 2, 12)
    assert file == tmp_path / "shards" / "labels-00002-of-00012.parquet"
    expected = Shard(images=3, unreadable=1, accepted={"pit": 1, "dent": 1}, ignored={"pit": 0, "dent": 1}, **MADE)
    assert written(file) == expected == read_shard(file)
    a, b, c = pq.read_table(file).to_pylist()
    assert (a["image"], a["width"], a["height"], a["problem"]) == ("a.png", 40, 20, None)
    assert [(box["class_id"], box["score"], box["accepted"]) for box in a["boxes"]] == [
        (0, 0.5, True), (1, np.float32(0.7), False), (1, 0.75, True),
    ]  # fmt: skip
    assert [[box[k] for k in "xywh"] for box in a["boxes"]][1] == [0.5, 0.5, 0.25, 0.25]
    assert b == {"image": "b.png", "width": None, "height": None, "problem": "is empty", "boxes": []}
    assert c == {"image": "c.png", "width": 40, "height": 20, "problem": None, "boxes": []}


def test_the_same_labels_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_what_is_no_shard_counts_as_missing(tmp_path: Path) -> None:
    import pyarrow as pa

    assert read_shard(tmp_path / "missing") is None
    written(tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-20])
    (tmp_path / "text").write_text("labels")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    for name in ("cut", "text", "foreign"):
        assert read_shard(tmp_path / name) is None
    whole, table, noticed = (tmp_path / "whole").read_bytes(), pq.read_table(tmp_path / "whole"), 0
    for place in range(4, 200, 7):  # pages of the columns, of which the footer knows nothing
        (tmp_path / "rotten").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        read = read_shard(tmp_path / "rotten", whole=True)  # statistics of a page, which nobody needs, may differ
        assert read is None or pq.read_table(tmp_path / "rotten") == table, place
        noticed += read is None
    assert noticed > 20
    assert read_shard(tmp_path / "whole", whole=True) is not None
