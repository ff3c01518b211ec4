"""The whole recipe for masks on tiny data: every file, leaks, unlabeled images, kills, other networks, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

from dfssd.cli import main
from dfssd.config import parse_arguments, without_idle
from dfssd.datasets.copies.twins import Leak, name_leak
from dfssd.runs.key_names import names_only
from tests.key_reads import dead_keys, recorded_reads
from tests.processes import kill_when
from tests.segmentation.material import NEU_NAMES, defects, write_mask

ARGUMENTS = [
    "recipe=mffmetal",
    "teacher=mffmetal-12",
    "student=mffmetal-6",
    "teacher_epochs=1",
    "epochs=2",
    "imgsz=32",
    "batch=4",
    "nbs=4",
    "device=cpu",
    "workers=0",
    "plots=false",
    "selftest_steps=1",
    "parity.map=1",  # a network of a few steps tosses coins
]


def picture(seed: int, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """An image with grain of its own, by which copies are known, and its mask."""
    image, mask = defects(seed, side)
    grain = np.random.default_rng(1000 + seed).integers(0, 60, (side, side, 1))
    return (image * 0.7 + grain).clip(0, 255).astype(np.uint8), mask


def write(root: Path, part: str, stem: str, image: np.ndarray, mask: np.ndarray | None) -> None:
    file = root / "images" / part / f"{stem}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    if mask is not None:
        write_mask(root / "annotations" / part / f"{stem}.png", mask)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """16 images for training, 6 for testing, of which two are turned training images; names repeat in the two parts."""
    root = tmp_path / "NEU-Seg"
    for i in range(16):
        write(root, "training", f"{i:03d}", *picture(i))
    for i in range(4):
        write(root, "test", f"{i:03d}", *picture(100 + i))
    for i in (0, 3):
        image, mask = picture(i)
        write(root, "test", f"turned{i}", np.rot90(image).copy(), np.rot90(mask).copy())
    return root


def arguments(data: Path | str, tmp_path: Path, *more: str) -> list[str]:
    replaced = {word.partition("=")[0] for word in more}
    kept = [word for word in ARGUMENTS if word.partition("=")[0] not in replaced]
    words = [f"data={data}", f"project={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}", *kept, *more]
    acting = without_idle(parse_arguments(words), names_only(), keep=parse_arguments(list(more)))
    return [word for word in words if word.partition("=")[0] in acting]


def results_of(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "runs" / name / "results.json").read_text(encoding="utf-8"))


@pytest.mark.train
def test_every_file_and_section_is_there(masks: Path, tmp_path: Path, capsys) -> None:
    words = arguments(masks, tmp_path, "name=all", "split=official", "compare=[yolo26n-sem.yaml]")
    with recorded_reads() as reads:
        assert main(words) == 0
    assert dead_keys(words, reads) == []
    out = capsys.readouterr().out
    assert "2 of 6 test images have a copy in training" in out and "test/turned0.png = training/000.png" in out
    run, results = tmp_path / "runs" / "all", results_of(tmp_path, "all")
    for name in (
        "run.yaml",
        "report.md",
        "report.html",
        "segmentation.csv",
        "splits/data.yaml",
        "splits/test_leaks.txt",
        "plots/masks.png",
        *(f"weights/{role}.pt" for role in ("teacher", "baseline", "student", "compare1")),
        "weights/student.onnx",
    ):
        assert (run / name).is_file(), name
    assert [s["name"] for s in results["stages"]] == [
        "prepare", "teacher", "self-train", "baseline", "student", "test", "export", "report"
    ]  # fmt: skip
    assert {s["status"] for s in results["stages"] if s["name"] != "self-train"} == {"done"}
    data, training = results["data"], results["training"]
    assert data["classes"] == list(NEU_NAMES) and data["split"] == "official" and data["test"] == 6
    assert data["leaks"]["test"] == 2 and len(data["leaks"]["named"]) == 2 and data["duplicates"] == 2
    assert training["student"]["batches"] == training["baseline"]["batches"] == training["compare1"]["batches"] > 0
    assert training["student"]["losses"]["kd"]["weight"] == 15 and "kd" not in training["baseline"]["losses"]
    assert training["student"]["imgsz"] == 32 and training["student"]["selftest"]["teacher_unchanged"]
    for role in ("teacher", "baseline", "student", "compare1"):
        assert 0 <= results["test"][role]["miou_fg"] <= 1 and results["test"][role]["images"] == 6
        assert results["latency"][role]["median_ms"] > 0
        for shown in results["pictures"]:
            predicted = np.asarray(Image.open(run / shown["masks"][role]))
            assert predicted.shape == np.asarray(Image.open(shown["truth"])).shape and predicted.max() < 4
    assert results["export"]["passed"] and results["export"]["max_score_diff"] < 1e-3
    with open(run / "segmentation.csv", encoding="utf-8", newline="") as f:
        rows = {row["role"]: row for row in csv.DictReader(f)}
    selected = results["guard"]["chosen"]
    assert rows["compare1"]["model"] == "yolo26n-sem.yaml" and rows["teacher"]["model"] == "mffmetal-12"
    assert float(rows["student"]["kd"]) == (15 if selected == "student" else 0)
    assert int(rows["teacher"]["labeled"]) == data["train_labeled"] and rows["teacher"]["teacher"] == ""
    assert rows["student"]["teacher"] == ("mffmetal-12" if selected == "student" else "")
    assert float(rows["student"]["miou_fg"]) == pytest.approx(results["test"]["student"]["miou_fg"], abs=1e-5)
    assert int(rows["student"]["params"]) == results["test"]["student"]["parameters"]
    assert not list(run.rglob("*.part*")) and not list(run.rglob("writing_*"))
    assert YOLO(run / "weights" / "student.pt").names == dict(enumerate(NEU_NAMES))


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_grouped_split_leaks_nothing_and_unlabeled_images_teach(masks: Path, tmp_path: Path, capsys) -> None:
    for i in range(6):
        write(masks, "unlabeled", f"{i}", picture(200 + i)[0], None)
    assert main(arguments(masks, tmp_path, "name=grouped", "split=grouped", "labeled=0.7", "guard=false")) == 0
    assert "have a copy in training" not in capsys.readouterr().out
    results = results_of(tmp_path, "grouped")
    data = results["data"]
    assert data["split"] == "grouped" and data["leaks"] == {"test": 0, "val": 0, "named": []}
    assert data["train_unlabeled"] >= 6 and not (tmp_path / "runs/grouped/splits/test_leaks.txt").exists()
    settings = (tmp_path / "runs/grouped/train/student.yaml").read_text(encoding="utf-8")
    assert "train_unlabeled.txt" in settings
    assert results["training"]["student"]["losses"]["kd"]["by_epoch"][-1] > 0
    # the teacher is given to a second run, on the lists of the first
    run = tmp_path / "runs" / "grouped"
    words = arguments(masks, tmp_path, "name=again", f"teacher={run / 'weights/teacher.pt'}", "epochs=1")
    assert main([*words, f"split={run / 'splits'}", f"unlabeled={masks / 'images/unlabeled'}"]) == 0
    again = results_of(tmp_path, "again")
    assert {s["name"]: s["status"] for s in again["stages"]}["teacher"] == "reused"
    assert again["data"]["split"] == "given" and again["test"]["teacher"] == results["test"]["teacher"]


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_self_training_keeps_the_better_teacher(masks: Path, tmp_path: Path, capsys) -> None:
    """A round is a training on all images, from the start of the teacher; of a finished one, from its weights."""
    words = ("split=grouped", "labeled=0.5", "teacher_rounds=1", "seg.cutmix=0.5", "strong_view=0.5", "epochs=1")
    assert main(arguments(masks, tmp_path, "name=rounds", "baseline=off", *words)) == 0
    run, results = tmp_path / "runs" / "rounds", results_of(tmp_path, "rounds")
    tried, taken = results["self_training"]["val_score"], results["self_training"]["taken"]
    assert len(tried) == 2 and taken == int(tried[1] > tried[0])
    kept, teacher = (run / "weights" / f"{name}.pt" for name in (f"teacher_round{taken}", "teacher"))
    assert kept.read_bytes() == teacher.read_bytes()
    trained = results["training"]
    assert trained["teacher_round1"]["batches"] == trained["student"]["batches"]
    sizes = [trained[role]["parameters"] for role in ("teacher_round1", "teacher", "student")]
    assert sizes[0] == sizes[1] > sizes[2]
    assert trained["teacher_round1"]["losses"]["kd"]["weight"] == 15 and "kd" not in trained["teacher"]["losses"]
    settings = (run / "train" / "teacher_round1.yaml").read_text(encoding="utf-8")
    assert "train_unlabeled.txt" in settings and "strong_view: 0.5" in settings and "teacher_round0.pt" in settings
    assert "learned as its students (`teacher_rounds`); val mIoU of the defects" in (run / "report.md").read_text()
    assert "self-training round 1: val mIoU of the defects" in capsys.readouterr().out
    own = (f"teacher={teacher}", "teacher_rounds=1", "student_training=skip", f"split={run / 'splits'}", "epochs=1")
    assert main(arguments(masks, tmp_path, "name=again", *own)) == 0
    assert (tmp_path / "runs/again/weights/teacher_round0.pt").read_bytes() == teacher.read_bytes()
    model = f"model: {tmp_path / 'runs/again/weights/teacher_round0.pt'}"
    assert model in (tmp_path / "runs/again/train/teacher_round1/args.yaml").read_text(encoding="utf-8")


@pytest.mark.train
def test_labels_alone_by_any_network(masks: Path, tmp_path: Path) -> None:
    words = ("name=alone", "recipe=baseline", "task=semantic", "teacher=none", "student=yolo26n-sem.yaml", "epochs=1")
    assert main(arguments(masks, tmp_path, *words)) == 0
    results = results_of(tmp_path, "alone")
    assert set(results["test"]) == {"baseline"} and results["export"] is None and results["guard"] is None


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_baseline_alone_is_taken_over_by_a_run_with_unlabeled_images(masks: Path, tmp_path: Path, capsys) -> None:
    common = ("split=grouped", "labeled=0.5", "epochs=1")
    assert main(arguments(masks, tmp_path, "name=base", "student_training=skip", "teacher=none", *common)) == 0
    taken = f"baseline={tmp_path / 'runs/base'}"
    assert main(arguments(masks, tmp_path, "name=taken", taken, *common)) == 0
    results = results_of(tmp_path, "taken")
    assert {s["name"]: s["status"] for s in results["stages"]}["baseline"] == "taken over"
    assert results["training"]["student"]["batches"] == results["training"]["baseline"]["batches"]
    assert main(arguments(masks, tmp_path, "name=other", taken, "split=grouped", "labeled=0.7", "epochs=1")) == 2
    assert "differs in train_labeled" in capsys.readouterr().err
    assert not (tmp_path / "runs/other/weights").exists(), "found out before a teacher is trained"


@pytest.mark.train
def test_network_that_onnx_cannot_hold_is_reported(masks: Path, tmp_path: Path, capsys) -> None:
    words = ("name=psp", "student=smp:pspnet/resnet18", "split=grouped", "epochs=1", "baseline=off", "imgsz=64")
    assert main(arguments(masks, tmp_path, *words)) == 2
    assert "cannot write format=onnx" in capsys.readouterr().err
    report = (tmp_path / "runs/psp/report.md").read_text(encoding="utf-8")
    assert "The export check failed: Ultralytics cannot write format=onnx" in report
    assert "student.onnx source" not in report


@pytest.mark.train
def test_killed_run_finishes_with_the_same_budget(masks: Path, tmp_path: Path) -> None:
    words, run = arguments(masks, tmp_path, "name=killed", "epochs=3"), tmp_path / "runs" / "killed"
    kill_when(words, run, [run / "train" / role / "weights" / "last.pt" for role in ("baseline", "student")])
    assert main([*words, f"resume={run}"]) == 0
    results = results_of(tmp_path, "killed")
    training = results["training"]
    assert training["student"]["batches"] == training["baseline"]["batches"]
    assert training["student"]["epochs_done"] == 3 and len(training["student"]["losses"]["kd"]["by_epoch"]) == 3
    assert results["export"]["passed"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["student=mffmetal-20"],
            "student=mffmetal-20: model mffmetal-20: width=20 must be a multiple of 6 up to 600, such as 30",
        ),
        (["teacher=yolov8n.yaml"], "teacher=yolov8n.yaml: yolov8n.yaml describes no model for segmentation"),
        (["teacher=none"], "teacher=none leaves nothing to distill"),
        (["teacher=nowhere.pt"], "teacher=nowhere.pt"),
        (["compare=smp:nothing"], "compare=smp:nothing"),
        (["seg.kd=-1"], "seg.kd=-1 must be a number >= 0"),
        (["seg.kd=0"], "seg.kd=0 makes the student its own baseline"),
        (
            ["seg.kd=0", "student_training=skip", "teacher_rounds=1"],
            "teacher_rounds teaches by soft masks, but seg.kd=0",
        ),
        (["teacher=none", "student_training=skip", "teacher_rounds=1"], "teacher_rounds needs a teacher"),
        (["seg.cutmix=1.5"], "seg.cutmix=1.5 must be a number >= 0 and <= 1"),
        (["student_training=skip", "strong_view=0.5"], "strong_view has no effect: no network is distilled"),
        (["labeled=0.5", "batch=2", "seg.cutmix=0.5"], "seg.cutmix=0.5 needs two unlabeled images in a batch"),
        (["seg.tau=0"], "seg.tau=0 must be a number > 0"),
        (["seg.lr_steps=[0.5,1.5]"], "seg.lr_steps=[0.5, 1.5] must be none or a list of shares"),
        (["pseudo.tau0=0.3"], "pseudo.tau0 acts only in detection"),
        (["hwjs.weight=1"], "hwjs compares detectors"),
        (["mosaic=0.5"], "mosaic has no effect on masks"),
        (["steps=2,1"], "steps acts only in detection"),
        (["teacher_kind=ema"], "teacher_kind acts only in detection"),
        (["split=nowhere"], "nowhere"),
        (["recipe=dfssd", "seg.kd=3"], "seg.kd acts only in segmentation"),
        (["student_training=ultralytics"], "student_training=ultralytics is for detectors"),
        (["student_training=skip", "baseline=off"], "leaves nothing to train"),
        (["student_training=skip", "seg.tau=1"], "seg.tau has no effect: no network is distilled"),
        (["lrf=0.1"], "lrf has no effect: the learning rate falls by seg.lr_steps"),
        (["seg.lr_steps=none", "seg.lr_factor=0.1"], "seg.lr_factor has no effect with seg.lr_steps=none"),
        (["cls_pw=0.5"], "cls_pw has no effect on masks"),
        (["seg.ce=0", "seg.dice=0", "seg.boundary=0"], "seg.ce, seg.dice and seg.boundary are all 0"),
        (["compare=[mffmetal-12,mffmetal-6]"], "compare=mffmetal-6 is trained anyway"),
        (["compare=smp:unet,yolov8n.yaml"], "compare=yolov8n.yaml: yolov8n.yaml describes no model for segmentation"),
        (["teacher=cfg/default.yaml"], "is no model YAML"),
        (["student=yolov8n.pt"], "student=yolov8n.pt does not exist, or is no segmentation model: give mffmetal-30"),
        (["task=detect"], "recipe=mffmetal is for task=semantic, not detect"),
        (["recipe=tskd", "task=semantic"], "recipe=tskd is for task=detect, not semantic"),
        (["recipe=pseudo-only", "task=semantic"], "recipe=pseudo-only is for task=detect, not semantic"),
    ],
)
def test_bad_arguments_end_in_one_line(masks: Path, tmp_path: Path, capsys, words: list[str], reason: str) -> None:
    assert main(arguments(masks, tmp_path, *words)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and reason in message
    assert not [p for p in (tmp_path / "runs").glob("*") if (p / "weights").exists()]


@pytest.mark.parametrize("fault", ["id", "size", "missing"])
def test_bad_masks_end_in_one_line(masks: Path, tmp_path: Path, capsys, fault: str) -> None:
    target = masks / "annotations" / "training" / "005.png"
    if fault == "id":
        write_mask(target, np.full((64, 64), 9, np.uint8))
    elif fault == "size":
        write_mask(target, np.zeros((32, 64), np.uint8))
    else:
        target.unlink()
    assert main(arguments(masks, tmp_path)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and "005" in message


def test_leak_is_named_with_its_folder() -> None:
    leak = Leak(Path("/a/images/test/1.jpg"), (Path("/a/images/train/7.jpg"), Path("/a/images/train/8.jpg")))
    assert name_leak(leak) == "test/1.jpg = train/7.jpg"
