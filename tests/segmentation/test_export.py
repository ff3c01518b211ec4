"""Exports of segmentation models: faithful ones pass, others do not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from dfssd.deployment.facts import facts
from dfssd.errors import UserError
from dfssd.evaluation import export, exported, exporter
from dfssd.evaluation.export import ExportRequest, split_images
from dfssd.evaluation.exported import ExportedNetwork
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import MaskTolerance
from dfssd.segmentation.evaluate import evaluate_masks
from dfssd.segmentation.export import MaskComparison, MaskParity, mask_parity
from dfssd.segmentation.model import build_model, load_semantic
from tests.segmentation.material import NEU_NAMES, defects, mask_data
from tests.segmentation.test_model import checkpoint, lively

pytestmark = pytest.mark.train

SIZE = 40
"""5 at 1/8, where MFF-Metal takes halves of an odd side."""
STEPS = 30
ABOUT = facts(run="run", ultralytics="8", names=tuple(NEU_NAMES))


def save_mffmetal(path: Path, seed: int) -> Path:
    """MFF-Metal that has learned a little of what there is in :func:`tests.segmentation.material.defects`."""
    torch.manual_seed(seed)
    model = build_model("mffmetal-6", 4, NEU_NAMES)
    images, masks = map(np.stack, zip(*(defects(1000 + i, SIZE) for i in range(8)), strict=True))
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), torch.from_numpy(masks).long()).backward()
        optimizer.step()
    return checkpoint(path, model.eval())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mask_data(tmp_path_factory.mktemp("data"), side=SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mffmetal(tmp_path_factory.mktemp("weights") / "student.pt", seed=1)


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mffmetal(tmp_path_factory.mktemp("other") / "other.pt", seed=2)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of Ultralytics' own, whose logits are at 1/8 and whose ONNX file gives class ids."""
    torch.manual_seed(0)
    model = lively(build_model("yolo26n-sem.yaml", 4, NEU_NAMES))
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 64, 64))
        model.model[-1].classifier[-1].weight *= 3 / logits.std((2, 3)).mean()
        model.model[-1].classifier[-1].bias -= model(torch.rand(1, 3, 64, 64)).mean((0, 2, 3))
    return checkpoint(tmp_path_factory.mktemp("yolo") / "yolo.pt", model)


def onnx_of(weights: Path, folder: Path, imgsz: int = SIZE) -> Path:
    copy = folder / weights.name
    copy.write_bytes(weights.read_bytes())
    return exporter.export(copy, "onnx", task="semantic", imgsz=imgsz)


