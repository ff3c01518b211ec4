"""The file that runs without torch: letterbox, decoding, and suppression against values by hand, OpenCV, and YOLO()."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

from dfssd.deployment import infer
from dfssd.deployment.infer import Detector, fitted, letterbox, read, resized, suppressed
from tests.deployment.material import PHOTOS, SIZE, save_onnx


def matched(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The largest difference of a box edge [px] and of a score, row by row; the classes must agree."""
    assert ours.shape == theirs.shape and len(ours) > 0
    assert (ours[:, 5] == theirs[:, 5]).all()
    return float(abs(ours[:, :4] - theirs[:, :4]).max()), float(abs(ours[:, 4] - theirs[:, 4]).max())


def of_yolo(model: Path, image: Path, conf: float = 0.25, imgsz: int = SIZE) -> np.ndarray:
    from ultralytics import YOLO

    [result] = YOLO(model, task="detect").predict(image, conf=conf, imgsz=imgsz, verbose=False, device="cpu")
    return result.boxes.data.numpy()


@pytest.mark.parametrize("size", [(480, 640), (333, 777), (50, 70), (20, 9), (128, 128), (64, 64), (63, 1000)])
@pytest.mark.parametrize("side", [64, 96, 160])
def test_scaling_is_that_of_opencv_to_the_last_bit(size: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = fitted(image, side, side)[0]
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert (resized(image, height, width) == expected).all()


@pytest.mark.parametrize("size", [(480, 640), (333, 777), (50, 70), (97, 40)])
def test_letterbox_is_that_of_ultralytics(size: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = LetterBox((96, 128), auto=False)(image=image)
    assert (letterbox(image, 96, 128) == expected).all()


def test_suppression_by_hand() -> None:
    """Of class 0 the second box overlaps the first by 8/10 and goes; 6/12 = 0.5 stays, and so does another class."""
    rows = [[0, 0, 10, 1, 0.9, 0], [1, 0, 10, 1, 0.8, 0], [1, 0, 10, 1, 0.95, 1], [4, 0, 13, 1, 0.7, 0]]
    boxes = np.array(rows, np.float32)
    assert suppressed(boxes)[:, 4].tolist() == pytest.approx([0.95, 0.9, 0.7])
    assert suppressed(boxes[:0]).shape == (0, 6)


def test_suppression_is_that_of_torchvision() -> None:
    import torch
    from torchvision.ops import batched_nms

    random = np.random.default_rng(2)
    corners = random.uniform(0, 40, (400, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 30, (400, 2)), random.random((400, 1))])
    boxes = np.hstack([boxes, random.integers(0, 3, (400, 1))]).astype(np.float32)
    rows = torch.from_numpy(boxes)
    kept = batched_nms(rows[:, :4], rows[:, 4], rows[:, 5].long(), infer.OVERLAP)[: infer.MOST]
    assert len(kept) < 350 and (suppressed(boxes) == boxes[kept.numpy()]).all()


@pytest.mark.train
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_boxes_are_those_of_yolo(model: Path, photo: Path) -> None:
    edges, scores = matched(Detector(model)([read(photo, 16)])[0], of_yolo(model, photo))
    assert edges < 0.05 and scores < 1e-4


@pytest.mark.train
@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"dynamic": True}, 1e-4),
        ({"nms": True, "conf": 0.1}, 1e-4),
        ({"half": True}, 2e-3),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_boxes_of_other_exports_are_those_of_yolo(tmp_path: Path, options: dict, most: float) -> None:
    model = save_onnx(tmp_path, **options)
    edges, scores = matched(Detector(model)([read(PHOTOS[0], 16)])[0], of_yolo(model, PHOTOS[0]))
    assert scores < most and edges < 200 * most + 0.05


@pytest.mark.train
def test_several_images_at_once_are_several_answers(model: Path, tmp_path: Path) -> None:
    """Two images for an input of three."""
    images = [read(photo, 16) for photo in PHOTOS]
    one, three = Detector(model), Detector(save_onnx(tmp_path, batch=3))
    for single, both in zip([one([image])[0] for image in images], three(images), strict=True):
        assert matched(single, both)[1] < 1e-5


@pytest.mark.train
def test_thresholds_come_from_the_file(model: Path, tmp_path: Path) -> None:
    network = onnx.load(str(model))
    facts = {"thresholds": {"pit": 0.9, "stain": 0.1}}
    network.metadata_props.add(key="dfssd", value=json.dumps(facts))
    onnx.save(network, str(tmp_path / "own.onnx"))
    image = read(PHOTOS[0], 16)
    own, plain = Detector(tmp_path / "own.onnx"), Detector(model)
    assert own.thresholds.tolist() == pytest.approx([0.25, 0.9, 0.1])
    lowest = own([image], conf=0.1)[0]
    kept = lowest[lowest[:, 4] >= own.thresholds[lowest[:, 5].astype(int)]]
    assert (own([image])[0] == kept).all() and len(kept) != len(plain([image])[0])


@pytest.mark.train
def test_folder_without_images_is_an_error(model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        infer.main([str(tmp_path), "--model", str(model)])
    assert caught.value.code == 2 and f"there are no images in {tmp_path}" in capsys.readouterr().err


def test_sixteen_bits_and_orientation(tmp_path: Path) -> None:
    values = np.array([[0, 256, 4095, 1024]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read(tmp_path / "deep.png", 16)[0, :, 0].tolist() == [0, 1, 15, 4]
    assert read(tmp_path / "deep.png", 12)[0, :, 2].tolist() == [0, 16, 255, 64]
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=turned)
    assert read(tmp_path / "turned.jpg", 16).shape == (30, 20, 3)


def test_it_is_one_short_file() -> None:
    assert len(Path(infer.__file__).read_text(encoding="utf-8").splitlines()) <= 155
