"""The batch: decoding inverts encoding, and each field agrees with its type."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfssd.batches import (
    IGNORED,
    NO_TILE,
    TILE_WIDER,
    TILES,
    TRUTH,
    Batch,
    HostBatch,
    LoadedBatch,
    PhotoBoxes,
    decode,
    encode,
    whole_image_tiles,
    widen_tiles,
)
from tests.batch_fields import check_fields
from tests.distillation.test_pair import make_batch

NC = 3


def loaded(*photos: PhotoBoxes, first: int = 0, labeled: int = 0, **more: torch.Tensor) -> LoadedBatch:
    """A batch of unlabeled photos, numbered from ``first``, as it is after Ultralytics' preprocessing."""
    rows = [encode(boxes, photo=first + i, nc=NC) for i, boxes in enumerate(photos)]
    table = torch.from_numpy(np.concatenate(rows))
    image = torch.cat([torch.full((len(r),), float(i)) for i, r in enumerate(rows)])
    batch = {
        "img": torch.zeros(len(photos), 3, 8, 8),
        "cls": table[:, :1],
        "score": table[:, 1],
        "bboxes": table[:, 2:],
        "batch_idx": image,
        "labeled": torch.arange(len(photos)) < labeled,
        **more,
    }
    return cast(LoadedBatch, batch)


def photo(accepted: Any = (), ignored: Any = (), truth: Any = ()) -> PhotoBoxes:
    return PhotoBoxes(
        np.reshape(accepted, (-1, 6)).astype(float),
        np.reshape(ignored, (-1, 4)).astype(float),
        np.reshape(truth, (-1, 5)).astype(float),
    )


def test_rows_of_a_photo_by_hand() -> None:
    boxes = photo([[1, 0.75, 0.5, 0.5, 0.25, 0.25]], [[0.125, 0.25, 0.5, 0.5]], [[2, 0.5, 0.25, 0.125, 0.125]])
    rows = encode(boxes, photo=7, nc=NC)
    assert rows.dtype == np.float32
    assert rows.tolist() == [
        [1, 0.75, 0.5, 0.5, 0.25, 0.25],
        [NC + IGNORED, NO_TILE, 0.125, 0.25, 0.5, 0.5],
        [NC + TRUTH + 2, 1, 0.5, 0.25, 0.125, 0.125],
    ]


def test_photo_without_accepted_box_is_tiled_and_the_tiles_know_it() -> None:
    rows = encode(photo(ignored=[[0.5, 0.5, 0.1, 0.1]]), photo=7, nc=NC)
    assert (rows[:, 0] == NC + IGNORED).all() and (rows[:, 1] == 7).all()
    assert np.array_equal(rows[:, 2:], whole_image_tiles()) and len(rows) == TILES**2


def test_batch_sorted_out_by_hand() -> None:
    first = photo([[1, 0.75, 0.5, 0.5, 0.25, 0.25]], [[0.125, 0.25, 0.5, 0.5]])
    batch, truth = decode(loaded(first, photo(truth=[[2, 0.5, 0.25, 0.125, 0.125]]), first=40), nc=NC)
    assert batch["cls"].tolist() == [[1]] and batch["score"].tolist() == [0.75] and batch["batch_idx"].tolist() == [0]
    assert batch["bboxes"].tolist() == [[0.5, 0.5, 0.25, 0.25]]
    assert batch["ignore_source"].tolist() == [NO_TILE] + [41] * TILES**2
    assert batch["ignore_batch_idx"].tolist() == [0] + [1] * TILES**2
    assert batch["ignore_bboxes"][0].tolist() == [0.125, 0.25, 0.5, 0.5], "no tile, not widened"
    assert (batch["ignore_bboxes"][1:, 2:] == TILE_WIDER / TILES).all()
    assert truth.tolist() == [[0.5, 0.25, 0.125, 0.125, 1, 2, 1]]


SHARES = st.floats(0, 1, width=32)


def rows(*columns: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.tuples(*columns), max_size=4)


