from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dfssd.errors import UserError
from dfssd.segmentation import pictures
from dfssd.segmentation.report import write_report
from dfssd.segmentation.verdict import closing_line, closing_table, headline
from tests.segmentation.material import NEU_NAMES, defects, write_mask

PICTURES = {"per_class_iou", "masks", "validation", "losses"}
COMPARED = {"compare1": "smp:unet", "compare2": "yolo26n-sem.yaml"}
NAMED = ["test/000123.jpg = training/000045.jpg", "test/000124.jpg = training/000046.jpg"]


def measured(level: float, parameters: int) -> dict[str, Any]:
    iou = {name: level + 0.05 * (i - 2) if i else 0.97 for i, name in enumerate(NEU_NAMES)}
    return {
        "miou_fg": level,
        "miou_all": (3 * level + 0.97) / 4,
        "pixel_accuracy": 0.96,
        "per_class": {name: {"iou": value, "pixels": 10_000 * (4 - i)} for i, (name, value) in enumerate(iou.items())},
        "images": 840,
        "imgsz": 200,
        "parameters": parameters,
    }


def trained(level: float, parameters: int, **losses: float) -> dict[str, Any]:
    epochs = 40
    falling = {name: [sign / (1 + i / 5) for i in range(epochs)] for name, sign in losses.items()}
    return {
        "epochs": epochs,
        "epochs_done": epochs,
        "batches": 5400,
        "optimizer_steps": 5400,
        "batch": 15,
        "optimizer": "Adam",
        "lr0": 0.001,
        "best_epoch": 37,
        "val_miou_fg": level,
        "val_miou_fg_by_epoch": [level * (1 - np.exp(-(i + 1) / 8)) for i in range(epochs)],
        "imgsz": 200,
        "parameters": parameters,
        "losses": {name: {"weight": 1.0, "by_epoch": values} for name, values in falling.items()},
        "selftest": {"alive": sorted(losses), "grad_share": dict.fromkeys(losses, 0.25), "teacher_unchanged": True},
    }


def timed(median: float) -> dict[str, Any]:
    around = {"low_ms": 0.9 * median, "high_ms": 1.2 * median}
    return {"median_ms": median, **around, "imgsz": 200, "rounds": 50, "device": "cpu", "threads": 1}


def results(student: float = 0.812, baseline: float = 0.790, teacher: float = 0.834) -> dict[str, Any]:
    """A complete ``results.json``, without pictures."""
    sizes = {"teacher": 29_000_000, "baseline": 847_120, "student": 847_120, "compare1": 24_400_000, "compare2": 1_600}
    levels = {"teacher": teacher, "baseline": baseline, "student": student, "compare1": 0.80, "compare2": 0.71}
    terms = {"ce": 0.4, "dice": 0.06, "boundary": -0.002, "kd": 1.5}
    stages = ("prepare", "teacher", "baseline", "student", "test", "export", "report")
    versions = {"dfssd": "0.1.0", "ultralytics": "8.4.190", "torch": "2.15.0", "python": "3.11.7"}
    where = {"machine": "Linux x86_64", "device": "cpu", "recipe": "mffmetal", "git": None}
    return {
        "run": {"command": "python train.py recipe=mffmetal data=NEU-Seg", "seed": 0, **versions, **where},
        "stages": [{"name": name, "seconds": 45.0 * i, "status": "done"} for i, name in enumerate(stages)],
        "data": {
            "name": "NEU-Seg",
            "classes": list(NEU_NAMES),
            "images": 4470,
            "train_labeled": 3267,
            "train_unlabeled": 0,
            "val": 363,
            "test": 840,
            "split": "grouped",
            "duplicates": 3618,
            "leaks": {"test": 0, "val": 0, "named": []},
            "left_out": 0,
            "skipped": [],
        },
        "compare": COMPARED,
        "models": {"teacher": "mffmetal-180", "student": "mffmetal-30"},
        "training": {role: trained(levels[role], sizes[role], **terms) for role in sizes},
        "guard": {
            "chosen": "student",
            "why": "it is better on the validation images",
            "student_val_miou_fg": student,
            "baseline_val_miou_fg": baseline,
            "events": [],
        },
        "test": {role: measured(levels[role], sizes[role]) for role in sizes},
        "latency": {role: timed(10.0 * (i + 1)) for i, role in enumerate(("student", *list(sizes)[:2], "compare1"))},
        "pictures": [],
        "export": {
            "format": "onnx",
            "file": "weights/student.onnx",
            "size_mb": 3.4,
            "input": [1, 3, 200, 200],
            "images": 100,
            "answers": "logits",
            "max_score_diff": 2.3e-6,
            "max_logit_diff": 1.1e-5,
            "differing_pixels": 2.5e-7,
            "miou_fg_torch": student,
            "miou_fg_onnx": student,
            "tolerance": {"score": 0.001, "miou": 0.0005},
            "passed": True,
            "failures": [],
            "other": [{"format": "engine", "file": None, "error": "no GPU"}],
        },
    }


