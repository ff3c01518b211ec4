"""What a checkpoint may hold, what it may do with that, and that all networks we read can still be read."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import Conv, TorchVision
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from dfssd.errors import UserError
from dfssd.pretraining.model import PretrainingModel
from dfssd.pretraining.objectives import Features, ForeignParts
from dfssd.segmentation.model import build_model
from dfssd.trust.checkpoints import load
from dfssd.trust.classes import Refused, entries
from tests.test_pickled_paths import pair
from tests.tiny_detection import RTDETR_TINY, TINY


def stored(tmp_path: Path, content: Any) -> Path:
    torch.save(content, tmp_path / "x.pt")
    return tmp_path / "x.pt"


class Call:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def pretraining() -> dict[str, nn.Module]:
    objectives = ForeignParts((32, 64, 128), (8, 16, 32)), Features((32, 64, 128), (8, 16, 32), lambda x: x, 4)
    networks = (DetectionModel(TINY, nc=1, verbose=False) for _ in objectives)
    return {str(n): ModelEMA(PretrainingModel(*both)).ema for n, both in enumerate(zip(networks, objectives))}


NETWORKS: dict[str, Callable[[], Any]] = {
    "boxes": lambda: DetectionModel(TINY, verbose=False),
    "another family": lambda: RTDETR(RTDETR_TINY).model,
    "images as a whole": lambda: YOLO("yolov8n-cls.yaml").model,
    "a student's training": lambda: ModelEMA(pair()).ema,
    "pretraining": pretraining,
    "masks": lambda: build_model("mffmetal-6", 4),
    "masks by a library": lambda: build_model("smp:dpt/tu-vit_tiny_patch16_224", 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_read_as_they_were(name: str, tmp_path: Path) -> None:
    if "by a" in name:
        pytest.importorskip("segmentation_models_pytorch")
    network = NETWORKS[name]()
    content = {
        "model": network,
        "train_args": get_cfg(),
        "train_metrics": {"fitness": np.float64(0.5), "counts": np.arange(3), "names": frozenset({"a"})},
        "at": Path("somewhere") / "x",
    }
    found = load(stored(tmp_path, content))
    assert found["train_args"].imgsz == 640 and found["at"] == Path("somewhere/x")
    assert found["train_metrics"]["counts"].tolist() == [0, 1, 2] and found["train_metrics"]["names"] == {"a"}
    if isinstance(network, nn.Module):
        network, again = {"": network}, {"": found["model"]}
    else:
        again = found["model"]
    for key, one in network.items():
        assert type(again[key]) is type(one)
        for own, (place, theirs) in zip(one.state_dict().values(), again[key].state_dict().items(), strict=True):
            assert torch.equal(own, theirs), place


def test_a_forward_pass_that_is_stored_by_name_is_found(tmp_path: Path) -> None:
    """Files of Ultralytics hold some: ``Detect.forward`` of an export."""
    layer: Any = nn.Linear(2, 2)
    layer.other = Call(getattr, nn.Identity, "forward")
    layer.bound = Call(getattr, nn.ReLU(), "forward")
    found = load(stored(tmp_path, {"model": layer}))["model"]
    assert found.other is nn.Identity.forward
    assert torch.equal(found.bound(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


REFUSED = {
    "a command": (Call(os.system, "echo"), "posix.system|nt.system"),
    "an expression": (Call(eval, "1"), "builtins.eval"),
    "a process": (Call(subprocess.Popen, ["echo"]), "(subprocess|commands).Popen"),
    "a constructor that reads a file": (Call(DetectionModel, "yolov8n.yaml"), "calls ultralytics.nn.tasks.Detec"),
    "a constructor that fetches weights": (Call(TorchVision, "resnet18", "DEFAULT"), "calls ultralytics.nn.modules"),
    "a constructor of torch": (Call(nn.Linear, 3, 4), "calls torch.nn.modules.linear.Linear"),
    "another attribute of a class": (Call(getattr, nn.Linear, "__init__"), "asks for the attribute '__init__'"),
    "another attribute of a network": (Call(getattr, nn.ReLU(), "register_forward_hook"), "asks for the attribute"),
    "an attribute of a value": (Call(getattr, "", "format"), "asks for the attribute"),
    "a function of torch": (Call(torch.load, "x.pt"), "torch.serialization.load"),
    "a function of Ultralytics": (Call(YOLO, "x.pt"), "ultralytics.models.yolo.model.YOLO"),
    "a function of ours": (Call(build_model, "mffmetal-6", 4), "dfssd.segmentation.model.build_model"),
    "numpy reading a file": (Call(np.load, "x.npy"), "numpy.*load"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, why = REFUSED[name]
    with pytest.raises(UserError, match=why) as refused:
        load(stored(tmp_path, {"model": content}))
    assert len(refused.value.problems) == 1 and "trust=true loads it" in str(refused.value)


def test_a_class_that_only_passes_for_one_of_a_known_package_is_refused(tmp_path: Path) -> None:
    names = (
        "ultralytics.nn.tasks.torch_safe_load",
        "ultralytics.nn.tasks.subprocess",
        "ultralytics.utils.loss.torch.load",
        "ultralytics.nn.modules.conv.Unknown",
        "torchvision.models.list_models",
        "dfssd.segmentation.model.Path",
        "dfssd.distillation.terms.find_term",
        "timm_of_somebody.models.Net",
        "torch.nn.Unknown",
        "dfssd:trust:classes",
    )
    assert {name: entries(name) for name in names if entries(name)} == {}
    assert entries("ultralytics.nn.modules.conv.Conv")[1][0] is Conv


def test_a_real_class_has_no_name_in_a_pickle() -> None:
    """Only its stand-in, which cannot be called, has the name that a pickle can spell: with a dot."""
    (stand_in, name), (real, hidden) = entries("torch.nn.modules.linear.Linear")
    assert real is nn.Linear and "." not in hidden and name == "torch.nn.modules.linear.Linear"
    assert type(stand_in.__new__(stand_in)) is nn.Linear
    with pytest.raises(Refused, match="makes Linear with arguments"):
        stand_in.__new__(stand_in, 3)


def test_former_names_of_classes_are_known(tmp_path: Path) -> None:
    file = stored(tmp_path, {"model": nn.Identity()})
    buffer = io.BytesIO(file.read_bytes())
    assert entries("ultralytics.nn.modules.block.Silence")[1][0] is nn.Identity
    assert entries("ultralytics.nn.tasks.YOLOv10DetectionModel")[1][0] is DetectionModel
    assert isinstance(torch.load(buffer, weights_only=False)["model"], nn.Identity)
