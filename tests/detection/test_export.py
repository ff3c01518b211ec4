from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from dfssd.detection.export import BoxParity, box_parity, export_detector
from dfssd.errors import UserError
from dfssd.evaluation import export
from dfssd.evaluation.export import ExportRequest
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import BoxTolerance
from tests.processes import run_without_dfssd
from tests.tiny_detection import TINY, save_detector, write_images

pytestmark = pytest.mark.train

SIZE = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "plates")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("weights") / "student.pt", seed=1)


@pytest.fixture(scope="module")
def onnx_file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("onnx") / "student.pt"
    copy.write_bytes(weights.read_bytes())
    return export.export(copy, "onnx", task="detect", imgsz=SIZE)


def images_of(data: Path) -> list[Path]:
    return export.split_images(data, "test")


def run(
    weights: Path, data: Path, folder: Path, *, formats: tuple[str, ...] = ("onnx",), split: str = "test", box_px=0.5
) -> dict:
    settings = EvalSettings(data, split, imgsz=SIZE, batch=2, device="cpu")
    request = ExportRequest(weights, folder / "weights" / "student.onnx", formats, settings)
    tolerance = BoxTolerance(box_px=box_px, score=0.01, map50_95=0.005)
    return export_detector(request, tolerance, save_dir=folder / "scratch")


@pytest.fixture
def exported(onnx_file: Path, monkeypatch) -> Path:
    """The ONNX file, which stands in for what Ultralytics' exporter would write."""
    monkeypatch.setattr(
        export, "export", lambda copy, *_, **__: Path(shutil.copyfile(onnx_file, copy.with_name(onnx_file.name)))
    )
    return onnx_file


def test_a_faithful_export_passes_and_leaves_only_the_file(weights, data, tmp_path):
    before = weights.read_bytes()
    section = run(weights, data, tmp_path)
    assert section["passed"] and section["failures"] == [] and section["other"] == []
    assert section["file"] == "weights/student.onnx" and section["input"] == [1, 3, SIZE, SIZE]
    assert section["images"] == 4 and section["size_mb"] > 1
    assert 0 < section["max_box_diff_px"] < 0.01 and section["max_score_diff"] < 1e-4
    assert section["map50_95_torch"] == pytest.approx(section["map50_95_onnx"], abs=1e-4)
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["student.onnx"]
    assert weights.read_bytes() == before and [p.name for p in weights.parent.iterdir()] == ["student.pt"]
    json.dumps(section, allow_nan=False)


def test_weights_beside_the_target_are_not_touched(weights, data, tmp_path):
    inside = tmp_path / "weights" / "student.pt"
    inside.parent.mkdir()
    inside.write_bytes(weights.read_bytes())
    run(inside, data, tmp_path)
    assert sorted(p.name for p in inside.parent.iterdir()) == ["student.onnx", "student.pt"]
    assert inside.read_bytes() == weights.read_bytes()


def test_no_tolerance_fails(weights, data, exported, tmp_path):
    section = run(weights, data, tmp_path, box_px=0)
    assert not section["passed"]
    assert len(section["failures"]) == 1 and section["failures"][0].startswith("box edges [px] differ by")


def test_export_of_other_weights_fails(data, exported, tmp_path, capsys):
    section = run(save_detector(tmp_path / "other.pt", seed=2), data, tmp_path)
    assert not section["passed"]
    assert section["max_score_diff"] > 0.01
    assert any(f.startswith("class scores differ by") for f in section["failures"])
    assert "export: class scores differ" in capsys.readouterr().err
    assert (tmp_path / "weights" / "student.onnx").exists()  # kept for looking into it; the record says failed