def write_run(folder: Path, record: dict[str, Any], images: int = 2) -> Path:
    """Write a run folder around ``record``, with weights and pictures; return ``folder``."""
    entries = []
    for number in range(images):
        image, mask = defects(number)
        mask[:8, :8] = 255
        path = folder / "plates" / f"plate with a rather long file name {number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        truth = write_mask(folder / "truth" / path.name, mask)
        drawn = {}
        for shift, role in enumerate(("student", "teacher", "baseline"), 1):
            drawn[role] = f"test/masks/{role}/{path.name}"
            write_mask(folder / drawn[role], np.roll(np.where(mask == 255, 0, mask), shift, 1))
        entries.append({"image": str(path), "truth": str(truth), "masks": drawn})
    folder.mkdir(parents=True, exist_ok=True)
    if record:
        record["pictures"] = entries
    (folder / "results.json").write_text(json.dumps(record or {"run": {}}, allow_nan=False))
    (folder / "weights").mkdir()
    for role in (record or {}).get("test") or {}:
        (folder / "weights" / f"{role}.pt").write_bytes(bytes(1_500_000))
    return folder


def report_of(folder: Path) -> str:
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in PICTURES:  # every picture that is shown is there, and the other way round
        assert (f"(plots/{name}.png)" in text) == (folder / "plots" / f"{name}.png").is_file(), name
    assert "None" not in text and "nan" not in text
    return text


def test_complete_run(tmp_path):
    folder = write_run(tmp_path / "neu", results())
    text = report_of(folder)
    assert text.startswith("# neu: what the run found\n\n**The teacher helped: the student marks the defects better")
    assert "| student | mffmetal-30 | 0.812 | 0.851 | 0.960 | 847,120 | 10.0 ms (9.0-12.0) | 1.00 | 1.5 MB |" in text
    assert "| teacher | mffmetal-180 | 0.834 | 0.868 | 0.960 | 29,000,000 | 20.0 ms (18.0-24.0) | 2.00 | 1.5" in text
    assert "| compare1 | smp:unet | 0.800 |" in text and "1,600 | - | - | 1.5 MB |" in text
    assert "| patches | 20,000 | 0.834 | 0.790 | 0.812 | 0.800 | 0.710 | +0.022 |" in text
    assert "| student | 40 of 40 | 5,400 | 15 | 200 | Adam, lr0 0.001 | 37 | 0.812 |" in text
    assert "Student and baseline are compared after the same number of optimizer steps (5,400)." in text
    assert "A difference in mIoU below 0.01 counts as noise" in text and "one random seed (0)" in text
    assert "840 images, which no training has seen" in text and "No test image has a copy in training." in text
    assert "| kd | 1 | 1.5 | 0.17 | 25% |" in text and "the teacher stayed the same bit for bit" in text
    assert "computes what `weights/student.pt` computes: compared on 100 test images" in text
    assert "| probability of a class | 2.3e-06 | 0.001 |" in text and "- engine: could not be written: no GPU" in text
    assert "yolo predict task=semantic model=weights/student.onnx source=FOLDER_OF_IMAGES imgsz=200\n" in text
    assert "(1, 4, 200, 200)" in text and "(0 background, 1 inclusion, 2 patches, 3 scratches)" in text
    assert "rounds imgsz=200 up to 224" in text
    assert "Caution" not in text and "flatter" not in text
    assert {path.stem for path in (folder / "plots").iterdir()} == PICTURES


