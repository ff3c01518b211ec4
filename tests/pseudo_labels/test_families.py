"""Labelers of several families: each finds what Ultralytics' own predictor finds with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

from dfssd.distillation.compatibility import align_teacher
from dfssd.pseudo_labels.detector import Detector
from dfssd.pseudo_labels.families import GRID, ONE_TO_ONE, QUERIES, family_of
from dfssd.pseudo_labels.fusion import fuse
from dfssd.pseudo_labels.labeling import label_images
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.teacher_inference import Inference, View
from tests.configured import DEFAULTS
from tests.tiny_detection import NAMES, RTDETR_TINY, TINY

FAMILIES = {TINY: GRID, "yolo11n.yaml": GRID, "yolo26n.yaml": GRID, "yolov10n.yaml": GRID, RTDETR_TINY: QUERIES}
RULE = {"conf": 0.3, "iou": 0.6, "max_det": 20}


def build(architecture: str) -> RTDETR | YOLO:
    """A network with random weights for three classes whose boxes and scores differ from place to place."""
    torch.manual_seed(0)
    transformer = architecture == RTDETR_TINY
    found: RTDETR | YOLO = RTDETR(architecture) if transformer else YOLO(architecture)
    kind = RTDETRDetectionModel if transformer else DetectionModel
    found.model = kind(architecture, nc=3, verbose=False)
    found.model.names, found.model.args = dict(enumerate(NAMES)), {"imgsz": 64, "task": "detect"}
    head = found.model.model[-1]
    for mlp in getattr(head, "dec_bbox_head", ()):
        torch.nn.init.normal_(mlp.layers[-1].weight, std=0.2)
    family = family_of(head)
    assert family is not None
    seen = torch.rand(32, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        for module in found.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics of such images: the signal survives many layers
                module.momentum = None
        found.model.train()(seen)
        for layer in family.class_layers(head):  # logits of mean 0 and deviation 1 in every layer
            if not isinstance(layer, torch.nn.Embedding):
                layer.register_forward_hook(_standardize)
        found.model.eval()(seen)
    for layer in family.class_layers(head):
        layer._forward_hooks.clear()
    found.model.eval()
    return found


def _standardize(layer: torch.nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
    mean, deviation = output.mean(), output.std()
    layer.weight.div_(deviation)
    layer.bias.sub_(mean).div_(deviation)
    return (output - mean) / deviation


def save(network: RTDETR | YOLO, path: Path) -> Path:
    network.save(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Three images of noise in blocks: wide, high, and square."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    files = [folder / f"{i}.png" for i in range(3)]
    for file, (h, w) in zip(files, ((6, 14), (11, 5), (8, 8)), strict=True):
        blocks = random.integers(0, 255, (h, w, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(file)
    return files


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda name: Path(name).stem)
def labeler(request, tmp_path_factory) -> Path:
    return save(build(request.param), tmp_path_factory.mktemp("labeler") / f"{Path(request.param).stem}.pt")


def found_by(weights: Path, images: list[Path], **rule) -> list[ImagePrediction]:
    detector = Inference([weights], [View(64)], batch=2, device="cpu", **{**RULE, **rule})
    return [look for (look,) in detector.predict(images)]


def of_ultralytics(weights: Path, image: Path, **more) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (xywhn), scores and classes of Ultralytics' own predictor."""
    network = RTDETR(weights) if "rtdetr" in weights.name else YOLO(weights)
    options = {"imgsz": 64, "rect": False, "device": "cpu", "verbose": False, **RULE, **more}
    boxes = network.predict(str(image), **options)[0].boxes
    corners = boxes.xyxyn.numpy().clip(0, 1)
    return (
        np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1),
        boxes.conf.numpy(),
        boxes.cls.numpy().astype(int),
    )


def test_same_boxes_as_ultralytics_own_predictor(labeler: Path, images: list[Path]) -> None:
    for ours, image in zip(found_by(labeler, images), images, strict=True):
        boxes, scores, classes = of_ultralytics(labeler, image)
        assert len(classes) > 3 and len(set(scores)) > 3, "a predictor that finds nothing would prove nothing"
        assert ours.boxes_xywhn == pytest.approx(boxes, abs=1e-5)
        assert ours.scores == pytest.approx(scores, abs=1e-5)
        assert ours.classes.tolist() == classes.tolist()


def test_family_is_that_of_the_network(labeler: Path) -> None:
    expected = {Path(name).stem: family for name, family in FAMILIES.items()}
    assert Detector(labeler, "cpu").family is expected[labeler.stem]


