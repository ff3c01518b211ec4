from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from ultralytics import YOLO

from dfssd.deployment.facts import facts
from dfssd.detection.export import BoxComparison, BoxParity, box_parity
from dfssd.errors import UserError
from dfssd.evaluation import export, exported, exporter
from dfssd.evaluation.export import ExportRequest
from dfssd.evaluation.export_options import FP16, INT8, ExportOptions
from dfssd.evaluation.exported import ExportedNetwork
from dfssd.evaluation.settings import EvalSettings
from dfssd.remedies import explain_storage
from dfssd.results.sections import BoxExport, BoxTolerance
from tests.disks import fill
from tests.processes import run_without_dfssd
from tests.tiny_detection import NAMES, TINY, save_detector, write_images

pytestmark = pytest.mark.train

SIZE = 64
ABOUT = facts(run="run", ultralytics="8", names=NAMES)


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
    return exporter.export(copy, "onnx", task="detect", imgsz=SIZE)


def images_of(data: Path) -> list[Path]:
    return export.split_images(data, "test")


def parity(weights: Path, file: Path, data: Path) -> BoxParity:
    return box_parity(weights, ExportedNetwork(file, SIZE), images_of(data))


def run(
    weights: Path, data: Path, folder: Path, *, formats: tuple[str, ...] = ("onnx",), split: str = "test", box_px=0.5
) -> dict:
    settings = EvalSettings(data, split, imgsz=SIZE, batch=2, device="cpu")
    out = folder / "weights" / "student.onnx"
    request = ExportRequest(weights, out, formats, settings, deploy=folder / "deploy", about=ABOUT)
    tolerance = BoxTolerance(box_px=box_px, score=0.01, map50_95=0.005)
    comparison = BoxComparison(weights, tolerance, folder / "scratch")
    return export.export_and_compare(request, task="detect", comparison=comparison)


@pytest.fixture
def given(onnx_file: Path, monkeypatch) -> Path:
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


def test_no_tolerance_fails(weights, data, given, tmp_path):
    section = run(weights, data, tmp_path, box_px=0)
    assert not section["passed"]
    assert len(section["failures"]) == 1 and section["failures"][0].startswith("box edges [px] differ by")


def test_export_of_other_weights_fails(data, given, tmp_path, capsys):
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
    good, bad = (parity(weights, file, data) for file in (onnx_file, changed))
    assert good.max_score_diff < 1e-4 < 0.01 < bad.max_score_diff
    assert bad.max_box_diff_px == good.max_box_diff_px  # the change is in the scores alone


def test_nan_output_is_not_within_tolerance(weights, data, given, tmp_path, monkeypatch):
    monkeypatch.setattr("dfssd.detection.export.box_parity", lambda *_: BoxParity(1, float("nan"), 0.0))
    section = run(weights, data, tmp_path)
    assert not section["passed"] and section["max_box_diff_px"] is None
    json.dumps(section, allow_nan=False)


def test_nan_of_one_image_survives_the_maximum(weights, data, onnx_file, monkeypatch):
    """The first image is poisoned, the others are sound."""
    honest = exported.letterbox
    first = images_of(data)[0]
    monkeypatch.setattr(exported, "letterbox", lambda path, size: honest(path, size) * (np.nan if path == first else 1))
    assert np.isnan(parity(weights, onnx_file, data).max_score_diff)


def test_other_number_of_anchors_is_not_compared_elementwise(weights, data, tmp_path):
    """A file that was exported for other classes has another output shape."""
    from ultralytics import YOLO

    YOLO(TINY).save(tmp_path / "coco.pt")
    found = parity(weights, exporter.export(tmp_path / "coco.pt", "onnx", task="detect", imgsz=SIZE), data)
    assert found.max_box_diff_px == found.max_score_diff == float("inf")


