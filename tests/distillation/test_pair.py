"""The pair: what the loss is made of, where gradients go, what is ignored, what a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from dfssd.distillation.pair import DistillationPair, for_inference, state_hash
from dfssd.distillation.terms import ded
from dfssd.pseudo_labels.online import OnlineLabeler
from tests.configured import pair as build_pair
from tests.thresholds import class_thresholds

TERMS = {
    "hwjs": {"weight": 2.0, "schedule": "constant"},
    "response_cls": {"weight": 1.0, "schedule": "constant"},
    "response_dfl": {"weight": 1.0, "schedule": "constant"},
    "logit_mse": {"weight": 0.5, "schedule": "constant"},
}


def model(name: str, nc: int = 3) -> DetectionModel:
    torch.manual_seed(len(name))
    made = DetectionModel(name, nc=nc, verbose=False)
    made.args = get_cfg()
    return made


def make_pair(**changes) -> DistillationPair:
    pair = build_pair(model("yolov8s.yaml"), model("yolov8n.yaml"), **{"terms": TERMS, **changes})
    return pair.train()


def make_batch(labeled: list[bool], *, ignore: Sequence[tuple[int, list[float]]] = ()) -> dict[str, Any]:
    n = len(labeled)
    torch.manual_seed(0)
    return {
        "img": torch.rand(n, 3, 64, 64),
        "cls": torch.zeros(n, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]] * n),
        "batch_idx": torch.arange(n).float(),
        "labeled": torch.tensor(labeled),
        "score": torch.ones(n),
        "ignore_source": torch.full((len(ignore),), -1.0),
        "ignore_bboxes": torch.tensor([b for _, b in ignore]).reshape(-1, 4),
        "ignore_batch_idx": torch.tensor([float(i) for i, _ in ignore]),
    }


def test_every_term_has_its_column_value_and_gradient() -> None:
    pair = make_pair()
    pair.probe = True
    vector, items = pair(make_batch([True, True, False, False]))
    detection = ["box_loss", "cls_loss", "dfl_loss"]
    assert list(items) == [*detection, *(f"u_{k}" for k in detection), *TERMS]
    assert vector.shape == (10,) and torch.isfinite(vector).all()
    for name in TERMS:
        assert items[name] > 0 and pair.gradients[name] > 0, name
    expected = [2 * items[k] for k in list(items)[:6]] + [4 * items[k] for k in TERMS]
    assert torch.allclose(vector, torch.stack(expected), rtol=1e-4)


def test_gradient_reaches_student_and_adapters_and_never_the_teacher() -> None:
    pair = make_pair()
    before = state_hash(pair.teacher_model)
    pair(make_batch([True, False]))[0].sum().backward()
    assert all(p.grad is None for p in pair.teacher_model.parameters())
    assert state_hash(pair.teacher_model) == before
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pair.projector.parameters())
    trainable = [p for p in pair.student_model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trainable)


def test_columns_do_not_change_between_batches_nor_in_validation() -> None:
    pair = make_pair()
    names = [list(pair(make_batch(flags))[1]) for flags in ([True, True], [False, False], [True, False])]
    ema = ModelEMA(pair).ema
    assert ema.teacher_model is None
    batch = {k: v for k, v in make_batch([True, True]).items() if not k.startswith("ignore") and k != "labeled"}
    with torch.no_grad():
        vector, items = ema.loss(batch, ema(batch["img"]))
    names.append(list(items))
    assert all(n == names[0] for n in names)
    assert vector.shape == (10,) and all(items[k] == 0 for k in names[0][3:])


def test_weight_scales_a_term_and_the_schedule_follows_the_progress() -> None:
    batch = make_batch([True, False])
    terms = {"logit_mse": {"weight": 1.0, "schedule": "cosine"}}
    pair = make_pair(terms=terms)
    values = []
    for step in (0, 50, 100):
        pair.set_progress(step, 100, 10)
        values.append(float(pair(batch)[1]["logit_mse"]))
    assert values[1] / values[0] == pytest.approx(0.55, rel=0.05)  # BatchNorm statistics move a little between calls
    assert values[2] / values[0] == pytest.approx(0.1, rel=0.05)


def test_unsup_weight_zero_silences_pseudo_boxes_only() -> None:
    pair = make_pair(unsup_weight=0.0, terms={})
    vector, items = pair(make_batch([True, False]))
    assert (vector[:3] > 0).all() and (vector[3:] == 0).all()
    assert items["box_loss"] > 0 and items["u_box_loss"] == 0


def test_labeled_part_equals_the_plain_yolo_loss() -> None:
    pair = make_pair(terms={})
    batch = make_batch([True, True])
    plain = copy.deepcopy(pair.student_model).train()
    expected, _ = plain.loss({k: batch[k] for k in ("img", "cls", "bboxes", "batch_idx")})
    vector, _ = pair(batch)
    assert torch.allclose(vector[:3], expected, rtol=1e-5)


def test_fully_ignored_unlabeled_image_is_not_trained_as_background() -> None:
    pair = make_pair(terms={})
    batch = make_batch([True, False], ignore=[(1, [0.5, 0.5, 1.0, 1.0])])
    kept = batch["batch_idx"] == 0
    batch.update({k: batch[k][kept] for k in ("cls", "bboxes", "batch_idx", "score")})
    _, items = pair(batch)
    assert items["u_cls_loss"] == 0 and items["u_box_loss"] == 0
    batch.update(ignore_bboxes=torch.zeros(0, 4), ignore_batch_idx=torch.zeros(0), ignore_source=torch.zeros(0))
    _, items = pair(batch)
    assert items["u_cls_loss"] > 0, "without the ignore zone the same image would be background"


@pytest.mark.parametrize(("layers", "shared"), [((), True), ((15, 18, 21), True), ((21, 15, 18), False)])
def test_terms_ignore_the_same_places_in_any_order_of_the_layers(
    layers: tuple[int, ...], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask of the head serves the terms only where its levels are those of the compared layers."""
    pair = make_pair(layers=layers, terms={"ded": {"weight": 1.0, "schedule": "constant"}})
    seen: list[Any] = []
    masks = ded.box_masks

    def watched(batch: Any, n: int, levels: Any) -> Any:
        found = masks(batch, n, levels)
        own = masks({k: v for k, v in batch.items() if k != "ignored"}, n, levels)
        seen.append(("ignored" in batch, torch.equal(found[1], own[1])))
        return found

    monkeypatch.setattr(ded, "box_masks", watched)
    pair(make_batch([True, False], ignore=[(1, [0.4, 0.5, 0.5, 0.3])]))
    assert seen == [(shared, True)]


