"""The examples of docs/masks.md work: its YAML can be read, its script predicts the same as the network."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

from dfssd.segmentation.model import build_model, parameters
from tests.configured import load_masks
from tests.segmentation.material import NEU_NAMES, write_mask

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "masks.md").read_text(encoding="utf-8")


def test_yaml_of_masks_with_0_and_255(tmp_path: Path) -> None:
    (block,) = re.findall(r"^    # my_masks\.yaml.*?(?=^$)", TEXT, re.M | re.S)
    rng = np.random.default_rng(0)
    for folder, n in (("images/train", 3), ("images/val", 1), ("more_images", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), rng.integers(0, 255, (32, 40, 3), np.uint8))
            if "images/" in folder:
                mask = np.zeros((32, 40), np.uint8)
                mask[4:9, 4:9] = 255
                write_mask(tmp_path / folder.replace("images", "masks") / f"{i}.png", mask)
    (tmp_path / "my_masks.yaml").write_text(re.sub("^    ", "", block, flags=re.M), encoding="utf-8")
    dataset = load_masks(str(tmp_path / "my_masks.yaml"), tmp_path / "sets")
    assert dataset.names == ("background", "scratch")
    assert sorted(str(item.split) for item in dataset.items) == ["train"] * 3 + ["unlabeled"] * 2 + ["val"]
    assert all(item.classes == {1: 25} for item in dataset.items if item.known)


@pytest.mark.train
def test_script_for_the_onnx_file_answers_as_ultralytics_does(tmp_path: Path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    torch.manual_seed(0)
    model = build_model("mffmetal-6", 4, NEU_NAMES)
    for module in model.modules():  # random weights predict one class nearly everywhere
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, 0, 0.15)
    torch.save({"model": model.eval(), "train_args": {"task": "semantic", "imgsz": 200}}, tmp_path / "student.pt")
    YOLO(tmp_path / "student.pt", task="semantic").export(format="onnx", imgsz=200)
    photo = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (150, 300, 3)).astype(np.uint8), (0, 0), 4)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.normalize(photo, np.empty_like(photo), 0, 255, cv2.NORM_MINMAX))
    monkeypatch.chdir(tmp_path)
    made: dict = {}
    exec(compile(code, "docs/masks.md", "exec"), made)
    network = YOLO(tmp_path / "student.onnx", task="semantic")
    expected = network.predict(tmp_path / "photo.png", imgsz=200, verbose=False)[0].semantic_mask.data
    classes = np.asarray(expected.cpu()).squeeze()
    assert made["classes"].shape == classes.shape == (150, 300) and len(np.unique(classes)) > 1
    assert (made["classes"] == classes).mean() > 0.99


def test_table_of_networks_counts_rightly() -> None:
    counts = {int(w): n for w, n in re.findall(r"(\d+): (981,580) parameters", TEXT)}
    assert counts == {30: "981,580"} and parameters(build_model("mffmetal-30", 4)) == 981_580
    for width, millions in re.findall(r"(\d+): (\d+\.\d) M", TEXT):
        assert f"{parameters(build_model(f'mffmetal-{width}', 4)) / 1e6:.1f}" == millions