def test_recall_by_size_is_that_of_the_thresholds(weights, data, onnx_file, tmp_path):
    """Exact counts: every true box of the 64 px images is there; what no detection can reach is not found."""
    comparison = BoxComparison(weights, BoxTolerance(box_px=0.5, score=0.01, map50_95=0.005), tmp_path / "kept")
    settings = EvalSettings(data, "test", imgsz=SIZE, batch=1, device="cpu", rect=False)
    assert comparison.sizes("onnx", [0.0, 0.0], SIZE) == (), "nothing is measured yet"
    for name, file in (("torch", weights), ("onnx", onnx_file)):
        comparison.score(name, file, settings)
    low, high = (comparison.sizes("onnx", [score] * len(NAMES), SIZE) for score in (0.0, 1.1))
    assert comparison.sizes("torch", [0.0] * len(NAMES), SIZE) == low
    labels = [images.parents[1] / "labels" / f"{images.stem}.txt" for images in images_of(data)]
    boxes = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in labels)
    assert sum(row.defects for row in low) == sum(row.defects for row in high) == boxes > 0
    assert sum(row.found for row in high) == 0
    comparison.forget()
    assert comparison.sizes("torch", [0.0, 0.0], SIZE) == () and not (tmp_path / "kept").exists()


def test_many_images_are_sampled_evenly(weights, data, onnx_file, monkeypatch):
    monkeypatch.setattr(exported, "PARITY_IMAGES", 2)
    assert parity(weights, onnx_file, data).images == 2


