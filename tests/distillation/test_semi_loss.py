"""The YOLO loss on two kinds of labels: what is ignored, what a box weighs, how each kind is normalized."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from dfssd.distillation.semi_loss import PLAIN, SemiDetectionLoss
from dfssd.distillation.targets import count_labeled, padded, padded_targets
from dfssd.distillation.transfer import to_device
from dfssd.pseudo_labels.records import BatchLabels
from tests.distillation.anchors import ignored_anchors
from tests.distillation.two_passes import TwoPasses

SIZE = (64, 96)
LEVELS = [(8, 12), (4, 6), (2, 3)]


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


def test_padded_by_hand() -> None:
    out = padded(np.array([0.5, 0.6, 0.7]), np.array([0.0, 2.0, 2.0]), 3, 1.0)
    assert np.array_equal(out, [[0.5, 1.0], [1.0, 1.0], [0.6, 0.7]])
    assert padded(np.zeros((0, 4)), np.zeros(0), 2, 0.0).shape == (2, 0, 4)


def boxes_of(batch: dict[str, Any]) -> BatchLabels:
    return BatchLabels.of_batch(batch)


def test_tables_of_boxes_by_hand() -> None:
    boxes = boxes_of(
        {
            "batch_idx": torch.tensor([1.0, 0.0, 1.0]),
            "cls": torch.tensor([[2.0], [1.0], [0.0]]),
            "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 0.1, 0.1]]),
            "score": torch.tensor([0.5, 1.0, 0.0]),
            "ignore_batch_idx": torch.tensor([1.0]),
            "ignore_bboxes": torch.tensor([[0.5, 0.5, 0.5, 1.0]]),
            "ignore_source": torch.tensor([-1.0]),
        }
    )
    assert boxes.batch_idx.tolist() == [0, 1, 1] and boxes.cls.tolist() == [[1], [2], [0]], "ordered by image, stable"
    tables = padded_targets(boxes, 2, (40, 80))
    assert tables["gt_labels"].tolist() == [[[1], [0]], [[2], [0]]] and tables["gt_labels"].dtype == np.int64
    assert tables["gt_bboxes"][:, 0].tolist() == [[0, 0, 40, 40], [20, 15, 60, 25]]
    assert tables["mask_gt"][..., 0].tolist() == [[1, 0], [1, 1]]
    assert np.allclose(tables["weights"], [[1, 1], [0.5, 1e-3]])
    assert tables["low"].tolist() == [[[2, 2]], [[0.25, 0]]] and tables["high"].tolist() == [[[-1, -1]], [[0.75, 1]]]


def test_tables_that_are_not_needed_are_absent() -> None:
    tables = padded_targets(boxes_of(batch([1.0, 1.0], [False, False])), 2, SIZE)
    assert set(tables) == {"gt_labels", "gt_bboxes", "mask_gt"}


def test_labeled_images_come_first() -> None:
    assert count_labeled({"labeled": np.array([True, True, False])}) == 2
    with pytest.raises(ValueError, match="must come before"):
        count_labeled({"labeled": np.array([False, True])})


def made(nc: int = 3, name: str = "yolov8n.yaml") -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(name, nc=nc, verbose=False)
    model.args = get_cfg()
    return model.train()


def batch(score: list[float], labeled: list[bool]) -> dict[str, Any]:
    n = len(labeled)
    return {
        "cls": torch.zeros(n, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]] * n),
        "batch_idx": torch.arange(n).float(),
        "score": torch.tensor(score),
        "labeled": torch.tensor(labeled),
        "ignore_bboxes": torch.zeros(0, 4),
        "ignore_batch_idx": torch.zeros(0),
        "ignore_source": torch.zeros(0),
    }


def predicted(model: DetectionModel, n: int, seed: int = 0) -> dict[str, Any]:
    preds = model(torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed)))
    for head in heads_of(preds):
        for key in ("boxes", "scores"):
            head[key].retain_grad()
    return preds


def heads_of(preds: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    return [preds["one2many"], preds["one2one"]] if "one2many" in preds else [preds]


def fast(loss: SemiDetectionLoss, preds: dict[str, Any], rows: dict[str, Any], unsup_weight: float) -> tuple:
    """The loss summed as in a step, and what is logged."""
    n, labeled = len(rows["labeled"]), count_labeled(rows)
    learned = n if unsup_weight > 0 else labeled
    tables = {
        **padded_targets(boxes_of(rows).part(0, learned), learned, SIZE),
        **loss.rows(learned, labeled, unsup_weight),
    }
    value, logged, ignored = loss(heads_of(preds), to_device(tables, torch.device("cpu")), LEVELS)
    counts = torch.tensor([[labeled], [n - labeled]])
    return value * counts, logged, ignored


def gradients_of(preds: dict[str, Any], total: torch.Tensor) -> list[torch.Tensor]:
    leaves = [head[key] for head in heads_of(preds) for key in ("boxes", "scores")]
    found = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


NAMES = {name: made(5, name) for name in ("yolov8n.yaml", "yolo26n.yaml")}
"""A model with box distributions and one head, and one with one bin and an end-to-end head, too."""
CASES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "labeled": st.integers(0, 2),
        "unlabeled": st.integers(0, 2),
        "boxes": st.integers(0, 5),
        "ignored": st.integers(0, 3),
        "weigh": st.booleans(),
        "unsup_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "classes": st.sampled_from([(0, None), (2, 2), (0, 2), (3, 3)]),
        "class_weights": st.booleans(),
        "seed": st.integers(0, 10**6),
    }
).filter(lambda case: case["labeled"] + case["unlabeled"] > 0)


def drawn(case: dict[str, Any]) -> dict[str, Any]:
    """Boxes in random images, of classes that their kind covers; ignored boxes in random images."""
    g = torch.Generator().manual_seed(case["seed"])
    n = case["labeled"] + case["unlabeled"]

    def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.randint(n, (count,), generator=g).sort().values
        side = 0.1 + 0.5 * torch.rand(count, 2, generator=g)
        return image, torch.cat([side / 2 + (1 - side) * torch.rand(count, 2, generator=g), side], 1)

    image, bboxes = rows(case["boxes"])
    first, until = case["classes"]
    low = torch.where(image < case["labeled"], first, 0)
    high = torch.where(image < case["labeled"], 5, until or 5)
    ignored_image, ignored = rows(case["ignored"])
    scores = torch.rand(len(image), generator=g)
    return {
        "cls": (low + (torch.rand(len(image), generator=g) * (high - low)).floor())[:, None],
        "bboxes": bboxes,
        "batch_idx": image.float(),
        "score": torch.where(image < case["labeled"], 1.0, scores) if case["weigh"] else torch.ones(len(image)),
        "labeled": torch.arange(n) < case["labeled"],
        "ignore_bboxes": ignored,
        "ignore_batch_idx": ignored_image.float(),
        "ignore_source": torch.full((case["ignored"],), -1.0),
    }


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(case=CASES)
def test_one_pass_equals_two_runs_of_ultralytics_criterion(name: str, case: dict[str, Any]) -> None:
    """Value, what is logged, and gradient, for all mixtures of kinds, boxes, weights, ignored boxes, and classes."""
    model, rows = NAMES[name], drawn(case)
    model.class_weights = torch.rand(5) + 0.5 if case["class_weights"] else None
    first, until = case["classes"]
    preds = predicted(model, len(rows["labeled"]), case["seed"])
    reference = TwoPasses(model.init_criterion(), labels_from=first, pseudo_until=until)
    vectors, items = reference(preds, rows, case["unsup_weight"])
    wanted = torch.stack([v.sum() for v in vectors]).sum() if vectors else torch.zeros(())
    loss = SemiDetectionLoss(model.init_criterion(), known=until, coverage=replace(PLAIN, new_only=first > 0))
    value, logged, _ = fast(loss, preds, rows, case["unsup_weight"])
    torch.testing.assert_close(value.sum(), wanted, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(logged.flatten(), torch.stack(list(items.values())), rtol=2e-5, atol=1e-6)
    assert [*loss.names, *(f"u_{k}" for k in loss.names)] == list(items)
    if vectors:
        for ours, theirs in zip(gradients_of(preds, value.sum()), gradients_of(preds, wanted), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_labels_alone_give_ultralytics_own_loss_and_gradient(name: str) -> None:
    model = NAMES[name]
    model.class_weights = None
    preds = predicted(model, 2)
    rows = batch([1.0, 1.0], [True, True])
    own = {k: rows[k] for k in ("cls", "bboxes", "batch_idx")}
    expected, items = copy.deepcopy(model).init_criterion()(preds, own)
    value, logged, ignored = fast(SemiDetectionLoss(model.init_criterion()), preds, rows, 1.0)
    assert ignored is None
    torch.testing.assert_close(value[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logged[0], torch.stack(list(items.values())), rtol=1e-5, atol=1e-6)
    assert not value[1].any() and not logged[1].any()
    for ours, theirs in zip(gradients_of(preds, value.sum()), gradients_of(preds, expected.sum()), strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_criterion_is_left_as_it_is_for_the_validation() -> None:
    model = made()
    criterion = model.init_criterion()
    parts = {name: (value, copy.deepcopy(value)) for name, value in vars(criterion).items()}
    fast(SemiDetectionLoss(criterion, known=1), predicted(model, 2), batch([0.3, 0.3], [True, False]), 1.0)
    for name, (value, before) in parts.items():
        assert getattr(criterion, name) is value
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, before)
    assert criterion.assigner.num_classes == 3


def gradients(score: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient norms on box logits, and on class logits of assigned and of background anchors, for two images."""
    model = made()
    preds = predicted(model, 2)
    value, _, _ = fast(SemiDetectionLoss(model.init_criterion()), preds, batch(score, [False, False]), 1.0)
    boxes, scores = gradients_of(preds, value.sum())
    assigned = boxes.abs().sum(1) > 0
    norms = scores.norm(dim=1)
    return boxes.norm(dim=(1, 2)), norms[assigned].sum(), norms[~assigned].sum()


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


