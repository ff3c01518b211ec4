"""Box arithmetic and the layouts of a batch's boxes, compared with a loop over every box and anchor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dfssd.datasets.label_files import clip_box, format_labels, read_label_file
from dfssd.datasets.overlap import box_iou
from dfssd.distillation.targets import padded
from dfssd.distillation.terms.crd import giou_response
from dfssd.pseudo_labels.files import label_stems
from dfssd.pseudo_labels.quality import find_matches
from dfssd.pseudo_labels.teacher_inference import normalize_boxes
from tests.distillation.anchors import ignored_anchors

unit = st.floats(0, 1)
side = st.floats(1e-3, 1)
box = st.tuples(unit, unit, side, side)
inner_box = box.map(lambda b: ((b[0] + 1) / 3, (b[1] + 1) / 3, b[2] / 2, b[3] / 2))
"""A box that does not touch the border, where rounding decides whether it is cut."""
boxes = st.lists(box, max_size=6).map(lambda rows: np.array(rows, np.float64).reshape(-1, 4))


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a, b) -> None:
    overlap = box_iou(a, b)
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-9)).all()
    np.testing.assert_allclose(overlap, box_iou(b, a).T)


@given(boxes)
def test_iou_with_itself_is_1(a) -> None:
    np.testing.assert_allclose(np.diag(box_iou(a, a)), 1, rtol=1e-9)


@given(boxes, boxes, st.floats(-2, 2), st.floats(0.1, 10))
def test_iou_does_not_depend_on_place_and_units(a, b, shift, scale) -> None:
    moved = [np.concatenate([(x[:, :2] + shift) * scale, x[:, 2:] * scale], axis=1) for x in (a, b)]
    np.testing.assert_allclose(box_iou(*moved), box_iou(a, b), atol=1e-9)


@given(box, box)
def test_iou_of_boxes_apart_is_0(a, b) -> None:
    apart = (a[0] + a[2] / 2 + b[2] / 2 + 1e-6, *b[1:])
    assert box_iou(np.array([a]), np.array([apart])) == 0


@given(boxes, boxes, st.floats(0.05, 1), st.data())
def test_matches_are_pairs_and_low_scores_have_no_say(predicted, truth, iou, data) -> None:
    scores = np.array(data.draw(st.lists(unit, min_size=len(predicted), max_size=len(predicted))))
    found = find_matches(predicted, scores, truth, iou)
    assert found.sum() <= min(len(predicted), len(truth))
    overlaps = box_iou(predicted, truth).max(1, initial=0)
    assert (overlaps[found] >= iou).all()
    kept = scores >= data.draw(unit)
    assert np.array_equal(find_matches(predicted[kept], scores[kept], truth, iou), found[kept])


@given(box)
def test_clipped_box_lies_in_the_image_and_one_that_did_is_untouched(given_box) -> None:
    clipped = clip_box(*given_box)
    x, y, w, h = clipped
    assert w > 0 and h > 0
    assert min(x - w / 2, y - h / 2) >= -1e-12 and max(x + w / 2, y + h / 2) <= 1 + 1e-12
    np.testing.assert_allclose(clip_box(*clipped), clipped, atol=1e-12)
    gx, gy, gw, gh = given_box
    if min(gx - gw / 2, gy - gh / 2) >= 0 and max(gx + gw / 2, gy + gh / 2) <= 1:
        assert clipped == given_box


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4))
def test_whatever_is_no_box_is_a_value_error(values) -> None:
    try:
        clipped = clip_box(*values)
    except ValueError:
        return
    assert all(0 <= value <= 1 for value in clipped)


@given(st.lists(st.tuples(st.integers(0, 9), inner_box), max_size=6))
def test_label_file_keeps_every_bit(tmp_path_factory, rows) -> None:
    file = tmp_path_factory.mktemp("labels") / "a.txt"
    boxes = np.array([[c, *b] for c, b in rows], np.float32).reshape(-1, 5)
    file.write_text(format_labels(boxes), encoding="utf-8")
    once = np.array(list(dict.fromkeys(map(tuple, boxes.tolist()))), np.float32).reshape(-1, 5)
    assert np.array_equal(read_label_file(file, 10), once), "the same box twice is one"


corner = st.floats(-100, 300, width=32)


@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=6), st.integers(1, 200), st.integers(1, 200))
def test_normalized_boxes_have_an_area_in_the_image(corners, width, height) -> None:
    normalized, kept = normalize_boxes(np.array(corners, np.float32).reshape(-1, 4), width, height)
    assert kept.shape == (len(corners),) and normalized.shape == (kept.sum(), 4)
    assert ((normalized >= 0) & (normalized <= 1)).all() and (normalized[:, 2:] > 0).all()
    for (x1, y1, x2, y2), keep in zip(corners, kept):
        shown = (min(x2, width) - max(x1, 0)) / width, (min(y2, height) - max(y1, 0)) / height
        assert keep or min(shown) < 1e-5, "a box that is seen is kept"


@st.composite
def batches(draw: st.DrawFn, *, ordered: bool) -> tuple[int, Tensor, Tensor]:
    """Number of images, boxes (M, 4) and the image of each box; ``ordered``: images that do not fall."""
    n = draw(st.integers(1, 5))
    images = draw(st.lists(st.integers(0, n - 1), max_size=8))
    rows = draw(st.lists(box, min_size=len(images), max_size=len(images)))
    index = torch.tensor(sorted(images) if ordered else images, dtype=torch.float32)
    return n, torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), index


@given(batches(ordered=True))
def test_padded_values_stand_in_the_row_of_their_image(batch) -> None:
    n, rows, index = batch
    values = rows[:, 0]
    of_image = [[v for v, i in zip(values.tolist(), index.tolist()) if i == image] for image in range(n)]
    longest = max(map(len, of_image))
    assert padded(values.numpy(), index.numpy(), n, 1.0).tolist() == [
        row + [1.0] * (longest - len(row)) for row in of_image
    ]


levels = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3)


@given(batches(ordered=False), levels)
def test_ignored_anchors_are_those_inside_a_box_of_their_image(batch, sizes) -> None:
    n, rows, index = batch
    low, high = rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2
    expected = []
    for image in range(n):
        mask = []
        for height, width in sizes:
            x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
            for point in (torch.stack([px, py]) for py in y for px in x):
                mine = index == image
                mask.append(bool(((point >= low) & (point <= high)).all(1)[mine].any()))
        expected.append(mask)
    assert ignored_anchors(rows, index, n, sizes).tolist() == expected


@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 4]), st.integers(0, 99))
def test_giou_distance_is_0_for_equal_boxes_and_at_most_2(n, anchors, reg_max, seed) -> None:
    torch.manual_seed(seed)
    own, other = torch.randn(2, n, 4 * reg_max, anchors, dtype=torch.float64) * 3
    scores = torch.randn(n, 2, anchors, dtype=torch.float64)
    assert giou_response(own, own, scores, reg_max).item() == pytest.approx(0, abs=1e-3)
    assert 0 <= giou_response(own, other, scores, reg_max).item() <= 2 * n * anchors


paths = st.builds(
    lambda folder, stem, suffix: Path(folder, stem + suffix),
    st.sampled_from(["/a", "/b", "/b/c"]),
    st.sampled_from(["x", "X", "ß", "ss", "x-1", "x.y", "é 1"]),
    st.sampled_from([".png", ".jpg", ".PNG"]),
)


@given(st.lists(paths, unique=True, max_size=12))
def test_label_stems_are_unique_in_any_letter_case_and_begin_with_the_name_of_the_image(images) -> None:
    stems = label_stems(images)
    assert len({stem.casefold() for stem in stems}) == len(images)
    assert all(stem.startswith(image.stem) for stem, image in zip(stems, images, strict=True))
    assert dict(zip(images[::-1], label_stems(images[::-1]))) == dict(zip(images, stems)), "the order plays no part"


@given(st.lists(paths, min_size=1, max_size=6), st.data())
def test_an_image_listed_twice_is_rejected(images, data) -> None:
    with pytest.raises(ValueError, match="is listed"):
        label_stems([*images, data.draw(st.sampled_from(images))])
