"""SD-IDD: its regions against slow loops, and which outputs get a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms import sdidd
from dfssd.distillation.terms.base import PairShape
from dfssd.distillation.terms.ld import weighted_kl
from dfssd.distillation.terms.regions import apart_from_new, match_anchors
from dfssd.distillation.terms.response import ClsResponse, DflResponse, cls_response, dfl_response
from dfssd.distillation.terms.sdidd import (
    ElasticBox,
    IncrementalBox,
    IncrementalFeature,
    confident,
    far_above,
    feature_region,
    old_class_distance,
    regression_weights,
)
from tests.distillation import slow_terms as slow

LEVELS = [(16, 16), (8, 8), (4, 4)]
SHAPE = PairShape((8,) * 3, (8,) * 3, 4, 2, {}, {})


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def slow_regions(box: np.ndarray) -> tuple[dict[int, float], set[int]]:
    """Regression weights and feature region of one box, by loops over squares of five cells."""
    points = np.array([((x + 0.5) / w, (y + 0.5) / h) for h, w in LEVELS for y in range(h) for x in range(w)])
    sides = np.array([5 / w for h, w in LEVELS for _ in range(h * w)])[:, None]
    anchors = np.concatenate([points - sides / 2, points + sides / 2], 1)
    center = (box[:2] + box[2:]) / 2
    candidates, start = [], 0
    for height, width in LEVELS:
        index = list(range(start, start + height * width))
        index.sort(key=lambda k: float(np.hypot(*(points[k] - center))))
        candidates += index[:9]
        start += height * width
    ious = {k: overlap(anchors[k], box) for k in range(len(anchors))}
    known = [ious[k] for k in candidates]
    threshold = np.mean(known) + np.std(known, ddof=1)
    inside = {k for k in candidates if (points[k] > box[:2]).all() and (points[k] < box[2:]).all()}
    chosen = [k for k in inside if ious[k] >= threshold]
    if not chosen:
        chosen = [max(inside or candidates, key=lambda k: ious[k])]
    best = max(ious.values())
    return {k: ious[k] for k in chosen}, {k for k, v in ious.items() if v > 0.5 * best}


@pytest.mark.parametrize(
    "box",
    [
        [0.30, 0.30, 0.62, 0.60],
        [0.05, 0.41, 0.95, 0.46],  # long and thin: no anchor fits
        [0.511, 0.523, 0.513, 0.524],  # smaller than any cell: no point inside
        [0.0, 0.0, 1.0, 1.0],
    ],
)
def test_regions_of_a_box_are_those_of_a_slow_loop(box: list[float]) -> None:
    boxes, image = torch.tensor([box], dtype=torch.float64).float(), torch.tensor([1])
    weights, region = slow_regions(np.array(box))
    fast = regression_weights(boxes, image, 2, LEVELS)
    assert not fast[0].any()
    found = {int(k): float(fast[1, k]) for k in fast[1].nonzero().flatten()}
    assert sorted(found.values()) == pytest.approx(sorted(weights.values()), rel=1e-3)
    if min(weights.values()) > 1e-3:  # squares that hold a tiny box overlap it all alike
        assert set(found) == set(weights)
    assert set(feature_region(boxes, image, 2, LEVELS)[1].nonzero().flatten().tolist()) == region


def test_box_without_anchor_takes_its_best_one_only_with_the_fallback() -> None:
    thin = torch.tensor([[0.05, 0.41, 0.95, 0.46]])
    assert not match_anchors(thin, LEVELS).positive.any(), "the case is made for this"
    image = torch.tensor([0])
    assert (regression_weights(thin, image, 1, LEVELS) > 0).sum() == 1
    assert not regression_weights(thin, image, 1, LEVELS, fallback=False).any()


def test_confident_anchors_by_hand() -> None:
    scores = torch.full((2, 2, 100), -9.0)
    scores[0, 1, 7] = scores[0, 0, 9] = 3.0
    assert confident(scores).nonzero().tolist() == [[0, 7], [0, 9]], "an image without anything has none"
    assert far_above(torch.tensor([[0.0] * 9 + [1.0]]), 2.0).sum() == 1
    student, region = scores.clone(), confident(scores)
    student[0, 0, 7] += 2.0
    student[1] += 5.0
    assert old_class_distance(student, scores, region).item() == pytest.approx((2.0**2 / 2) / 2 / 2)


def test_places_apart_from_new_boxes_by_hand() -> None:
    """An anchor lies in a box if its point does; boxes of old classes, and those of other images, do not count."""
    batch = {
        "cls": torch.tensor([[2.0], [1.0], [3.0]]),
        "bboxes": torch.tensor([[0.25, 0.25, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0], [0.75, 0.5, 0.4, 1.0]]),
        "batch_idx": torch.tensor([0.0, 0.0, 2.0]),
    }
    free = apart_from_new(batch, 3, [(2, 2), (1, 1)], known=2)
    assert free.int().tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 0, 1]]
    none = {key: value[:0] for key, value in batch.items()}
    assert apart_from_new(none, 2, [(2, 2)], known=2).all()


def test_gradients_are_those_of_the_values() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = [torch.randn(2, 8, h, w, generator=generator, dtype=torch.float64) for h, w in LEVELS]
    own = [torch.randn_like(x).requires_grad_() for x in theirs]
    nothing = torch.zeros(2, 16, 1)
    term = IncrementalFeature(SHAPE)
    batch, other = one_box([0.30, 0.30, 0.62, 0.60]), outputs(nothing, nothing, theirs)
    assert torch.autograd.gradcheck(lambda *maps: term(outputs(nothing, nothing, maps), other, batch), own)
    logits, region = own[2].flatten(2), torch.arange(32).view(2, 16) % 3 == 0
    assert torch.autograd.gradcheck(lambda x: old_class_distance(x, theirs[2].flatten(2), region), (logits,))


def box_kl(student: torch.Tensor, teacher: torch.Tensor, reg_max: int, temperature: float) -> torch.Tensor:
    """Divergence at each anchor as a share of the bins, (N, A)."""
    return slow.box_kl(student, teacher, reg_max, temperature) / reg_max


def test_box_kl_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    value = 0.0
    for side in range(4):
        log_p, log_q = ((x[0, 2 * side : 2 * side + 2, 1] / 10).log_softmax(0) for x in (student, teacher))
        value += float((log_q.exp() * (log_q - log_p)).sum()) / 4
    assert box_kl(student, teacher, 2, 10.0)[0, 1].item() == pytest.approx(100 / 2 * value)
    weight = torch.tensor([[0.0, 1.0, 0.0]])
    assert weighted_kl(student, teacher, weight, 2, 10.0).item() == pytest.approx(100 * value)


def outputs(boxes: torch.Tensor, scores: torch.Tensor, feats=(), new=None) -> Outputs:
    return Outputs(feats=list(feats), boxes=boxes, scores=scores, levels=LEVELS, new_scores=new)


def one_box(box: list[float]) -> dict:
    x1, y1, x2, y2 = box
    center = torch.tensor([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]])
    return {"bboxes": center, "cls": torch.tensor([[2.0]]), "batch_idx": torch.tensor([1.0])}


def test_box_term_is_the_weighted_mean_of_its_image() -> None:
    """Image 0 has no box and counts 0; the weights are those of the slow loop, the confidence, or alike."""
    generator = torch.Generator().manual_seed(0)
    anchors = sum(h * w for h, w in LEVELS)
    own, theirs = (torch.randn(2, 16, anchors, generator=generator) for _ in range(2))
    new = torch.randn(2, 3, anchors, generator=generator)
    box = [0.30, 0.30, 0.62, 0.60]
    weights, _ = slow_regions(np.array(box))
    kl = box_kl(own, theirs, 4, 10.0)[1]
    old = torch.full((2, 2, anchors), -9.0)
    for option, weight in (
        ("iou", weights),
        ("uniform", dict.fromkeys(weights, 1.0)),
        ("conf", {k: float(new[1, :, k].sigmoid().max()) for k in weights}),
    ):
        term = IncrementalBox(SHAPE, weights=option)
        value = term(outputs(own, old, new=new), outputs(theirs, old), one_box(box))
        total = sum(w * float(kl[k]) for k, w in weight.items()) / max(1.0, sum(weight.values()))
        assert value.item() == pytest.approx(total / 2, rel=1e-3), option


def test_responses_apart_from_new_boxes_are_those_of_the_other_anchors() -> None:
    """As if the anchors in the new box did not exist; old boxes change nothing, nor does a teacher that knows all."""
    generator = torch.Generator().manual_seed(0)
    anchors = sum(h * w for h, w in LEVELS)
    own, theirs = (torch.randn(2, 16, anchors, generator=generator) for _ in range(2))
    old, other, new = (torch.randn(2, k, anchors, generator=generator) for k in (2, 2, 3))
    box = one_box([0.30, 0.30, 0.62, 0.60])
    free = apart_from_new(box, 2, LEVELS, known=2)
    assert 0 < int((~free).sum()) < anchors and free[0].all()
    outside = free[1].nonzero().flatten()

    def rest(x: torch.Tensor, fill: float) -> torch.Tensor:
        x = x.clone()
        x[1, :, ~free[1]] = fill
        return x

    for term, plain in ((ClsResponse, cls_response), (DflResponse, dfl_response)):
        for batch, counted in ((box, True), ({**box, "cls": torch.tensor([[1.0]])}, False)):
            student = outputs(own, old.clone().requires_grad_(), new=new)
            student.boxes.requires_grad_(True)
            value = term(SHAPE, apart=True)(student, outputs(theirs, other), batch)
            if not counted:
                assert value.item() == term(SHAPE)(student, outputs(theirs, other), batch).item()
                continue
            hidden = (rest(old, -50.0), rest(other, -50.0))
            expected = plain(*hidden) if plain is cls_response else plain(own, theirs, hidden[1], 4)
            assert value.item() == pytest.approx(expected.item(), rel=1e-5)
            leaf = student.scores if plain is cls_response else student.boxes
            (found,) = torch.autograd.grad(value, leaf)
            assert not found[1, :, ~free[1]].any() and found[1, :, outside].any() and found[0].any()
        alone = outputs(own, old)
        assert term(SHAPE, apart=True)(alone, outputs(theirs, other), box).item() == pytest.approx(
            term(SHAPE)(alone, outputs(theirs, other), box).item()
        )


def test_feature_term_by_hand() -> None:
    """The squared distance on the cells around the box, a mean on each level, summed over the levels."""
    box = [0.30, 0.30, 0.62, 0.60]
    _, region = slow_regions(np.array(box))
    teacher = [torch.zeros(2, 8, h, w) for h, w in LEVELS]
    student = [torch.zeros(2, 8, h, w) for h, w in LEVELS]
    expected, start = 0.0, 0
    for number, (h, w) in enumerate(LEVELS):
        inside = [k - start for k in region if start <= k < start + h * w]
        start += h * w
        student[number][0] += 5  # the other image has no box
        if inside:
            y, x = divmod(inside[0], w)
            student[number][1, :, y, x] = 2.0 + number
            expected += (2.0 + number) ** 2 / len(inside)
    nothing = torch.zeros(2, 16, start)
    term = IncrementalFeature(SHAPE)
    value = term(outputs(nothing, nothing[:, :2], student), outputs(nothing, nothing[:, :2], teacher), one_box(box))
    assert value.item() == pytest.approx(expected)
    same = term(outputs(nothing, nothing[:, :2], teacher), outputs(nothing, nothing[:, :2], teacher), one_box(box))
    assert same.item() == 0


def test_elastic_box_keeps_the_most_decided_boxes_that_do_not_overlap() -> None:
    anchors = sum(h * w for h, w in LEVELS)
    theirs = torch.zeros(1, 16, anchors)
    scores = torch.full((1, 2, anchors), -3.0)
    # two neighbors with boxes of 3 cells to each side, and one far away, on the finest level
    for k, sure in ((5 * 16 + 5, 2.0), (5 * 16 + 6, 1.0), (12 * 16 + 12, 0.5)):
        theirs[0, 3::4, k] = 20.0
        scores[0, 1, k] = sure
    own = torch.randn(1, 16, anchors, generator=torch.Generator().manual_seed(0))
    student = torch.zeros(1, 2, anchors)
    term = ElasticBox(SHAPE)
    kl = box_kl(own, theirs, 4, 10.0)[0]
    value = term(outputs(own, student), outputs(theirs, scores), {})
    assert value.item() == pytest.approx(0.5 * float(kl[5 * 16 + 5] + kl[12 * 16 + 12]) / 2, rel=1e-4)
    assert term(outputs(theirs, student), outputs(theirs, scores), {}).item() == pytest.approx(0, abs=1e-6)


def test_boxes_of_many_images_are_thinned_as_one_by_one(monkeypatch) -> None:
    """Whether all images go through the suppression at once, or in parts."""
    generator = torch.Generator().manual_seed(0)
    anchors = sum(h * w for h, w in LEVELS)
    theirs = 4 * torch.randn(5, 16, anchors, generator=generator)
    own, scores = torch.randn(5, 16, anchors, generator=generator), torch.randn(5, 2, anchors, generator=generator)
    term = ElasticBox(SHAPE, deviations=1.0, iou=0.1)
    boxes = term._decode(theirs, LEVELS)
    best, cls = scores.sigmoid().max(1)
    above = far_above(theirs.amax(1), 1.0)
    above[3] = False
    expected = torch.zeros(5, anchors)
    for i in range(5):
        index = above[i].nonzero().flatten()
        expected[i, index[batched_nms(boxes[i, index], best[i, index], cls[i, index], 0.1)]] = 1
    assert above.sum() > expected.sum() > 20
    for most in (2048, 60, 1):
        monkeypatch.setattr(sdidd, "MOST_COMPARED", most)
        assert torch.equal(term._thinned(above, boxes, best, cls), expected)
    assert sdidd._parts([3, 0, 4, 1, 9], 7) == [slice(0, 7), slice(7, 8), slice(8, 17)]
    assert torch.isfinite(term(outputs(own, scores), outputs(theirs, scores), {}))
