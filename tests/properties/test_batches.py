"""Boxes that travel through a batch: what is encoded comes out again, each on its own list."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfssd.batches import NO_TILE, TILES, LoadedBatch, PhotoBoxes, decode, encode, whole_image_tiles

NC = 3
unit = st.floats(0, 1, width=32)
box = st.tuples(unit, unit, unit, unit)
classes = st.integers(0, NC - 1)


def table(rows: list, columns: int) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, columns)


photos = st.builds(
    lambda accepted, ignored, truth: PhotoBoxes(
        table([(c, score, *b) for c, score, b in accepted], 6),
        table(ignored, 4),
        table([(c, *b) for c, b in truth], 5),
    ),
    st.lists(st.tuples(classes, unit, box), max_size=3),
    st.lists(box, max_size=3),
    st.lists(st.tuples(classes, box), max_size=3),
)


@given(st.lists(photos, min_size=1, max_size=4))
def test_what_is_encoded_comes_out_on_its_own_list(batch: list[PhotoBoxes]) -> None:
    rows = [torch.from_numpy(encode(boxes, photo=100 + i, nc=NC)) for i, boxes in enumerate(batch)]
    joined = torch.cat(rows)
    image = torch.cat([torch.full((len(r),), float(i)) for i, r in enumerate(rows)])
    loaded = {"cls": joined[:, :1], "score": joined[:, 1], "bboxes": joined[:, 2:], "batch_idx": image}
    loaded["labeled"] = torch.zeros(len(batch), dtype=torch.bool)
    decoded, truth = decode(cast(LoadedBatch, loaded), nc=NC)
    for i, boxes in enumerate(batch):
        mine = decoded["batch_idx"] == i
        learned = np.concatenate([decoded["cls"], decoded["score"][:, None], decoded["bboxes"]], 1)[mine]
        assert np.array_equal(learned, boxes.accepted)
        hidden = decoded["ignore_batch_idx"] == i
        if len(boxes.accepted):
            assert np.array_equal(decoded["ignore_bboxes"][hidden], boxes.ignored)
            assert (decoded["ignore_source"][hidden] == NO_TILE).all()
        else:
            assert hidden.sum() == TILES**2 and (decoded["ignore_source"][hidden] == 100 + i).all()
        real = truth[truth[:, 6] == i]
        assert np.array_equal(real[:, [5, 0, 1, 2, 3]], boxes.truth)


@given(st.integers(1, 12), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_tiles_cover_the_image_without_gap_or_overlap(n: int, x: float, y: float) -> None:
    tiles = whole_image_tiles(n).astype(float)
    assert tiles.shape == (n * n, 4) and abs(tiles[:, 2:].prod(1).sum() - 1) < 1e-5
    inside = (abs(tiles[:, :2] - [x, y]) <= tiles[:, 2:] / 2 + 1e-6).all(1).sum()
    assert 1 <= inside <= 4, "a point on the border of two tiles is in both"