@pytest.fixture(scope="module")
def onnx_file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_of(weights, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def yolo_onnx(yolo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_of(yolo, tmp_path_factory.mktemp("yolo_onnx"), imgsz=64)


def settings_of(data: Path, imgsz: int = SIZE, split: str = "test", **changes) -> EvalSettings:
    return EvalSettings(data, split, imgsz, batch=2, device="cpu", **changes)


def run(
    weights: Path,
    data: Path,
    folder: Path,
    *,
    formats: tuple[str, ...] = ("onnx",),
    score: float = 0.01,
    miou: float = 0.005,
    **settings,
) -> dict:
    out, own = folder / "weights" / "student.onnx", settings_of(data, **settings)
    request = ExportRequest(weights, out, formats, own, deploy=folder / "deploy", about=ABOUT)
    comparison = MaskComparison(weights, MaskTolerance(score=score, miou=miou))
    return export.export_and_compare(request, task="semantic", comparison=comparison)


def exporter_that_gives(file: Path):
    """Stands in for Ultralytics' exporter."""
    return lambda copy, *_, **__: Path(shutil.copyfile(file, copy.with_name(file.name)))


def changed_onnx(source: Path, target: Path, factor: float) -> Path:
    """A copy whose last weights of the largest decoder unit are multiplied."""
    graph = onnx.load(str(source))
    weight = [i for i in graph.graph.initializer if "classify" in i.name and i.dims[0] == 4][-1]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    onnx.save(graph, str(target))
    return target


def test_a_faithful_export_passes_and_leaves_only_the_file(weights, data, tmp_path):
    before = weights.read_bytes()
    section = run(weights, data, tmp_path)
    assert section["passed"] and section["failures"] == [] and section["other"] == []
    assert section["file"] == "weights/student.onnx" and section["input"] == [1, 3, SIZE, SIZE]
    assert section["images"] == 2 and section["size_mb"] > 0.1
    assert 0 < section["max_logit_diff"] < 1e-3 and 0 < section["max_score_diff"] < 1e-4
    assert section["differing_pixels"] < 1e-3
    assert section["miou_fg_torch"] == pytest.approx(section["miou_fg_onnx"], abs=1e-3) and section["miou_fg_torch"] > 0
    assert section["tolerance"] == {"score": 0.01, "miou": 0.005}
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["student.onnx"]
    assert weights.read_bytes() == before and [p.name for p in weights.parent.iterdir()] == ["student.pt"]
    json.dumps(section, allow_nan=False)


@pytest.mark.parametrize(("imgsz", "expected"), [(33, 40), (200, 200)])
def test_size_is_rounded_up_to_the_stride_and_no_further(weights, data, tmp_path, imgsz, expected):
    """8 for MFF-Metal: 200 px stay 200, which 32 does not divide."""
    section = run(weights, data, tmp_path, imgsz=imgsz)
    assert section["input"] == [1, 3, expected, expected] and section["passed"]


def test_logits_are_those_of_torch_with_onnxruntime_alone(weights, onnx_file, tmp_path):
    """In a process that has neither our code nor PyTorch nor Ultralytics."""
    image = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys\n"
        "for name in ('dfssd', 'torch', 'ultralytics'): sys.modules[name] = None\n"
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "image = numpy.load(sys.argv[2])\n"
        "numpy.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: image})[0])\n"
    )
    words = [onnx_file, tmp_path / "image.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=tmp_path, check=True)
    expected = load_semantic(weights)(torch.from_numpy(image)).detach().numpy()
    found = np.load(tmp_path / "logits.npy")
    assert expected.std() > 0.5 and found.shape == (1, 4, SIZE, SIZE)
    assert np.abs(found - expected).max() < 1e-3


def test_export_of_other_weights_fails(other_weights, data, onnx_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "export", exporter_that_gives(onnx_file))
    section = run(other_weights, data, tmp_path)
    assert not section["passed"]
    assert section["max_score_diff"] > 0.01 and 0 < section["differing_pixels"] <= 1
    assert any(f.startswith("class probabilities differ by") for f in section["failures"])
    assert "export: class probabilities differ by" in capsys.readouterr().err
    assert (tmp_path / "weights" / "student.onnx").exists()  # kept for looking into it; the record says failed


def test_changed_weights_are_found(weights, data, onnx_file, tmp_path):
    changed = changed_onnx(onnx_file, tmp_path / "changed.onnx", 1.1)
    good, bad = (
        mask_parity(weights, ExportedNetwork(file, SIZE), split_images(data, "test")) for file in (onnx_file, changed)
    )
    assert good.max_score_diff < 1e-4 < 0.01 < bad.max_score_diff and bad.max_logit_diff > bad.max_score_diff


def test_no_tolerance_fails(weights, data, onnx_file, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "export", exporter_that_gives(onnx_file))
    section = run(weights, data, tmp_path, score=0)
    assert not section["passed"]
    assert len(section["failures"]) == 1 and section["failures"][0].startswith("class probabilities differ by")


def test_nan_is_not_within_tolerance(weights, data, onnx_file, tmp_path, monkeypatch):
    poisoned = changed_onnx(onnx_file, tmp_path / "poisoned.onnx", float("nan"))
    monkeypatch.setattr(export, "export", exporter_that_gives(poisoned))
    section = run(weights, data, tmp_path)
    assert not section["passed"] and section["max_logit_diff"] is None and section["max_score_diff"] is None
    assert "class probabilities differ by nan, allowed is 0.01" in section["failures"]
    json.dumps(section, allow_nan=False)


def test_nan_of_one_image_survives_the_maximum(weights, data, onnx_file, monkeypatch):
    """The first image is poisoned, the other is sound."""
    honest = exported.letterbox
    images = split_images(data, "test")
    monkeypatch.setattr(
        exported, "letterbox", lambda path, size: honest(path, size) * (np.nan if path == images[0] else 1)
    )
    assert np.isnan(mask_parity(weights, ExportedNetwork(onnx_file, SIZE), images).max_score_diff)


def test_other_number_of_classes_is_not_compared_elementwise(onnx_file, data, tmp_path):
    three = checkpoint(tmp_path / "three.pt", lively(build_model("mffmetal-6", 3, NEU_NAMES[:3])))
    found = mask_parity(three, ExportedNetwork(onnx_file, SIZE), split_images(data, "test"))
    assert found == MaskParity(1, float("inf"), float("inf"), 1.0)


def test_score_that_only_one_file_has_fails(weights, data, onnx_file, tmp_path, monkeypatch):
    """A defect seen by one of them where there is none: the other has no IoU at all."""

    def scored(file: Path, *_, **__) -> dict:
        return {"miou_fg": None if file == weights else 0.0}

    monkeypatch.setattr(export, "export", exporter_that_gives(onnx_file))
    monkeypatch.setattr("dfssd.segmentation.export.evaluate_masks", scored)
    assert run(weights, data, tmp_path)["failures"] == ["the two miou_fg differ by inf, allowed is 0.005"]
    monkeypatch.setattr("dfssd.segmentation.export.evaluate_masks", lambda *_, **__: {"miou_fg": None})
    assert run(weights, data, tmp_path)["passed"]


def test_class_ids_are_compared_by_their_share(yolo, tmp_path):
    section = run(yolo, mask_data(tmp_path / "data"), tmp_path, imgsz=64)
    assert section["max_logit_diff"] is None and section["max_score_diff"] is None
    assert section["answers"] == "ids" and section["differing_pixels"] < 0.01 and section["passed"]
    assert section["miou_fg_torch"] == pytest.approx(section["miou_fg_onnx"], abs=0.005)


def test_other_class_ids_fail(yolo, yolo_onnx, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    data = mask_data(folder)
    model = load_semantic(yolo)
    with torch.no_grad():
        model.model[-1].classifier[-1].bias[:2] += torch.tensor([0.5, -0.5])
    changed = checkpoint(tmp_path / "changed.pt", model)
    monkeypatch.setattr(export, "export", exporter_that_gives(yolo_onnx))
    section = run(changed, data, tmp_path, imgsz=64, miou=1)
    share = section["differing_pixels"]
    assert 0.01 < share < 1 and not section["passed"]
    assert section["failures"] == [f"the share of pixels whose class differs is {share:.4g}, allowed is 0.01"]


@pytest.mark.parametrize("side", [SIZE, SIZE // 2])
def test_share_of_pixels_counted_by_hand(weights, onnx_file, data, monkeypatch, side):
    """A file that predicts background everywhere; at another size than it declares, all of it is wrong."""
    background = np.zeros((1, side, side), np.uint8)
    monkeypatch.setattr(ExportedNetwork, "__call__", lambda self, pixels: background)
    images = split_images(data, "test")
    found = mask_parity(weights, ExportedNetwork(onnx_file, SIZE), images)
    inputs = torch.cat([torch.from_numpy(exported.letterbox(path, (SIZE, SIZE))) for path in images])
    defective = (load_semantic(weights)(inputs).argmax(1) > 0).float().mean().item()
    assert 0.01 < defective < 0.99  # it depends on the machine, which trained the network
    assert found.differing_pixels == (pytest.approx(defective) if side == SIZE else 1)
    assert found.max_score_diff == (None if side == SIZE else float("inf"))


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images half as high as wide."""
    file = mask_data(tmp_path_factory.mktemp("strips"))
    for folder in ("images", "masks"):
        for path in (file.parent / folder / "val").iterdir():
            Image.open(path).crop((0, 16, 64, 48)).save(path)
    return file


def test_both_files_are_measured_on_squares(weights, strips, tmp_path, monkeypatch):
    """In a rectangle of its own an image that is not square looks different to the network."""
    calls = []

    def recorded(file: Path, *args, **options) -> dict:
        calls.append((file.suffix, evaluate_masks(file, *args, **options)))
        return calls[-1][1]

    monkeypatch.setattr("dfssd.segmentation.export.evaluate_masks", recorded)
    section = run(weights, strips, tmp_path, imgsz=64)
    [(first, torch_side), (second, onnx_side)] = calls
    assert (first, second) == (".pt", ".onnx")
    assert torch_side["per_class"]["background"]["iou"] == pytest.approx(
        onnx_side["per_class"]["background"]["iou"], abs=1e-3
    )
    rectangles = evaluate_masks(weights, settings_of(strips, 64))
    assert abs(rectangles["pixel_accuracy"] - torch_side["pixel_accuracy"]) > 1e-3
    assert section["passed"]


def test_padding_is_cut_off_logits_at_an_eighth(yolo, yolo_onnx, strips):
    """The letterbox is known in pixels of the input, not of what the network returns."""
    plain = evaluate_masks(yolo, settings_of(strips, 64, rect=False))
    exported = evaluate_masks(yolo_onnx, settings_of(strips, 64))
    assert plain["pixel_accuracy"] == pytest.approx(exported["pixel_accuracy"], abs=0.005)
    assert sum(row["pixels"] for row in plain["per_class"].values()) == 2 * 32 * 64


def test_torchscript_comes_along(weights, data, tmp_path):
    section = run(weights, data, tmp_path, formats=("onnx", "torchscript"))
    [other] = section["other"]
    assert other["file"] == "deploy/student.torchscript" and other["passed"] and section["passed"]
    assert other["max_score_diff"] < 1e-4 and other["differing_pixels"] < 1e-3
    assert other["score"] == pytest.approx(section["miou_fg_torch"], abs=1e-3)
    assert [p.name for p in (tmp_path / "deploy").iterdir()] == ["student.torchscript"]


def test_a_format_that_cannot_be_written_costs_only_itself(weights, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    section = run(weights, data, tmp_path, formats=("openvino",))
    [failed] = section["other"]
    assert failed["file"] is None and failed["error"].startswith("Ultralytics cannot write format=openvino: ")
    assert section["passed"] and section["failures"] == [] and not failed["passed"]
    assert (tmp_path / "weights" / "student.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ("openvno",)}, r"format=openvno.*did you mean 'openvino'"),
        ({"split": "holdout"}, "'holdout' has no images"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_anything_is_written(weights, data, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as e:
        run(weights, data, tmp_path, **changes)
    assert "\n" not in str(e.value) and not (tmp_path / "weights").exists()


def test_weights_must_be_there(data, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pt does not exist"):
        run(tmp_path / "nothing.pt", data, tmp_path)
    assert not (tmp_path / "weights").exists()
