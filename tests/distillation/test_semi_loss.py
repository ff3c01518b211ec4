"""The YOLO loss on two kinds of labels: what is ignored, what a box weighs, how each kind is normalized."""

from __future__ import annotations

import copy

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from dfssd.distillation.semi_loss import (
    SemiDetectionLoss,
    WeightedAssigner,
    WeightedBCE,
    ignored_anchors,
    padded,
    rows_of,
)


def test_ignored_anchors_by_hand() -> None:
    # anchors of the first level at (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75), of the second at the center
    boxes = torch.tensor([[0.25, 0.25, 0.3, 0.3], [0.5, 0.75, 1.0, 0.2], [0.25, 0.25, 0.1, 0.1]])
    mask = ignored_anchors(boxes, torch.tensor([0.0, 1.0, 1.0]), 3, [(2, 2), (1, 1)])
    assert mask.int().tolist() == [[1, 0, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_ignored_anchors_of_uneven_levels_and_images_in_any_order() -> None:
    boxes = torch.tensor([[0.9, 0.5, 0.2, 1.0], [0.5, 0.1, 1.0, 0.2]])
    mask = ignored_anchors(boxes, torch.tensor([1.0, 0.0]), 2, [(2, 3)])
    assert mask.int().tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]]
    assert not ignored_anchors(torch.zeros(0, 4), torch.zeros(0), 2, [(2, 3)]).any()


def test_bce_keeps_positives_inside_ignore_zones() -> None:
    bce = WeightedBCE(WeightedAssigner(torch.nn.Identity()))
    logits = torch.zeros(1, 3, 2)
    targets = torch.tensor([[[0.0, 0.0], [0.7, 0.0], [0.0, 0.0]]])
    assert torch.equal(bce(logits, targets), torch.nn.BCEWithLogitsLoss(reduction="none")(logits, targets))
    bce.ignored = torch.tensor([[True, True, False]])
    loss = bce(logits, targets)
    assert (loss[0, 0] == 0).all() and (loss[0, 1:] > 0).all()


def test_boxes_of_some_images_with_image_numbers_counted_anew() -> None:
    rows, image = rows_of(torch.tensor([2, 3]), torch.tensor([0.0, 2.0, 2.0, 3.0]), 4)
    assert rows.tolist() == [1, 2, 3] and image.tolist() == [0, 0, 1]
    rows, image = rows_of(torch.tensor([1]), torch.tensor([0.0, 2.0]), 4)
    assert rows.shape == image.shape == (0,)


def test_boxes_come_ordered_by_image_as_the_criterion_counts_them() -> None:
    rows, image = rows_of(torch.tensor([1, 3]), torch.tensor([3.0, 1.0, 3.0]), 4)
    assert rows.tolist() == [1, 0, 2], "equal ones keep their order"
    assert image.tolist() == [0, 1, 1] and image.dtype == torch.float32


def test_padded_by_hand() -> None:
    out = padded(torch.tensor([0.5, 0.6, 0.7]), torch.tensor([0.0, 2.0, 2.0]), 3)
    assert torch.equal(out, torch.tensor([[0.5, 1.0], [1.0, 1.0], [0.6, 0.7]]))
    assert padded(torch.zeros(0), torch.zeros(0), 2).shape == (2, 0)


class Fixed(torch.nn.Module):
    """An assigner with a known output: anchors 0 and 1 belong to boxes 0 and 1, anchor 2 to none."""

    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros(1, 3), torch.zeros(1, 3, 4), scores, torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 0]])


def test_weight_scales_the_loss_of_a_box_and_leaves_its_target() -> None:
    assigner = WeightedAssigner(Fixed())
    assigner.weights = torch.tensor([[0.5, 0.25]])
    targets = torch.tensor([[[0.8, 0.0], [0.0, 0.4], [0.0, 0.0]]])
    scaled = assigner(targets)[2]
    assert torch.allclose(scaled, torch.tensor([[[0.4, 0.0], [0.0, 0.1], [0.0, 0.0]]]))
    assert torch.equal(assigner.anchor_weights, torch.tensor([[0.5, 0.25, 1.0]]))
    logits = torch.tensor([[[0.3, -1.0], [2.0, 0.1], [-3.0, 0.5]]])
    plain = torch.nn.BCEWithLogitsLoss(reduction="none")(logits, targets)
    assigner.correction = torch.tensor(1.0)
    assert torch.allclose(WeightedBCE(assigner)(logits, scaled), plain * torch.tensor([0.5, 0.25, 1.0])[None, :, None])