BOX = (SHARES, SHARES, SHARES, SHARES)
CLASS = st.integers(0, NC - 1)
PHOTOS = st.lists(st.builds(photo, rows(CLASS, SHARES, *BOX), rows(*BOX), rows(CLASS, *BOX)), min_size=1, max_size=4)


@given(PHOTOS, st.integers(0, 2**24 - 4))
def test_what_is_encoded_comes_back(photos: list[PhotoBoxes], first: int) -> None:
    batch, truth = decode(loaded(*photos, first=first), nc=NC)
    check_fields(batch, HostBatch)
    for i, boxes in enumerate(photos):
        mine = batch["batch_idx"] == i
        learned = np.concatenate([batch["cls"], batch["score"][:, None], batch["bboxes"]], 1)[mine]
        assert learned.tolist() == boxes.accepted.tolist()
        ignored, source = (batch[k][batch["ignore_batch_idx"] == i] for k in ("ignore_bboxes", "ignore_source"))
        if len(boxes.accepted):
            assert ignored.tolist() == boxes.ignored.tolist() and (source == NO_TILE).all()
        else:
            tiles = whole_image_tiles()
            assert np.array_equal(ignored, widen_tiles(tiles, np.zeros(len(tiles)))) and (source == first + i).all()
        true = truth[truth[:, 6] == i]
        assert np.concatenate([true[:, 5:6], true[:, :4]], 1).tolist() == boxes.truth.tolist()


@given(st.lists(st.tuples(st.sampled_from([NO_TILE, 0.0, 9.0]), *BOX), max_size=5))
def test_widening_keeps_centers_and_other_boxes(table: list[tuple[float, ...]]) -> None:
    source, given_boxes = np.split(np.array(table, np.float32).reshape(-1, 5), [1], 1)
    source = source.flatten()
    wide = widen_tiles(given_boxes, source)
    assert wide.dtype == np.float32 and np.array_equal(wide[:, :2], given_boxes[:, :2])
    assert np.array_equal(wide[source < 0], given_boxes[source < 0])
    assert np.array_equal(wide[source >= 0, 2:], given_boxes[source >= 0, 2:] * TILE_WIDER)


def test_tiles_cover_the_image_once() -> None:
    tiles = whole_image_tiles(4)
    assert tiles.shape == (16, 4)
    assert np.isclose((tiles[:, 2] * tiles[:, 3]).sum(), 1)
    low, high = tiles[:, :2] - tiles[:, 2:] / 2, tiles[:, :2] + tiles[:, 2:] / 2
    assert low.min() == 0 and high.max() == 1
    point = np.array([0.3, 0.8])
    assert ((low < point) & (point < high)).all(1).sum() == 1


def test_the_teachers_views_follow_a_resize_of_the_students() -> None:
    weak = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    same = decode(loaded(photo(), weak_img=weak), nc=NC)[0]
    assert torch.equal(same["weak_img"], torch.ones(1, 3, 8, 8))
    resized = decode(loaded(photo(), weak_img=weak, img=torch.zeros(1, 3, 16, 12)), nc=NC)[0]
    assert torch.allclose(resized["weak_img"], torch.ones(1, 3, 16, 12))
    check_fields(resized, HostBatch)


def test_batch_made_for_the_tests_of_the_pair_is_one() -> None:
    assert check_fields(make_batch([True, False], ignore=[(1, [0.5, 0.5, 1.0, 1.0])]), Batch)["K"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls": torch.zeros(2, 1, dtype=torch.long)}, "cls is torch.int64, not float32"),
        ({"score": torch.zeros(3)}, r"score is \(3,\), not \(M\)"),
        ({"bboxes": np.zeros((2, 4), np.float32)}, "bboxes is a ndarray"),
        ({"masks": torch.zeros(1)}, "fields without a description: \\['masks'\\]"),
    ],
)
def test_another_batch_is_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_fields({**make_batch([True, False]), **change}, Batch)
