"""Detectors with new classes: they start as their teacher; what labels and boxes of the teacher teach them."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from dfssd.distillation.growth import check_prefix, grown, same_old_rows, write_grown
from dfssd.distillation.pair import state_hash
from dfssd.distillation.semi_loss import PLAIN
from dfssd.errors import UserError
from dfssd.pseudo_labels.online import OnlineLabeler
from tests.configured import pair as build_pair
from tests.distillation.test_crd import trained
from tests.distillation.test_pair import make_batch, model
from tests.thresholds import class_thresholds
from tests.tiny_detection import save_detector

NEW_ONLY = replace(PLAIN, new_only=True)
TERMS = {name: {"weight": 1.0, "schedule": "constant"} for name in ("sdidd_cls", "sdidd_box", "sdidd_feature")}


def teacher_of(nc: int, name: str = "yolov8n.yaml") -> nn.Module:
    made = trained(model(name, nc))
    made.names = {k: f"old {k}" for k in range(nc)}
    return made


def grown_pair(old: int = 2, new: int = 3, *, name: str = "yolov8n.yaml", terms=TERMS, coverage=NEW_ONLY, **options):
    teacher = teacher_of(old, name)
    names = [*teacher.names.values(), *(f"new {k}" for k in range(new))]
    student = grown(copy.deepcopy(teacher), names)
    student.args = teacher.args
    pair = build_pair(teacher, student, terms=terms, coverage=coverage, **options).train()
    for module in pair.student_model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return pair


def batch_of(cls: int, labeled=(True, True, True)) -> dict:
    batch = make_batch(list(labeled))
    return {**batch, "cls": torch.full_like(batch["cls"], float(cls))}


@pytest.mark.parametrize(("old", "new"), [(3, 3), (4, 2), (5, 1)])
@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml"])
def test_grown_student_starts_as_its_teacher(name: str, old: int, new: int) -> None:
    pair = grown_pair(old, new, name=name)
    assert same_old_rows(pair.student_model, pair.teacher_model, tolerance=0)
    _, items = pair(batch_of(old))
    assert all(items[term] < 1e-6 for term in TERMS) and items["cls_loss"] > 0
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = pair.teacher_model(image)[0]
        after = pair.student_model.eval()(image)[0]
    assert torch.allclose(after[:, : 4 + old], before, atol=1e-4)
    assert after[:, 4 + old :].max() < 0.2, "new classes start as rare"


def test_new_rows_follow_from_the_seed_alone(tmp_path) -> None:
    source = save_detector(tmp_path / "t.pt", names=["a", "b"])
    rows = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        write_grown(source, ["a", "b", "c"], tmp_path / "grown.pt", seed)
        rows.append(YOLO(tmp_path / "grown.pt").model.model[-1].cv3[0][-1].weight[2].detach().clone())
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    bound = 1 / rows[0].numel() ** 0.5
    assert 0.8 * bound < rows[0].abs().max() <= bound


def test_labels_teach_the_new_rows_and_the_terms_the_old_ones() -> None:
    terms = {**TERMS, "sdidd_cls": {**TERMS["sdidd_cls"], "deviations": 0.5}}
    pair = grown_pair(terms=terms)
    with torch.no_grad():  # something to remember
        for p in pair.student_model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    rows = [level[-1].weight for level in pair.student_model.model[-1].cv3]
    for new_only, expected in ((True, [False, True]), (False, [True, True])):
        pair.semi_loss, pair.coverage, pair.student_model.criterion = None, replace(PLAIN, new_only=new_only), None
        vector, _ = pair(batch_of(2))
        found = torch.autograd.grad(vector[1], rows, retain_graph=True)  # labels: box, cls, dfl
        assert [bool(torch.cat([g[part] for g in found]).any()) for part in (slice(0, 2), slice(2, 5))] == expected
    found = torch.autograd.grad(vector[6 + list(TERMS).index("sdidd_cls")], rows)
    assert torch.cat([g[:2] for g in found]).any() and not torch.cat([g[2:] for g in found]).any()


def sure_of(pair, cls: int, score: float, anchor: int = 0) -> None:
    """Let the teacher see one defect of one cell at an anchor of the coarsest level, and nothing elsewhere."""

    def change(_module, _args, output):
        scores, boxes = output["scores"], output["boxes"]
        scores.fill_(-12.0)
        boxes.fill_(-20.0)
        boxes.view(len(boxes), 4, 16, -1)[:, :, :2] = 20.0  # half a cell to each side
        scores[:, cls, scores.shape[2] - 4 + anchor] = float(np.log(score / (1 - score)))
        return output

    pair.teacher_model.register_forward_hook(change)


def old_boxes_pair(**rule):
    thresholds = class_thresholds(5, **{"tau_low": 0.1, "tau0": 0.3, "tau_max": 0.3, **rule})
    labeler = OnlineLabeler(thresholds, iou=0.6)
    pair = grown_pair(terms={}, coverage=replace(NEW_ONLY, old_boxes=True), labeler=labeler, weigh_boxes=True)
    with torch.no_grad():
        for level in pair.student_model.model[-1].cv3:
            level[-1].bias.fill_(-6.0)  # sees nothing yet, so what is to be learned is pulled up
    return pair


def logits_and_gradient(pair, batch: dict, kind: int = 1) -> torch.Tensor:
    """Gradient of one part of the loss of labeled images (1: classes) on the class logits, (N, 5, A)."""
    seen = {}
    run = pair._run

    def keep(name, images):
        maps = run(name, images)
        if name == "student":
            seen["scores"] = maps.heads[0]["scores"]
        return maps

    pair._run = keep
    try:
        vector, _ = pair(batch)
    finally:
        del pair._run
    return torch.autograd.grad(vector[kind], seen["scores"], retain_graph=True)[0]


def test_boxes_of_the_teacher_are_labels_of_the_old_classes() -> None:
    """Far from the new box it is learned, weighted by its score; elsewhere the old classes are background."""
    pair = old_boxes_pair()
    far = {**batch_of(3), "bboxes": torch.tensor([[0.25, 0.25, 0.48, 0.48]] * 3)}
    sure_of(pair, cls=1, score=0.8, anchor=3)
    gradient = logits_and_gradient(pair, far)
    assert pair.added == 3 and not len(pair.labels.bboxes)
    assert (gradient[:, 1] < 0).any(1).all(), "somewhere the class of the teacher's box is pulled up"
    assert not (gradient[:, 0] < 0).any() and (gradient[:, 0] > 0).any(), "the other old class is background"
    assert (gradient[:, 3] < 0).any() and not (gradient[:, [2, 4]] < 0).any()


def test_doubtful_box_of_the_teacher_is_ignored_for_the_old_classes_alone() -> None:
    pair = old_boxes_pair()
    far = {**batch_of(3), "bboxes": torch.tensor([[0.25, 0.25, 0.48, 0.48]] * 3)}
    sure_of(pair, cls=1, score=0.2, anchor=3)
    gradient = logits_and_gradient(pair, far)
    assert pair.added == 0
    silent = (gradient == 0).all(0)  # (5, A)
    assert silent[:2].any() and torch.equal(silent[0], silent[1]), "inside that box"
    assert not silent[2:].any(), "labels are complete for the new classes"
    assert not silent.all(1).any(), "no image is ignored as a whole"


def test_box_of_the_teacher_that_meets_a_new_one_is_no_label() -> None:
    pair = old_boxes_pair()
    batch = {**batch_of(3), "bboxes": torch.tensor([[0.75, 0.75, 0.6, 0.6]] * 3)}
    sure_of(pair, cls=1, score=0.9, anchor=3)
    gradient = logits_and_gradient(pair, batch)
    assert pair.added == 0 and not (gradient[:, :2] < 0).any()
    learned = (gradient[:, 3] < 0).nonzero(as_tuple=True)
    assert len(learned[0]) and (gradient[:, 1][learned] > 0).all(), "where the new box is, there is no old defect"


@pytest.mark.parametrize("new_only", [True, False])
def test_pseudo_boxes_cover_the_old_classes_only(new_only: bool) -> None:
    """New defects in unlabeled images are no background, whichever classes the labels cover."""
    pair = grown_pair(terms={}, coverage=replace(PLAIN, new_only=new_only))
    vector, items = pair(batch_of(0, labeled=(False, False)))
    rows = [level[-1].weight for level in pair.student_model.model[-1].cv3]
    found = torch.autograd.grad(vector[4], rows)
    assert torch.cat([g[:2] for g in found]).any() and not torch.cat([g[2:] for g in found]).any()
    assert items["cls_loss"] == 0 and items["u_box_loss"] > 0


def test_unlabeled_images_from_before_are_background_for_the_new_classes() -> None:
    pair = grown_pair(terms={}, coverage=replace(NEW_ONLY, unlabeled_old=True))
    vector, _ = pair(batch_of(0, labeled=(False, False)))
    biases = [level[-1].bias for level in pair.student_model.model[-1].cv3]
    found = torch.autograd.grad(vector[4], biases)
    assert all((g[2:] > 0).all() for g in found), "new classes are pushed down on every level"
    assert torch.cat([g[:2] for g in found]).any()


def test_loss_on_new_classes_is_that_of_a_network_with_these_classes_alone() -> None:
    pair = grown_pair(terms={})
    batch = batch_of(3)
    vector, _ = pair(batch)
    alone = copy.deepcopy(pair.student_model)
    alone.criterion = None
    for level in alone.model[-1].cv3:
        level[-1].weight, level[-1].bias = (nn.Parameter(p[2:].clone()) for p in (level[-1].weight, level[-1].bias))
    alone.model[-1].nc, alone.model[-1].no = 3, 3 + 64
    expected, _ = alone.loss({**{k: batch[k] for k in ("img", "bboxes", "batch_idx")}, "cls": batch["cls"] - 2})
    assert torch.allclose(vector[:3], expected, rtol=1e-4)


def test_criterion_is_whole_again_for_the_validation() -> None:
    pair = grown_pair(terms={})
    pair(batch_of(3))
    plain = {k: batch_of(0)[k] for k in ("img", "cls", "bboxes", "batch_idx")}
    pair.eval()
    with torch.no_grad():
        vector, _ = pair.loss(plain, pair(plain["img"]))
    assert torch.isfinite(vector).all()


def test_teacher_stays_and_everything_is_finite_in_half_precision_and_without_boxes() -> None:
    pair = grown_pair(terms={**TERMS, "erd_box": TERMS["sdidd_cls"]})
    before = state_hash(pair.teacher_model)
    optimizer = torch.optim.SGD([p for p in pair.parameters() if p.requires_grad], lr=0.01)
    batch = batch_of(3)
    empty = {**batch, **{k: batch[k][:0] for k in ("cls", "bboxes", "batch_idx", "score")}}
    some = batch["batch_idx"] != 1
    partly = {**batch, **{k: batch[k][some] for k in ("cls", "bboxes", "batch_idx", "score")}}
    assert 0 < len(partly["cls"]) < len(batch["cls"])
    for shown in (batch, partly, empty):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            vector, _ = pair(shown)
        assert torch.isfinite(vector).all()
        vector.sum().backward()
        optimizer.step()
    assert state_hash(pair.teacher_model) == before


def test_classes_that_do_not_fit_are_rejected() -> None:
    assert check_prefix("t.pt", ["Oil_spot", "pit"], ["oil spot", "pit", "dent"]) == 2
    for names, message in (
        (["pit", "oil spot", "dent"], "knows class 0 as 'Oil_spot', the data has 'pit' there"),
        (["oil spot"], "knows class 1 as 'pit', the data has nothing there"),
        (["oil spot", "pit"], "knows all of the data's 2 classes already"),
        (["oil spot", "pit", "dent", "Pit"], "class 3, 'Pit', is class 1 again"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            check_prefix("t.pt", ["Oil_spot", "pit"], names)
        assert "\n" not in str(caught.value)