def test_report_can_be_written_again(tmp_path):
    folder = write_run(tmp_path / "run", results())
    first = report_of(folder)
    assert report_of(folder) == first
    assert not list(folder.rglob("*.part*"))


def test_copies_of_test_images_are_a_loud_caution(tmp_path):
    record = results()
    record["data"] |= {"split": "official", "leaks": {"test": 810, "val": 12, "named": NAMED}}
    folder = write_run(tmp_path / "run", record)
    (folder / "splits").mkdir()
    (folder / "splits" / "test_leaks.txt").write_text("\n".join(NAMED))
    text = report_of(folder)
    top, _, data = text.partition("## Data")
    caution = "810 of 840 test images have a copy in training (rotated, mirrored or in part): the numbers below flatter"
    assert f"> **Caution: {caution}; run split=grouped for the true figure.**" in top.partition("## On the test")[0]
    assert "12 of 363 validation images" in top and "which no training has seen" not in top
    assert "test images are not new** (all: `splits/test_leaks.txt`), for example:" in data
    assert all(f"- {pair}\n" in data for pair in NAMED)
    assert "The parts are those of the data set itself" in data
    out = io.StringIO()
    closing_table(record, Console(file=out, width=60))
    assert caution in out.getvalue()  # on one line, however narrow the terminal is


def test_guard_that_hands_over_the_baseline(tmp_path):
    record = results(student=0.790)
    record["guard"] |= {"chosen": "baseline", "why": "0.79 against 0.77 on the validation images"}
    record["test"]["student_trained"] = measured(0.771, 847_120)
    record["training"]["student"]["optimizer_steps"] = 2700
    folder = write_run(tmp_path / "run", record)
    for entry in record["pictures"]:
        entry["masks"]["student_trained"] = entry["masks"]["teacher"]
    (folder / "results.json").write_text(json.dumps(record))
    text = report_of(folder)
    assert text.startswith("# run: what the run found\n\n**The teacher did not help, so the network handed over")
    assert "defects 0.790 (the student that the teacher taught: 0.771). Why: 0.79 against 0.77" in text
    assert "- **`weights/student.pt` is the baseline**" in text
    assert "| student_trained | mffmetal-30 | 0.771 |" in text
    assert "different numbers of optimizer steps (2,700 against 5,400), which is not fair" in text
    assert closing_line(record) == "student = baseline 0.790, teacher 0.834"


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (0.812, "The teacher helped"),
        (0.800, "The teacher helped"),
        (0.799, "made no difference beyond chance"),
        (0.781, "made no difference beyond chance"),
        (0.780, "The teacher did harm"),
    ],
)
def test_headline_is_honest(student, words):
    sentence = headline(results(student))
    assert words in sentence
    assert f"{student:.3f} against 0.790 ({student - 0.79:+.3f})" in sentence
    assert sentence.endswith("after the same number of optimizer steps (5,400).")


def test_headline_says_what_is_not_known():
    assert "Neither the student nor the baseline" in headline(results(0.004, 0.002))
    record = results()
    record["data"]["train_unlabeled"] = 100
    assert headline(record).startswith("The teacher and the unlabelled images helped")
    record["training"]["student"]["batch"] = 30
    assert "batches of 30 and 15 images, which is not fair" in headline(record)
    record["test"]["baseline"] = None
    assert "0.812" in headline(record) and "cannot be told, because no baseline was tested" in headline(record)
    assert closing_line(record) == "student 0.812 (no baseline), teacher 0.834"
    record["test"] = {"baseline": measured(0.79, 5)}
    assert (
        headline(record).startswith("No student was tested") and closing_line(record) == "baseline 0.790 (no student)"
    )
    assert "says nothing about whether the teacher helped" in headline({})


def test_run_without_a_student(tmp_path):
    record = results()
    for section in ("training", "test", "latency"):
        record[section] = {"baseline": record[section]["baseline"]}
    record |= {"guard": None, "export": None, "compare": {}}
    text = report_of(write_run(tmp_path / "run", record))
    assert "No student was tested; the network trained on the labels alone reaches 0.790" in text
    assert "the student learnt from" not in text and "| patches | 20,000 | 0.790 | - |" in text
    assert "has not been exported" in text and "No loss of the student is recorded." in text


