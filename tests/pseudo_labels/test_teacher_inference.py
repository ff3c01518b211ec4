"""Teacher inference through Ultralytics, with a small random network."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from dfssd.errors import UserError
from dfssd.pseudo_labels import teacher_inference
from dfssd.pseudo_labels.detector import Detector
from dfssd.pseudo_labels.teacher_inference import Inference, View, augmented_views, forward_batch, normalize_boxes

RULE = {"conf": 0.1, "iou": 0.6}


def predict(weights, images, *, imgsz, **options):
    """One look of one model at each image."""
    for (prediction,) in Inference([weights], [View(imgsz)], **{**RULE, **options}).predict(images):
        yield prediction


def test_normalize_boxes_hand_worked():
    boxes = [[0, 0, 200, 100], [50, 25, 150, 75], [-20, -10, 20, 10], [180, 90, 260, 140]]
    xywhn, kept = normalize_boxes(np.array(boxes), width=200, height=100)
    assert kept.all()
    expected = [[0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5], [0.05, 0.05, 0.1, 0.1], [0.95, 0.95, 0.1, 0.1]]
    assert xywhn == pytest.approx(np.array(expected))


def test_normalize_boxes_drops_what_has_no_area():
    boxes = [[10, 10, 10, 20], [20, 20, 10, 30], [300, 10, 400, 20], [np.nan, 0, 5, 5], [1, 1, 2, 2]]
    xywhn, kept = normalize_boxes(np.array(boxes), width=200, height=100)
    assert kept.tolist() == [False, False, False, False, True]
    assert xywhn.shape == (1, 4)
    assert normalize_boxes(np.zeros((0, 4)), 10, 10)[0].shape == (0, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A random yolov8n for three classes that is sure enough of something everywhere."""
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    for branch in model.model[-1].cv3:
        branch[-1].bias.data.copy_(torch.tensor([0.4, -0.4, -1.2]))
    path = tmp_path_factory.mktemp("teacher") / "random.pt"
    torch.save({"model": model.half(), "train_args": {}}, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Seven images of different shapes, in names that must be taken literally and in an order that is not sorted."""
    folder = tmp_path_factory.mktemp("data") / "images with spaces"
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for name, (h, w) in {
        "z.jpg": (40, 80), "a*b [1].png": (64, 64), "m 2.jpg": (90, 50), "ü.png": (33, 65),
        "b.jpg": (64, 64), "a.jpg": (128, 32), "y.jpg": (48, 48),
    }.items():  # fmt: skip
        path = folder / str(len(paths) % 2) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(path.suffix, rng.integers(0, 255, (h, w, 3), dtype=np.uint8))[1].tofile(path)
        paths.append(path)
    return paths


def test_every_image_once_in_order_with_valid_boxes(weights, images, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        predictions = list(predict(weights, images, imgsz=64, batch=3, device="cpu", conf=0.1, iou=0.6, max_det=20))
    assert [p.image for p in predictions] == images
    assert [(p.height, p.width) for p in predictions[:3]] == [(40, 80), (64, 64), (90, 50)]
    for p in predictions:
        assert 0 < len(p.classes) <= 20 and p.classes.dtype == np.int64
        assert set(p.classes.tolist()) <= {0, 1, 2}
        assert ((p.scores >= 0.1) & (p.scores <= 1)).all()
        corners = np.concatenate([p.boxes_xywhn[:, :2] - p.boxes_xywhn[:, 2:] / 2,
                                  p.boxes_xywhn[:, :2] + p.boxes_xywhn[:, 2:] / 2])  # fmt: skip
        assert corners.min() > -1e-9 and corners.max() < 1 + 1e-9
        assert p.boxes_xywhn[:, 2:].min() > 0
    assert not [r for r in caplog.records if "image" in r.getMessage() and "ms" in r.getMessage()]
    assert not list(tmp_path.iterdir())


def test_result_does_not_depend_on_the_neighbors_in_the_batch(weights, images):
    together = list(predict(weights, images, imgsz=64, batch=7, device="cpu", max_det=20))
    alone = list(predict(weights, images, imgsz=64, batch=1, device="cpu", max_det=20))
    for a, b in zip(together, alone, strict=True):
        assert np.allclose(a.boxes_xywhn, b.boxes_xywhn, atol=1e-3)
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_same_detections_as_ultralytics_from_the_file(weights, images):
    ours = next(predict(weights, images[:1], imgsz=64, batch=4, device="cpu", max_det=20))
    theirs = YOLO(weights).predict(
        str(images[0]), imgsz=64, rect=False, conf=0.1, iou=0.6, max_det=20, device="cpu", verbose=False
    )[0]
    assert np.allclose(ours.boxes_xywhn, theirs.boxes.xywhn.numpy(), atol=1e-5)
    assert ours.classes.tolist() == theirs.boxes.cls.int().tolist()


def test_forward_batch_fills_a_gpu():
    assert forward_batch(2, 640, "cpu") == 2
    assert forward_batch(2, 640, "0") == 64
    assert forward_batch(2, 416, "0") == 151
    assert forward_batch(2, 224, "0") == 256
    assert forward_batch(500, 224, "0") == 500


def test_a_batch_that_does_not_fit_is_halved(weights, images, monkeypatch):
    """A device with room for two images: the same detections as with room for all, in batches of one and two."""
    whole = list(predict(weights, images, imgsz=64, batch=7, device="cpu", max_det=20))
    sizes, start = [], Detector.start

    def small(self, prepared):
        if len(prepared) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(prepared))
        return start(self, prepared)

    monkeypatch.setattr(Detector, "start", small)
    parts = list(predict(weights, images, imgsz=64, batch=7, device="cpu", max_det=20))
    assert sizes == [1, 2, 2, 2]
    for a, b in zip(whole, parts, strict=True):
        assert a.image == b.image and np.allclose(a.boxes_xywhn, b.boxes_xywhn, atol=1e-3)


def test_images_are_decoded_while_the_network_computes(weights, images, monkeypatch):
    """When a batch starts, the next two are being read already, and no more."""
    read, seen = [], []
    start = Detector.start

    def reading(image):
        read.append(image)
        return teacher_inference.read_as_in_training(image)

    def starting(self, prepared):
        seen.append(len(read))
        return start(self, prepared)

    monkeypatch.setattr(Detector, "start", starting)
    found = list(predict(weights, images, imgsz=64, batch=1, device="cpu", max_det=20, read=reading))
    assert [p.image for p in found] == images
    assert all(done <= k + 1 + 1 + teacher_inference.AHEAD for k, done in enumerate(seen))
    assert set(read) == set(images) and len(read) == len(images)


def test_nothing_to_look_at(weights):
    assert list(predict(weights, [], imgsz=64, batch=2, device="cpu")) == []


def test_unreadable_image_is_reported(weights, images, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    for bad in (tmp_path / "broken.jpg", tmp_path / "missing.jpg"):
        with pytest.raises(UserError, match=f"cannot read .*{bad.name}: restore the file"):
            list(predict(weights, [images[0], bad], imgsz=64, batch=2, device="cpu"))


def test_an_unreadable_image_is_left_out_where_somebody_is_told(weights, images, tmp_path):
    """The others are found as without it; a batch of such images alone is none."""
    bad = [tmp_path / f"{number}.jpg" for number in range(4)]
    told = []
    found = predict(
        weights,
        [images[0], bad[0], *images[1:3], *bad[1:], images[3]],
        imgsz=64,
        batch=2,
        device="cpu",
        unreadable=lambda image, problem: told.append((image, str(problem))),
    )
    boxes = [(one.image, one.boxes_xywhn.tolist()) for one in found]
    assert boxes == [
        (one.image, one.boxes_xywhn.tolist()) for one in predict(weights, images[:4], imgsz=64, batch=1, device="cpu")
    ]
    assert sorted(image for image, _ in told) == bad and all("cannot read" in problem for _, problem in told)


def test_augmented_views():
    assert augmented_views(416) == (View(416), View(416, mirrored=True), View(352), View(512))
    assert augmented_views(640) == (View(640), View(640, mirrored=True), View(544), View(800))
    assert augmented_views(64) == (View(64), View(64, mirrored=True))  # 53 and 80 px are 64 again


def test_several_teachers_and_views_in_order(weights, images):
    """Models times views per image, each the same as a pass of its own; in a mirrored view, of a mirrored image."""
    views = [View(64), View(96)]
    looks = list(Inference([weights] * 2, views, batch=3, device="cpu", max_det=20, **RULE).predict(images))
    assert [len(seen) for seen in looks] == [4] * len(images)
    for k, view in enumerate(views):
        alone = list(predict(weights, images, imgsz=view.imgsz, batch=3, device="cpu", max_det=20))
        for seen, expected in zip(looks, alone, strict=True):
            for one in (seen[k], seen[2 + k]):
                assert one.image == expected.image and one.boxes_xywhn.tolist() == expected.boxes_xywhn.tolist()
                assert one.scores.tolist() == expected.scores.tolist()


def test_mirrored_view_is_that_of_the_mirrored_image(weights, images, tmp_path):
    """Exactly the boxes of a mirrored file, mirrored back."""
    cv2.imwrite(str(tmp_path / "mirrored.png"), cv2.imread(str(images[1]))[:, ::-1])
    mirrored = Inference([weights], [View(64, mirrored=True)], batch=1, device="cpu", max_det=20, **RULE)
    [[ours]] = mirrored.predict([images[1]])
    [theirs] = predict(weights, [tmp_path / "mirrored.png"], imgsz=64, batch=1, device="cpu", max_det=20)
    assert len(ours.classes) and ours.image == images[1]
    assert ours.scores.tolist() == theirs.scores.tolist() and ours.classes.tolist() == theirs.classes.tolist()
    assert ours.boxes_xywhn == pytest.approx(theirs.boxes_xywhn * [-1, 1, 1, 1] + [1, 0, 0, 0])