def test_bf16_autocast_keeps_the_terms_in_full_precision() -> None:
    pair = make_pair()
    with torch.autocast("cpu", torch.bfloat16):
        vector, items = pair(make_batch([True, False]))
    assert torch.isfinite(vector).all()
    assert all(items[name].dtype == torch.float32 for name in TERMS)


def test_chosen_layers_and_bad_options() -> None:
    pair = make_pair(layers=(4, 6, 9), terms={"hwjs": TERMS["hwjs"]})
    assert pair(make_batch([True]))[1]["hwjs"] > 0
    with pytest.raises(ValueError, match=r"tau=0 must be a number > 0"):
        make_pair(terms={"hwjs": {**TERMS["hwjs"], "tau": 0}})


def test_pickled_pair_comes_back_with_working_hooks(tmp_path) -> None:
    pair = make_pair()
    pair(make_batch([True]))
    torch.save(ModelEMA(pair).ema, tmp_path / "ema.pt")
    again = torch.load(tmp_path / "ema.pt", weights_only=False)
    assert again.projector.state_dict().keys() == pair.projector.state_dict().keys()


def test_one_forward_pass_of_each_network_per_step() -> None:
    pair = make_pair()
    calls = []
    for name in ("teacher_model", "student_model"):
        getattr(pair, name).model[0].register_forward_hook(lambda m, i, o, name=name: calls.append(name))
    pair(make_batch([True, False]))
    assert calls == ["teacher_model", "student_model"]


def labeler(**rule) -> OnlineLabeler:
    return OnlineLabeler(class_thresholds(3, **{"tau_low": 1e-6, "tau0": 1e-6, "tau_max": 1e-6, **rule}), iou=0.6)


