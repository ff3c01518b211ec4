"""A detector as safetensors and YAML: the same network, without a pickle, wherever a checkpoint is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dfssd.cli import main
from dfssd.deployment.facts import facts, sign_checkpoint
from dfssd.deployment.tensors import read_tensors, write_tensors
from dfssd.distillation import compatibility
from dfssd.errors import UserError
from dfssd.trust.checkpoints import load_checkpoint
from tests.tiny_detection import NAMES, save_detector, write_images
from tests.trust.payloads import code


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """``student.safetensors`` with its YAML, and the ``student.pt`` that it is made of."""
    about = facts(run="run", ultralytics="8", names=NAMES, thresholds=dict.fromkeys(NAMES, 0.3))
    sign_checkpoint(save_detector(tmp_path / "trained.pt"), tmp_path / "student.pt", about)
    write_tensors(tmp_path / "student.pt", tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


def test_the_network_is_the_same(written: Path) -> None:
    before, content = load_checkpoint(written.with_suffix(".pt"))
    network, about = read_tensors(written)
    assert network.names == before.names == dict(enumerate(NAMES)) and about == content["dfssd"]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image)[0], before.eval()(image)[0])
    assert str(written.parent).encode() not in written.read_bytes() + written.with_suffix(".yaml").read_bytes()


def test_a_run_takes_it_as_teacher_and_student(written: Path) -> None:
    for role in ("teacher", "student", compatibility.LABELERS):
        file = compatibility.resolve_weights(str(written), role)
        found = compatibility.describe(file, role)
        assert found.names == NAMES and found.trained


def test_predictions_are_those_of_the_checkpoint(written: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "set", count=2, size=(64, 64))
    found = []
    for suffix in (".pt", ".safetensors"):
        out = tmp_path / f"out{suffix}"
        model = written.with_suffix(suffix)
        assert main(["predict", str(tmp_path / "set" / "images"), f"model={model}", f"out={out}", "save=false"]) == 0
        tree = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
        found.append([(entry["image"], entry["boxes"]) for entry in tree["images"]])
    assert found[0] == found[1] and any(boxes for _, boxes in found[0])


def test_files_that_do_not_belong_together(written: Path, tmp_path: Path) -> None:
    marker, description = tmp_path / "a program was run", written.with_suffix(".yaml")
    tree = yaml.safe_load(description.read_text(encoding="utf-8"))
    for change, why in (
        ({"names": {0: "one"}}, "does not hold the weights of student.yaml"),
        ({"names": ["a"]}, "must name each class"),
        ({"activation": code(marker)}, "is no activation"),
        ({"head": [[-1, 1, "Detect", ["x"]]]}, "describes no detector"),
    ):
        description.write_text(yaml.safe_dump({**tree, **change}), encoding="utf-8")
        with pytest.raises(UserError, match=why):
            read_tensors(written)
    assert not marker.exists()
    description.write_text(yaml.safe_dump(tree), encoding="utf-8")
    read_tensors(written)
    tensors = load_file(written)
    save_file({name: values for name, values in tensors.items() if name != "model.0.conv.weight"}, written)
    with pytest.raises(UserError, match="does not hold the weights"):
        read_tensors(written)
    written.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="does not hold the weights"):
        compatibility.resolve_weights(str(written), "student")
    description.unlink()
    with pytest.raises(UserError, match="belong together"):
        read_tensors(written)
