from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics import YOLO
from ultralytics.utils.metrics import DetMetrics

from dfssd.detection.evaluate import balanced_confidence, evaluate, plain_metrics
from dfssd.errors import UserError
from dfssd.evaluation.detections import Detections
from dfssd.evaluation.settings import EvalSettings
from tests.tiny_detection import NAMES, save_detector, write_images

METRICS = {"map50", "map50_95", "precision", "recall", "confidence"}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("weights") / "n.pt")


def measure(detector: Path, data: Path, save_dir: Path, *, split: str = "test", imgsz: int = 64, **options) -> dict:
    return evaluate(detector, EvalSettings(data, split, imgsz, batch=2, device="cpu"), save_dir=save_dir, **options)


def test_all_keys_are_there_with_the_counts_of_the_split(detector, tmp_path):
    data = write_images(tmp_path / "data", count=3, classes=(0, 2))
    result = measure(detector, data, tmp_path / "out")
    assert set(result) == METRICS | {"per_class", "pr_curve", "images", "instances"}
    assert (result["images"], result["instances"]) == (3, 6)
    assert list(result["per_class"]) == list(NAMES)
    assert [result["per_class"][name]["instances"] for name in NAMES] == [3, 0, 3]
    assert all(0 <= result[key] <= 1 for key in METRICS)


def test_class_absent_from_the_split_has_no_values(detector, tmp_path):
    data = write_images(tmp_path / "data", classes=(0,))
    absent = measure(detector, data, tmp_path / "out")["per_class"]["pit"]
    assert absent == {"ap50": None, "ap50_95": None, "precision": None, "recall": None, "instances": 0}


def test_split_without_boxes_has_no_metrics(detector, tmp_path):
    data = write_images(tmp_path / "data", classes=())
    result = measure(detector, data, tmp_path / "out")
    assert [result[key] for key in sorted(METRICS)] == [None] * len(METRICS)
    assert (result["images"], result["instances"]) == (4, 0)


def test_other_split(detector, tmp_path):
    data = write_images(tmp_path / "data")
    assert measure(detector, data, tmp_path / "out", split="val")["images"] == 1


def test_no_file_is_left_behind_unless_requested(detector, tmp_path):
    data = write_images(tmp_path / "data")
    measure(detector, data, tmp_path / "test" / "student")
    assert not (tmp_path / "test").exists()
    measure(detector, data, tmp_path / "test" / "student", keep_detections=True)
    assert {p.name for p in (tmp_path / "test" / "student").iterdir()} == {"detections.npz", "predictions.npz"}
    assert [p.name for p in detector.parent.iterdir()] == ["n.pt"]


def test_recorded_detections_give_the_same_map(detector, tmp_path):
    data = write_images(tmp_path / "data", count=5)
    for file in sorted((tmp_path / "data" / "labels").glob("*.txt"))[1:]:  # big boxes, as this detector gives them
        file.write_text("0 0.5 0.5 0.9 0.9\n1 0.5 0.5 0.7 0.9\n2 0.6 0.5 0.8 1")
    result = measure(detector, data, tmp_path / "out", imgsz=256, keep_detections=True)
    found = Detections.read(tmp_path / "out" / "detections.npz")
    assert len(found.conf) > 0 and len(found.images) == result["images"] == 5
    assert result["map50_95"] > 0  # else equality would say nothing
    for name, value in found.scores().items():
        assert value[0] == pytest.approx(result[name], abs=1e-9)
    assert sorted(found.images) == [f"plate {k}.png" for k in range(5)]  # names only: no path of this machine
    assert np.bincount(found.target_image, minlength=5).sum() == result["instances"]
    assert set(np.bincount(found.target_image)) == {2, 3}


def test_recorded_predictions_are_what_the_network_answers(detector, tmp_path):
    """Of several classes of a box the best one, and only boxes that these leave."""
    data = write_images(tmp_path / "data", count=4, classes=(0, 2))
    squares = EvalSettings(data, "test", 64, batch=2, device="cpu", rect=False)
    evaluate(detector, squares, save_dir=tmp_path / "out", keep_detections=True)
    measured, found = (Detections.read(tmp_path / "out" / f"{name}.npz") for name in ("detections", "predictions"))
    assert len(measured.conf) > len(found.conf) > 0 and measured.images == found.images
    assert measured.same_truth(found)
    shown = 0
    for number, image in enumerate(found.images):
        file = tmp_path / "data" / "images" / image
        height, width = cv2.imread(str(file)).shape[:2]
        answer = YOLO(detector).predict(file, imgsz=64, conf=0.001, iou=0.7, rect=False, verbose=False)[0].boxes
        own = found.image == number
        order, expected = np.argsort(-found.conf[own]), np.argsort(-answer.conf.numpy())
        assert found.conf[own][order] == pytest.approx(answer.conf.numpy()[expected], abs=1e-4)
        assert found.pred_cls[own][order].tolist() == answer.cls.numpy()[expected].tolist()
        places = found.places.box[own][order] * [width, height, width, height]
        assert places == pytest.approx(answer.xyxy.numpy()[expected], abs=0.05)
        shown += own.sum()
    assert shown == len(found.conf)


