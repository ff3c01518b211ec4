"""What files say about themselves, and what they do not."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from ultralytics.utils.patches import torch_load

from dfssd.deployment.facts import facts, sign_checkpoint, sign_onnx, without_paths
from dfssd.deployment.infer import Detector
from dfssd.deployment.networks import open_network
from tests.tiny_detection import NAMES, save_detector

ABOUT = facts(
    run="line 3", ultralytics="8.4.190", names=NAMES, bits=12, thresholds={"scratch": 0.3, "pit": 1, "stain": 0}
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/parts/data.yaml", "data.yaml"),
        ("C:\\parts\\data.yaml", "data.yaml"),
        ("../weights/a.pt", "a.pt"),
        ("runs/x/weights/a.pt", "a.pt"),
        ("yolov8n.yaml", "yolov8n.yaml"),
        ("pits/holes", "pits/holes"),
        ("https://ultralytics.com/license", "https://ultralytics.com/license"),
        (Path("/data/x"), "x"),
        ({"data": "/a/b", "lr0": 0.1, "list": ["/c/d", None]}, {"data": "b", "lr0": 0.1, "list": ["d", None]}),
    ],
)
def test_paths_become_names(value, expected) -> None:
    assert without_paths(value) == expected


@pytest.mark.parametrize("thresholds", [{"scratch": 0.3}, {"scratch": -1, "pit": 0, "stain": 0}])
def test_thresholds_are_one_for_each_class(thresholds) -> None:
    with pytest.raises(ValueError, match="one of at least"):
        facts(run="a", ultralytics="8", names=NAMES, thresholds=thresholds)


def test_only_what_is_known_is_said() -> None:
    assert not {"bits", "preprocess", "thresholds"} & set(facts(run="a", ultralytics="8", names=NAMES))


@pytest.mark.train
def test_no_path_of_this_machine_is_in_a_file(tmp_path: Path) -> None:
    """A checkpoint as after a training: its arguments are full of paths, and the exporter puts one into ONNX."""
    checkpoint = torch_load(save_detector(tmp_path / "secret place" / "student.pt"), map_location="cpu")
    paths = {"data": str(tmp_path / "data.yaml"), "project": str(tmp_path), "model": str(tmp_path / "a.pt")}
    checkpoint["model"].args = {**checkpoint["model"].args, **paths}
    checkpoint |= {"train_args": paths, "git": {"root": str(tmp_path)}}
    checkpoint["model"].yaml["yaml_file"] = str(tmp_path / "a.yaml")
    checkpoint["model"].pt_path = None  # after a training that was resumed
    torch.save(checkpoint, tmp_path / "trained.pt")
    sign_checkpoint(tmp_path / "trained.pt", tmp_path / "signed.pt", ABOUT)
    place = str(tmp_path).encode()
    assert place in (tmp_path / "trained.pt").read_bytes()
    assert place not in (tmp_path / "signed.pt").read_bytes()
    before, after = (torch_load(tmp_path / f"{name}.pt", map_location="cpu") for name in ("trained", "signed"))
    weights = zip(before["model"].state_dict().values(), after["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights) and after["train_args"]["data"] == "data.yaml"

    from ultralytics import YOLO

    exported = Path(YOLO(tmp_path / "trained.pt").export(format="onnx", imgsz=64, verbose=False))
    assert place in exported.read_bytes()
    sign_onnx(exported, ABOUT)
    assert place not in exported.read_bytes()
    assert open_network(tmp_path / "signed.pt", None).thresholds.tolist() == pytest.approx([0.3, 1, 0])


@pytest.mark.train
def test_signed_onnx_files_are_read_and_repeatable(model: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for copy in copies:
        copy.write_bytes(model.read_bytes())
    network = onnx.load(str(copies[1]))
    for entry in network.metadata_props:
        if entry.key == "date":
            entry.value = "tomorrow"
    onnx.save(network, str(copies[1]))
    for copy in copies:
        sign_onnx(copy, ABOUT)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    detector = Detector(copies[0])
    assert detector.facts == json.loads(json.dumps(ABOUT)) and detector.names == dict(enumerate(NAMES))
    assert detector.thresholds.tolist() == pytest.approx([0.3, 1, 0])
    network_of_file = open_network(copies[0], None)
    assert network_of_file.bits == 12 and open_network(copies[0], 0.5).thresholds.tolist() == [0.5] * 3