def test_one_changed_bias_is_found(weights, data, onnx_file, tmp_path):
    graph = onnx.load(str(onnx_file))
    bias = next(i for i in graph.graph.initializer if i.name.endswith("cv3.0.2.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] += 0.2
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    changed = tmp_path / "changed.onnx"
    onnx.save(graph, str(changed))
    good, bad = (box_parity(weights, file, images_of(data)) for file in (onnx_file, changed))
    assert good.max_score_diff < 1e-4 < 0.01 < bad.max_score_diff
    assert bad.max_box_diff_px == good.max_box_diff_px  # the change is in the scores alone


def test_nan_output_is_not_within_tolerance(weights, data, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("dfssd.detection.export.box_parity", lambda *_: BoxParity(1, float("nan"), 0.0, (SIZE, SIZE)))
    section = run(weights, data, tmp_path)
    assert not section["passed"] and section["max_box_diff_px"] is None
    json.dumps(section, allow_nan=False)


def test_nan_of_one_image_survives_the_maximum(weights, data, onnx_file, monkeypatch):
    """The first image is poisoned, the others are sound."""
    honest = export.letterbox
    first = images_of(data)[0]
    monkeypatch.setattr(export, "letterbox", lambda path, size: honest(path, size) * (np.nan if path == first else 1))
    assert np.isnan(box_parity(weights, onnx_file, images_of(data)).max_score_diff)


def test_other_number_of_anchors_is_not_compared_elementwise(weights, data, tmp_path):
    """A file that was exported for other classes has another output shape."""
    from ultralytics import YOLO

    YOLO(TINY).save(tmp_path / "coco.pt")
    found = box_parity(weights, export.export(tmp_path / "coco.pt", "onnx", task="detect", imgsz=SIZE), images_of(data))
    assert found.max_box_diff_px == found.max_score_diff == float("inf")


def test_many_images_are_sampled_evenly(weights, data, onnx_file, monkeypatch):
    monkeypatch.setattr(export, "PARITY_IMAGES", 2)
    assert box_parity(weights, onnx_file, images_of(data)).images == 2


def test_unreadable_images_are_left_out(weights, data, onnx_file, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert box_parity(weights, onnx_file, [broken, *images_of(data)]).images == 4
    with pytest.raises(UserError, match=r"none of the 1 images .*broken\.png"):
        box_parity(weights, onnx_file, [broken])


def test_torchscript_comes_along(weights, data, tmp_path):
    section = run(weights, data, tmp_path, formats=("onnx", "torchscript"))
    assert section["other"] == [{"format": "torchscript", "file": "weights/student.torchscript", "error": None}]
    assert section["passed"]
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["student.onnx", "student.torchscript"]


def test_a_format_that_cannot_be_written_costs_only_itself(weights, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    section = run(weights, data, tmp_path, formats=("openvino", "torchscript"))
    failed, written = section["other"]
    assert failed["file"] is None and failed["error"].startswith("Ultralytics cannot write format=openvino: ")
    assert "\n" not in failed["error"]
    assert written["file"] == "weights/student.torchscript"
    assert not section["passed"] and section["failures"] == [f"format=openvino: {failed['error']}"]
    assert (tmp_path / "weights" / "student.onnx").exists()


def test_unknown_format_is_refused_before_anything_is_written(weights, data, tmp_path):
    with pytest.raises(UserError, match=r"format=openvno.*did you mean 'openvino'"):
        run(weights, data, tmp_path, formats=("openvno",))
    assert not (tmp_path / "weights").exists()


def test_split_without_list_is_named(weights, data, tmp_path):
    with pytest.raises(UserError, match="'holdout' has no images"):
        run(weights, data, tmp_path, split="holdout")
    missing = tmp_path / "data.yaml"
    missing.write_text("test: nowhere.txt\n")
    with pytest.raises(UserError, match=r"cannot read the image list 'nowhere\.txt'"):
        run(weights, missing, tmp_path)


def test_exported_file_runs_in_plain_ultralytics(onnx_file, data, tmp_path):
    code = (
        "from ultralytics import YOLO\n"
        f"network = YOLO({str(onnx_file)!r}, task='detect')\n"
        f"found = network.predict({str(images_of(data)[0])!r}, imgsz=64, conf=0.001, verbose=False)\n"
        "print('images', len(found), 'boxes', len(found[0].boxes))\n"
    )
    done = run_without_dfssd(code, tmp_path)
    assert done.returncode == 0, done.output[-2000:]
    images, boxes = done.output.split()[-3::2]
    assert images == "1" and int(boxes) > 0