def without_boxes(batch: dict, images: list[int]) -> dict:
    kept = torch.tensor([int(i) not in images for i in batch["batch_idx"]])
    return {**batch, **{k: batch[k][kept] for k in ("cls", "bboxes", "batch_idx", "score")}}


@pytest.mark.parametrize(("teacher", "student"), [("yolov8s.yaml", "yolov8n.yaml"), ("yolo26s.yaml", "yolo26n.yaml")])
def test_one_forward_pass_of_the_teacher_gives_terms_and_boxes(teacher: str, student: str) -> None:
    terms = {"response_cls": TERMS["response_cls"]}
    pair = build_pair(model(teacher), model(student), terms=terms, labeler=labeler(), weigh_boxes=True).train()
    calls = []
    pair.teacher_model.register_forward_hook(lambda *_: calls.append(1))
    vector, items = pair(without_boxes(make_batch([True, False]), [1]))
    assert len(calls) == 1 and len(pair.labels.bboxes) > 0 and (pair.labels.batch_idx == 1).all()
    assert items["u_cls_loss"] > 0 and items["response_cls"] > 0
    vector.sum().backward()
    assert all(p.grad is None for p in pair.teacher_model.parameters())


def test_teacher_sees_the_weak_view_and_the_student_the_strong_one() -> None:
    pair = make_pair(terms={"response_cls": TERMS["response_cls"]})
    batch = make_batch([True, False, False])
    batch["weak_img"] = torch.rand(2, 3, 64, 64)
    seen = {}
    for name in ("teacher", "student"):
        network = getattr(pair, f"{name}_model")
        network.model[0].register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].clone()}))
    pair(batch)
    assert torch.equal(seen["student"], batch["img"])
    assert torch.equal(seen["teacher"][0], batch["img"][0]) and torch.equal(seen["teacher"][1:], batch["weak_img"])


def test_without_trust_the_teacher_rests_and_the_columns_stay() -> None:
    pair = make_pair(labeler=labeler())
    names = list(pair(make_batch([True, False]))[1])
    calls = []
    pair.teacher_model.register_forward_hook(lambda *_: calls.append(1))
    pair.trust = 0.0
    vector, items = pair(make_batch([True, False]))
    assert list(items) == names and not calls
    assert all(items[k] == 0 for k in items if k.startswith("u_") or k in TERMS)
    vector.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in pair.projector.parameters())


def test_agreement_counts_sure_anchors_of_unlabeled_images() -> None:
    pair = make_pair(terms={"response_cls": TERMS["response_cls"]})
    with torch.no_grad():
        for network, best in ((pair.teacher_model, 1), (pair.student_model, 2)):
            for level in network.model[-1].cv3:
                level[-1].bias[best] = 50.0
    pair(make_batch([True, False]))
    assert pair.agreement.tolist() == [0, 84], "64 px have 84 anchors, and all disagree"


def test_nothing_but_the_pseudo_boxes_ramps_up() -> None:
    pair = make_pair(terms={}, unsup_schedule="linear_ramp")
    batch = make_batch([True, False])
    values = []
    for step in (0, 99):
        pair.set_progress(step, 100, 10)
        values.append(pair(batch)[1])
    assert values[0]["u_box_loss"] / values[1]["u_box_loss"] == pytest.approx(0.1, rel=0.05)
    assert values[0]["box_loss"] / values[1]["box_loss"] == pytest.approx(1.0, rel=0.05)


def test_teacher_ready_for_inference_says_the_same_without_normalization() -> None:
    teacher = model("yolov8n.yaml").eval()
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # a trained one: not the identity
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = teacher(image)[1]
        ready = for_inference(teacher)
        after = ready(image)[1]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in ready.modules())
    for name in ("boxes", "scores"):
        assert before[name].std() > 1e-3
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4)
    pair = build_pair(ready, model("yolov8n.yaml"), terms=TERMS).train()
    vector, _ = pair(make_batch([True, False]))
    assert torch.isfinite(vector).all() and vector[-len(TERMS) :].min() > 0


def test_end_to_end_teacher_keeps_the_branch_that_is_distilled() -> None:
    ready = for_inference(model("yolo26n.yaml"))
    assert ready.model[-1].cv2 is not None and ready.model[-1].one2one_cv2 is not None