def test_correction_puts_the_unweighted_sum_in_place_of_the_weighted_one() -> None:
    assigner = WeightedAssigner(Fixed())
    assigner.weights = torch.tensor([[0.5, 0.25]])
    assigner(torch.tensor([[[8.0, 0.0], [0.0, 4.0], [0.0, 0.0]]]))
    assert float(assigner.correction) == pytest.approx((4 + 1) / (8 + 4))


def made(nc: int = 3) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=nc, verbose=False)
    model.args = get_cfg()
    return model.train()


def batch(score: list[float], labeled: list[bool]) -> dict:
    n = len(labeled)
    return {
        "cls": torch.zeros(n, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]] * n),
        "batch_idx": torch.arange(n).float(),
        "score": torch.tensor(score),
        "labeled": torch.tensor(labeled),
        "ignore_bboxes": torch.zeros(0, 4),
        "ignore_batch_idx": torch.zeros(0),
    }


def test_boxes_of_weight_one_give_ultralytics_own_loss() -> None:
    model = made()
    preds = model(torch.rand(2, 3, 64, 64))
    rows = batch([1.0, 1.0], [False, False])
    expected, _ = copy.deepcopy(model).init_criterion()(preds, {k: rows[k] for k in ("cls", "bboxes", "batch_idx")})
    loss = SemiDetectionLoss(model.init_criterion())
    vectors, items = loss(preds, rows, 1.0)
    assert len(vectors) == 1 and torch.allclose(vectors[0], expected, rtol=1e-5)
    assert items["box_loss"] == 0 and items["u_box_loss"] > 0


def gradients(score: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient norms on box logits, and on class logits of assigned and of background anchors, for two images."""
    model = made()
    preds = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for key in ("boxes", "scores"):
        preds[key].retain_grad()
    loss = SemiDetectionLoss(model.init_criterion())
    vectors, _ = loss(preds, batch(score, [False, False]), 1.0)
    vectors[0].sum().backward()
    assigned = preds["boxes"].grad.abs().sum(1) > 0
    scores = preds["scores"].grad.norm(dim=1)
    return preds["boxes"].grad.norm(dim=(1, 2)), scores[assigned].sum(), scores[~assigned].sum()


def test_uniform_weight_halves_the_boxes_and_leaves_the_background() -> None:
    sure, half = gradients([1.0, 1.0]), gradients([0.5, 0.5])
    assert torch.allclose(half[0], 0.5 * sure[0], rtol=1e-4)
    assert torch.allclose(half[1], 0.5 * sure[1], rtol=1e-4)
    assert torch.allclose(half[2], sure[2], rtol=1e-4)


def test_doubtful_box_counts_less_and_leaves_the_sure_one_alone() -> None:
    sure, mixed = gradients([1.0, 1.0]), gradients([0.2, 1.0])
    assert torch.allclose(mixed[0], sure[0] * torch.tensor([0.2, 1.0]), rtol=1e-4)


def test_score_of_zero_gives_finite_numbers() -> None:
    assert all(torch.isfinite(g).all() for g in gradients([0.0, 1.0]))


def test_scores_of_true_boxes_are_not_looked_at() -> None:
    model = made()
    preds = model(torch.rand(1, 3, 64, 64))
    losses = [
        SemiDetectionLoss(model.init_criterion())(preds, batch([score], [True]), 1.0)[0][0] for score in (1.0, 0.1)
    ]
    assert torch.equal(*losses)


def test_weight_zero_computes_nothing_and_keeps_the_columns() -> None:
    model = made()
    preds = model(torch.rand(2, 3, 64, 64))
    vectors, items = SemiDetectionLoss(model.init_criterion())(preds, batch([1, 1], [True, False]), 0.0)
    assert len(vectors) == 1
    assert [k for k in items if k.startswith("u_")] == ["u_box_loss", "u_cls_loss", "u_dfl_loss"]
    assert all(items[k] == 0 for k in items if k.startswith("u_"))


def test_criterion_is_left_clean_for_the_validation() -> None:
    model = made()
    loss = SemiDetectionLoss(model.init_criterion())
    loss(model(torch.rand(1, 3, 64, 64)), batch([0.3], [False]), 1.0)
    assert loss.branches[0].assigner.weights is None and loss.branches[0].bce.ignored is None