def test_weight_zero_leaves_the_pseudo_boxes_out() -> None:
    model = made()
    preds = predicted(model, 2)
    value, logged, _ = fast(SemiDetectionLoss(model.init_criterion()), preds, batch([1, 1], [True, False]), 0.0)
    assert value[0].all() and not value[1].any() and not logged[1].any()
    boxes, scores = gradients_of(preds, value.sum())
    assert boxes[0].any() and not boxes[1].any() and not scores[1].any()


def test_ignored_anchors_come_back_for_the_terms() -> None:
    model, rows = made(), batch([1.0, 1.0], [True, False])
    rows.update(
        ignore_bboxes=torch.tensor([[0.5, 0.5, 1.0, 1.0]]),
        ignore_batch_idx=torch.tensor([1.0]),
        ignore_source=torch.tensor([-1.0]),
    )
    _, _, ignored = fast(SemiDetectionLoss(model.init_criterion()), predicted(model, 2), rows, 1.0)
    assert ignored.shape == (2, 8 * 12 + 4 * 6 + 2 * 3) and ignored[1].all() and not ignored[0].any()


def test_beside_labels_old_classes_alone_are_ignored() -> None:
    """Labels from class 1 on and boxes of the teacher for class 0: what is ignored counts for class 0 only."""
    model, rows = made(), batch([1.0, 1.0], [True, False])
    rows.update(
        cls=torch.tensor([[1.0], [0.0]]),
        bboxes=torch.tensor([[0.2, 0.2, 0.2, 0.2]] * 2),
        ignore_bboxes=torch.tensor([[0.75, 0.5, 0.5, 1.0]] * 2),
        ignore_batch_idx=torch.tensor([0.0, 1.0]),
        ignore_source=torch.full((2,), -1.0),
    )
    preds = predicted(model, 2)
    loss = SemiDetectionLoss(model.init_criterion(), known=1, coverage=replace(PLAIN, new_only=True, old_boxes=True))
    value, _, ignored = fast(loss, preds, rows, 1.0)
    scores = gradients_of(preds, value.sum())[1]
    assert ignored.any(1).all() and not ignored.all(1).any()
    assert torch.equal(scores[0, 0] == 0, ignored[0]) and (scores[0, 1:] != 0).all()
    assert torch.equal(scores[1, 0] == 0, ignored[1]) and not scores[1, 1:].any(), "unlabeled: class 0 alone"
    plain, _, _ = fast(
        SemiDetectionLoss(model.init_criterion(), known=1, coverage=replace(PLAIN, new_only=True)), preds, rows, 1.0
    )
    assert not gradients_of(preds, plain.sum())[1][0, 0].any(), "without boxes of the teacher labels cover their own"


def test_unlabeled_images_from_before_speak_of_all_classes() -> None:
    """They show no new class, also where the teacher is not sure of an old one."""
    model, rows = made(), batch([1.0, 1.0], [True, False])
    rows.update(
        cls=torch.tensor([[1.0], [0.0]]),
        bboxes=torch.tensor([[0.2, 0.2, 0.2, 0.2]] * 2),
        ignore_bboxes=torch.tensor([[0.75, 0.5, 0.5, 1.0]]),
        ignore_batch_idx=torch.tensor([1.0]),
        ignore_source=torch.full((1,), -1.0),
    )
    preds = predicted(model, 2)
    coverage = replace(PLAIN, new_only=True, unlabeled_old=True)
    loss = SemiDetectionLoss(model.init_criterion(), known=1, coverage=coverage)
    value, _, ignored = fast(loss, preds, rows, 1.0)
    gradient = gradients_of(preds, value.sum())[1]
    assert ignored[1].any() and not ignored[1].all()
    assert torch.equal(gradient[1, 0] == 0, ignored[1]) and (gradient[1, 1:] > 0).all()
    assert not gradient[0, 0].any() and (gradient[0, 1:] != 0).all(), "labels: the new classes alone, as without it"