def test_recorded_detections_of_a_split_without_boxes(detector, tmp_path):
    data = write_images(tmp_path / "data", classes=())
    measure(detector, data, tmp_path / "out", keep_detections=True)
    found = Detections.read(tmp_path / "out" / "detections.npz")
    assert len(found.target_cls) == 0 and np.isnan(found.scores()["map50_95"][0])


def test_values_are_those_of_ultralytics_per_class():
    """Class 0: one object found. Class 1: absent. Class 2: one of two found, at IoU 0.5 only, then a false alarm."""
    metrics = DetMetrics(names=dict(enumerate(NAMES)))
    hit, near, miss = np.ones(10, bool), np.arange(10) < 1, np.zeros(10, bool)
    metrics.update_stats(
        {
            "tp": np.stack([hit, near, miss]),
            "conf": np.array([0.9, 0.8, 0.7]),
            "pred_cls": np.array([0.0, 2.0, 2.0]),
            "target_cls": np.array([0.0, 2.0, 2.0]),
            "target_img": np.array([0.0, 2.0]),
            "im_name": "a.png",
        }
    )
    metrics.process()
    result = plain_metrics(metrics, images=1)
    scratch, pit, stain = (result["per_class"][name] for name in NAMES)
    assert scratch["ap50"] == pytest.approx(0.995) == scratch["ap50_95"]
    assert stain["ap50"] == pytest.approx(0.5, abs=0.01)
    assert stain["ap50_95"] == pytest.approx(stain["ap50"] / 10)
    assert pit["ap50"] is None and stain["instances"] == 2
    assert result["map50"] == pytest.approx((scratch["ap50"] + stain["ap50"]) / 2)
    threshold = np.searchsorted(metrics.box.px, result["confidence"])
    assert result["precision"] == pytest.approx(metrics.box.p_curve[:, threshold].mean())
    assert result["recall"] == pytest.approx(metrics.box.r_curve[:, threshold].mean())
    curve = result["pr_curve"]
    assert len(curve["recall"]) == len(curve["precision"]) == 101
    assert (curve["recall"][0], curve["recall"][50], curve["recall"][-1]) == (0.0, 0.5, 1.0)
    assert curve["precision"][25] == pytest.approx(1.0)  # both classes are right up to recall 0.5
    assert curve["precision"][75] < 0.9  # class 2 finds no more there


def test_missing_split_is_named(detector, tmp_path):
    data = write_images(tmp_path / "data")
    with pytest.raises(UserError, match="no 'holdout:' entry"):
        measure(detector, data, tmp_path / "out", split="holdout")


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pt does not exist"):
        measure(tmp_path / "gone.pt", tmp_path / "data.yaml", tmp_path / "out")


def scored(*rows: tuple[float, int, bool], classes: tuple[int, ...]) -> Detections:
    """Detections with score, class, and whether they match a true box, in one image with true boxes of ``classes``."""
    conf, pred_cls, hits = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    return Detections(
        tp=np.repeat(hits.astype(bool)[:, None], 10, axis=1),
        conf=conf.astype(float),
        pred_cls=pred_cls.astype(float),
        image=np.zeros(len(conf), int),
        target_cls=np.array(classes, float),
        target_image=np.zeros(len(classes), int),
        images=("a.png",),
    )


def test_balanced_threshold_lies_between_hits_and_false_alarms() -> None:
    found = scored((0.9, 0, True), (0.7, 0, True), (0.3, 0, False), (0.2, 0, False), classes=(0, 0))
    assert 0.3 < balanced_confidence(found) < 0.7
    late = scored((0.9, 0, False), (0.3, 0, True), (0.2, 0, True), classes=(0, 0))
    assert balanced_confidence(late) < 0.25
    assert balanced_confidence(scored(classes=(0,))) is None
    assert balanced_confidence(scored((0.9, 0, False), classes=())) is None


def test_balanced_threshold_is_that_of_yolo_val_where_each_box_has_one_class() -> None:
    random = np.random.default_rng(0)
    rows = [(score, int(score * 97) % 2, random.random() < score) for score in random.random(200)]
    found, metrics = scored(*rows, classes=(0, 1) * 60), DetMetrics({0: "a", 1: "b"})
    for name, values in {
        "tp": found.tp, "conf": found.conf, "pred_cls": found.pred_cls, "target_cls": found.target_cls,
        "target_img": np.unique(found.target_cls),
    }.items():  # fmt: skip
        metrics.stats[name].append(values)
    metrics.process(plot=False)
    assert balanced_confidence(found) == plain_metrics(metrics, images=1)["confidence"]