def test_a_transformer_sees_a_stretched_image(images: list[Path], tmp_path: Path) -> None:
    """In a wide image the boxes of RT-DETR are those of the image pressed into a square, and not of one with bars."""
    weights = save(build(RTDETR_TINY), tmp_path / "rtdetr.pt")
    pressed, barred = tmp_path / "pressed.png", tmp_path / "barred.png"
    pixels = np.array(Image.open(images[0]))[..., ::-1]
    for file, stretched in ((pressed, True), (barred, False)):
        Image.fromarray(Detector.prepare(pixels, 64, stretched)[..., ::-1].copy()).save(file)
    wide, same, other = found_by(weights, [images[0], pressed, barred])
    assert wide.boxes_xywhn == pytest.approx(same.boxes_xywhn, abs=1e-6)
    assert wide.scores == pytest.approx(same.scores, abs=1e-6)
    assert len(other.scores) != len(wide.scores) or other.scores != pytest.approx(wide.scores, abs=1e-3)


def test_aligned_labeler_finds_the_same_under_the_new_order(labeler: Path, images: list[Path], tmp_path: Path) -> None:
    """Each score moves with its class; ties between the classes of a box apart, nothing else changes."""
    align_teacher(str(labeler), ["Stain", "scratch", "pit"], tmp_path / labeler.name)
    before, after = (found_by(file, images) for file in (labeler, tmp_path / labeler.name))
    for old, new in zip(before, after, strict=True):
        assert len(old.classes) > 3
        assert new.classes.tolist() == [(1, 2, 0)[c] for c in old.classes]
        assert new.scores == pytest.approx(old.scores, abs=1e-4)
        assert new.boxes_xywhn == pytest.approx(old.boxes_xywhn, abs=1e-3)


def test_classes_that_the_data_lacks_are_dropped(labeler: Path, images: list[Path], tmp_path: Path) -> None:
    align_teacher(str(labeler), ["stain", "pit"], tmp_path / labeler.name)
    network = YOLO(tmp_path / labeler.name).model
    assert network.names == {0: "stain", 1: "pit"} and network.nc == network.model[-1].nc == 2
    found = found_by(tmp_path / labeler.name, images)
    assert {c for one in found for c in one.classes.tolist()} == {0, 1}


def test_a_network_that_kept_its_one_to_one_branch_alone(images: list[Path], tmp_path: Path) -> None:
    """Folding an end-to-end network removes the branch that needs suppression; the other one gives corners."""
    network = build("yolo26n.yaml")
    network.model.end2end = True
    network.model.fuse(verbose=False)
    weights = save(network, tmp_path / "folded.pt")
    assert Detector(weights, "cpu").family is ONE_TO_ONE
    for ours, image in zip(found_by(weights, images), images, strict=True):
        boxes, scores, classes = of_ultralytics(weights, image, nms=False)
        assert len(classes) > 3
        assert ours.boxes_xywhn == pytest.approx(boxes, abs=1e-5) and ours.classes.tolist() == classes.tolist()
        assert ours.scores == pytest.approx(scores, abs=1e-5)


def test_two_families_look_at_each_image_and_are_fused(images: list[Path], tmp_path: Path) -> None:
    """Both together find what each finds alone, and label images with fused boxes."""
    files = [save(build(TINY), tmp_path / "yolo.pt"), save(build(RTDETR_TINY), tmp_path / "rtdetr.pt")]
    together = list(Inference(files, [View(64)], batch=3, device="cpu", **RULE).predict(images))
    for look, *alone in zip(together, *(found_by(file, images) for file in files), strict=True):
        for ours, own in zip(look, alone, strict=True):
            assert ours.classes.tolist() == own.classes.tolist()
            assert ours.boxes_xywhn == pytest.approx(own.boxes_xywhn, abs=1e-5)
    section = label_images(
        files, images, tmp_path / "labels", names=NAMES, imgsz=64, batch=2, device="cpu", rule=DEFAULTS.pseudo
    )
    assert section["settings"]["teachers"] == 2
    floor = DEFAULTS.pseudo.tau_low
    both = Inference(files, [View(64)], batch=2, device="cpu", conf=floor, iou=DEFAULTS.pseudo.iou)
    fused = [fuse(look, score_floor=floor) for look in both.predict(images)]
    assert sum(len(one.classes) for one in fused) > 0
    assert section["accepted"] + section["ignored"] == sum(len(one.classes) for one in fused)


@pytest.mark.parametrize("architecture", ["yolov8n-seg.yaml", "yolo11n-obb.yaml"])
def test_other_tasks_belong_to_no_family(architecture: str, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    YOLO(architecture).save(file)
    with pytest.raises(ValueError, match="is no detector whose boxes can be used: its head is"):
        Detector(file, "cpu")