def test_failed_export_is_told_at_the_top_and_in_its_place(tmp_path):
    record = results()
    failure = "probabilities differ by 0.2, allowed is 0.001"
    record["export"] |= {"passed": False, "failures": [failure], "max_score_diff": None, "miou_fg_onnx": None}
    text = report_of(write_run(tmp_path / "run", record))
    assert f"- **The export check failed: {failure}.**" in text.partition("## On the test images")[0]
    assert "do not deploy the file" in text and "computes what" not in text
    assert "| probability of a class | not a finite number | 0.001 |" in text
    assert "| mIoU of the defects | - | 0.0005 |" in text


def test_file_that_answers_with_class_ids(tmp_path):
    record = results()
    record["export"] |= {"answers": "ids", "max_score_diff": None, "max_logit_diff": None}
    text = report_of(write_run(tmp_path / "run", record))
    assert "| share of the pixels with another class | 2.5e-07 | 0.001 |" in text
    assert "probability of a class" not in text and "logit" not in text.partition("## How to use")[2].partition("##")[0]
    assert "the output is (1, 200, 200), the class of each pixel" in text


def test_teacher_below_the_baseline_is_told(tmp_path):
    record = results()
    assert "has little to teach" not in report_of(write_run(tmp_path / "good", record))
    record["test"]["teacher"]["miou_fg"] = 0.056
    assert "The teacher (0.056) is worse than the baseline (0.790)" in report_of(write_run(tmp_path / "weak", record))


@pytest.mark.parametrize("section", sorted(results()))
def test_any_section_may_be_missing_or_null(tmp_path, section):
    record = results()
    folder = write_run(tmp_path / "run", record, images=0)
    del record[section]
    (folder / "results.json").write_text(json.dumps(record))
    missing = headline(record), closing_line(record)
    record[section] = None
    assert (headline(record), closing_line(record)) == missing
    assert "## How to use the files" in report_of(folder)
    closing_table(record, Console(file=io.StringIO()))


def test_all_sections_null(tmp_path):
    record = dict.fromkeys(results())
    (tmp_path / "results.json").write_text(json.dumps(record))
    text = report_of(tmp_path)
    for words in ("have not been tested", "Nothing was trained", "has not been exported", "No data is recorded"):
        assert words in text
    assert "yolo predict" not in text and not (tmp_path / "plots").exists()


def test_values_that_are_null_do_not_break_it(tmp_path):
    """A test part without defects, epochs without numbers, a network that was not timed, one that was not trained."""
    record = results()
    for own in record["test"].values():
        own |= dict.fromkeys(("miou_fg", "miou_all", "pixel_accuracy", "parameters"))
        own["per_class"]["patches"] = {"iou": None, "pixels": 0}
    record["training"]["student"] |= {"optimizer_steps": None, "best_epoch": None, "val_miou_fg_by_epoch": [None, 0.5]}
    record["training"]["student"]["losses"]["kd"]["by_epoch"] = [None, None]
    record["training"]["baseline"] = None
    record["latency"]["teacher"] = None
    text = report_of(write_run(tmp_path / "run", record))
    assert "| patches | 0 | - | - | - | - | - | - |" in text
    assert "| kd | 1 | - | - | 25% |" in text
    assert "| baseline | not trained | - |" in text


def test_unequal_comparison_is_told(tmp_path):
    record = results()
    record["training"]["compare2"]["batches"] = 100
    text = report_of(write_run(tmp_path / "run", record))
    assert "**Trained with another number of batches than the student: compare2.**" in text


def test_network_of_ultralytics_needs_no_code_of_ours(tmp_path):
    record = results()
    record["models"]["student"] = "yolo26n-sem.yaml"
    record["test"]["student"]["plain"] = True
    record["export"] = None
    record["training"]["student"]["imgsz"] = 224
    text = report_of(write_run(tmp_path / "run", record))
    assert "which `ultralytics.YOLO()` loads.\n" in text and "up to" not in text.partition("## How to use")[2]