def test_unreadable_images_are_left_out(weights, data, onnx_file, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    network = ExportedNetwork(onnx_file, SIZE)
    assert box_parity(weights, network, [broken, *images_of(data)]).images == 4
    with pytest.raises(UserError, match=r"none of 1 image .*broken\.png"):
        box_parity(weights, network, [broken])


def test_torchscript_comes_along(weights, data, tmp_path):
    section = run(weights, data, tmp_path, formats=("onnx", "torchscript"))
    [other] = section["other"]
    assert other["file"] == "deploy/student.torchscript" and other["precision"] == "fp32" and other["passed"]
    assert 0 < other["max_box_diff_px"] < 0.01 and other["max_score_diff"] < 1e-4
    assert other["score"] == pytest.approx(section["map50_95_torch"], abs=1e-4)
    assert 0 < other["median_ms"] <= other["p95_ms"] and section["onnx_ms"]["median_ms"] > 0
    assert [p.name for p in (tmp_path / "deploy").iterdir()] == ["student.torchscript"]


def test_a_format_that_cannot_be_written_costs_only_itself(weights, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    section = run(weights, data, tmp_path, formats=("openvino", "torchscript"))
    failed, written = section["other"]
    assert failed["file"] is None and failed["error"].startswith("Ultralytics cannot write format=openvino: ")
    assert "\n" not in failed["error"]
    assert written["file"] == "deploy/student.torchscript" and written["passed"]
    assert section["passed"] and section["failures"] == [] and not failed["passed"]
    assert not BoxExport.model_validate(section).complete
    assert (tmp_path / "weights" / "student.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_disk_that_fills_up_is_no_matter_of_the_format(weights, small_disk, monkeypatch, name: str) -> None:
    """Whatever the package says that has met it: that of OpenVINO speaks of a stream."""
    copy, honest = Path(shutil.copyfile(weights, small_disk / "student.pt")), YOLO.export

    def meanwhile(model: YOLO, **options: object) -> str:
        fill(small_disk, left=100_000)
        return honest(model, **options)

    monkeypatch.setattr(YOLO, "export", meanwhile)
    with pytest.raises(UserError, match=f"^the disk of {small_disk} is full"), explain_storage(small_disk):
        exporter.export(copy, name, task="detect", imgsz=SIZE)


def test_a_full_disk_ends_the_export_before_a_further_format(weights, data, small_disk, monkeypatch) -> None:
    """That of TorchScript would end the process."""
    honest = exporter.export

    def then_full(copy: Path, name: str, **options: object) -> Path:
        if name != "onnx":
            fill(small_disk, left=2 * copy.stat().st_size)
        return honest(copy, name, **options)

    monkeypatch.setattr(export, "export", then_full)
    with pytest.raises(UserError, match=f"^the disk of {small_disk} is full"), explain_storage(small_disk):
        run(weights, data, small_disk, formats=("onnx", "torchscript"))
    assert [path.name for path in (small_disk / "weights").iterdir()] == ["student.onnx"]


def test_a_format_that_cannot_compute_is_neither_timed_nor_kept(weights, data, tmp_path, monkeypatch):
    def broken(self: object, pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such device\nand more")

    def opened(file: Path, *args: object, **more: object) -> ExportedNetwork:
        found = ExportedNetwork(file, *args, **more)
        if file.suffix == ".torchscript":
            found._run = broken.__get__(found)
        return found

    monkeypatch.setattr(export, "ExportedNetwork", opened)
    section = run(weights, data, tmp_path, formats=("onnx", "torchscript"))
    [failed] = section["other"]
    assert failed["error"] == "no such device and more" and failed["file"] is None and not failed["passed"]
    assert "median_ms" not in failed and section["onnx_ms"]["median_ms"] > 0 and section["passed"]
    assert not (tmp_path / "deploy").exists() or not list((tmp_path / "deploy").iterdir())


def test_file_outside_its_tolerance_does_not_replace_an_earlier_one(weights, data, tmp_path, capsys):
    earlier = tmp_path / "deploy" / "student.torchscript"
    earlier.parent.mkdir()
    earlier.write_bytes(b"checked before")
    [failed] = run(weights, data, tmp_path, formats=("onnx", "torchscript"), box_px=-1.0)["other"]
    assert failed["failures"] and failed["file"] is None and earlier.read_bytes() == b"checked before"


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


def more(
    weights: Path, data: Path, folder: Path, *formats: str, calibration: tuple[Path, ...] = (), **options
) -> list[dict]:
    """What ``dfssd export`` does with these options."""
    settings = EvalSettings(data, "test", imgsz=SIZE, batch=2, device="cpu")
    request = ExportRequest(
        weights,
        folder / "weights" / "student.onnx",
        formats,
        settings,
        deploy=folder / "deploy",
        about=ABOUT,
        options=ExportOptions(**options),
        calibration=calibration,
    )
    tolerance = BoxTolerance(box_px=0.5, score=0.01, map50_95=0.005)
    comparison = BoxComparison(weights, tolerance, folder / "scratch")
    return export.export_formats(request, task="detect", comparison=comparison)


@pytest.mark.parametrize(
    ("options", "name", "shape"),
    [
        ({"dynamic": True, "opset": 17}, "student_opset17_dynamic.onnx", ["batch", 3, "height", "width"]),
        ({"nms": True, "batch": 2}, "student_nms_batch2.onnx", [2, 3, SIZE, SIZE]),
        ({"precision": FP16}, "student_fp16.onnx", [1, 3, SIZE, SIZE]),
    ],
    ids=["dynamic", "nms", "fp16"],
)
def test_options_act_and_the_file_is_compared(weights, data, tmp_path, options: dict, name: str, shape: list) -> None:
    _, entry = more(weights, data, tmp_path, "onnx", **options)
    assert entry["file"] == f"deploy/{name}" and entry["error"] is None and entry["passed"]
    network = onnx.load(str(tmp_path / "deploy" / name))
    sides = network.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == shape
    if "opset" in options:
        assert network.opset_import[0].version == 17
    assert ExportedNetwork(tmp_path / "deploy" / name, SIZE).sizes == (
        ((SIZE, SIZE), (SIZE, 32)) if options.get("dynamic") else ((SIZE, SIZE),)
    )
    assert entry["max_score_diff"] < (0.2 if "precision" in options else 1e-4)


def test_finished_boxes_that_are_others_are_found(weights, data, tmp_path) -> None:
    """The file of one network against the weights of another."""
    _, entry = more(weights, data, tmp_path, "onnx", nms=True)
    other = save_detector(tmp_path / "other.pt", seed=2)
    good, bad = (parity(file, tmp_path / entry["file"], data) for file in (weights, other))
    assert good.max_score_diff < 1e-4 < 0.01 < bad.max_score_diff


def test_int8_of_openvino_is_calibrated_on_the_given_images(weights, data, tmp_path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    _, plain = more(weights, data, tmp_path, "openvino")
    assert plain["passed"] and plain["max_box_diff_px"] < 0.01 and plain["max_score_diff"] < 1e-3
    calibration = tuple(images_of(data)[:2])
    _, small = more(weights, data, tmp_path, "openvino", precision=INT8, calibration=calibration)
    assert small["precision"] == "int8" and small["size_mb"] < 0.5 * plain["size_mb"] and small["failures"] == []
    assert small["max_score_diff"] > plain["max_score_diff"]
    folders = sorted(path.name for path in (tmp_path / "deploy").iterdir())
    assert folders == ["student_int8_openvino_model", "student_openvino_model"]
    for file in (tmp_path / "deploy").rglob("metadata.yaml"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8") and "run: run" in file.read_text(encoding="utf-8")