def test_images_that_have_moved_cost_only_their_rows(tmp_path):
    folder = write_run(tmp_path / "run", results(), images=3)
    entries = json.loads((folder / "results.json").read_text())["pictures"]
    Path(entries[0]["image"]).unlink()
    Path(entries[1]["truth"]).write_bytes(b"no picture")
    (folder / entries[2]["masks"]["teacher"]).unlink()
    assert "![1 test images" in report_of(folder)
    shutil.rmtree(folder / "plates")
    shutil.rmtree(folder / "plots")
    text = report_of(folder)
    assert "No picture of masks: none was kept, or the files have moved." in text


def test_picture_of_masks_shows_what_it_names(tmp_path):
    record = results()
    folder = write_run(tmp_path / "run", record, images=9)
    labels = {"student": "student", "teacher": "teacher", "student_trained": "student_trained"}

    def drawn(entries: list, name: str) -> np.ndarray:
        path = tmp_path / f"{name}.png"
        assert pictures.masks(entries, NEU_NAMES, labels, folder, path) == min(len(entries), pictures.MOST_ROWS)
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    nine, one = drawn(record["pictures"], "nine"), drawn(record["pictures"][:1], "one")
    assert nine.shape[1] == one.shape[1] and nine.shape[0] > 6 * one.shape[0]
    without = copy.deepcopy(record["pictures"][:1])
    del without[0]["masks"]["teacher"]
    assert drawn(without, "without").shape[1] < one.shape[1]  # a network without masks has no column
    for colour in pictures.class_colours(4)[1:].astype(int):  # each class in the legend
        assert (np.abs(one - colour).max(2) < 4).sum() > 50
    assert pictures.masks([], NEU_NAMES, labels, folder, tmp_path / "none.png") == 0
    assert not (tmp_path / "none.png").exists()


def test_overlay_colours_defects_alone():
    grey = np.full((2, 3), 100, np.uint8)
    ids = np.array([[0, 1, 2], [255, 7, 0]], np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    look = pictures.overlay(grey, ids, colours)
    assert (look[0, 0] == 100).all() and (look[1, 1:] == 100).all()
    assert look[0, 1].tolist() == [185, 45, 45] and look[0, 2].tolist() == [45, 185, 45]
    assert look[1, 0].tolist() in ([255] * 3, [128] * 3)
    assert (grey == 100).all()


@pytest.mark.parametrize("nc", [2, 8, 9, 60, 255])
def test_every_class_has_its_own_colour(nc):
    assert len({tuple(colour) for colour in pictures.class_colours(nc)[1:].tolist()}) == nc - 1


def test_many_classes_keep_the_largest_differences(tmp_path):
    test = {role: measured(0.5, 1) for role in ("student", "baseline")}
    for i in range(100):
        test["baseline"]["per_class"][f"class {i}"] = {"iou": 0.3, "pixels": 3}
        test["student"]["per_class"][f"class {i}"] = {"iou": 0.3 + 0.001 * i, "pixels": 3}
    assert pictures.class_iou(test, {"baseline": "baseline", "student": "student"}, tmp_path / "many.png")
    assert Image.open(tmp_path / "many.png").height < 110 * (2 + pictures.MOST_CLASSES * 0.6)


def test_missing_or_broken_record_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"run": ')
    with pytest.raises(UserError, match="not a JSON object"):
        write_report(tmp_path)


def test_closing_table(tmp_path):
    out = io.StringIO()
    record = results()
    record["export"]["failures"] = ["probabilities differ by 0.2"]
    closing_table(record, Console(file=out, width=140))
    lines = out.getvalue().splitlines()
    assert lines[-1] == "student 0.812 vs baseline 0.790 (+0.022), teacher 0.834"
    assert lines[-2] == "export FAILED: probabilities differ by 0.2"
    row = next(line for line in lines if "compare1 (smp:unet)" in line)
    assert all(cell in row for cell in ("0.800", "0.960", "24,400,000", "40.0 ms"))


def test_report_loads_no_model():
    """Neither torch nor Ultralytics is imported for a report."""
    code = "import dfssd.segmentation.report, sys; sys.exit(bool({'torch', 'ultralytics'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
