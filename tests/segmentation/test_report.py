from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dfssd.errors import UserError
from dfssd.results.record import MaskRecord
from dfssd.segmentation.report import words, write_report
from dfssd.segmentation.verdict import closing_line, closing_table, headline
from tests.reporting.records import changed, without
from tests.segmentation.recorded_run import FIGURES, NAMED, measured, results, run_files

SECTIONS = ("stages", "data", "compare", "models", "training", "guard", "test", "latency", "pictures", "export")


def report_of(record: MaskRecord, drawn: dict[str, int] = FIGURES, **files) -> str:
    text = words(run_files(record, **files), drawn)
    assert "None" not in text and "nan" not in text
    return text


def test_complete_run():
    text = report_of(results(), folder=Path("neu"))
    assert text.startswith("# neu: what the run found\n\n**The teacher helped: the student marks the defects better")
    assert "| student | mffmetal-30 | 0.812 | 0.851 | 0.960 | 847,120 | 10.0 ms (9.0-12.0) | 1.00 | 1.5 MB |" in text
    assert "| teacher | mffmetal-180 | 0.834 | 0.868 | 0.960 | 29,000,000 | 20.0 ms (18.0-24.0) | 2.00 | 1.5" in text
    assert "| compare1 | smp:unet | 0.800 |" in text and "1,600 | - | - | 1.5 MB |" in text
    assert "| patches | 20,000 | 0.834 | 0.790 | 0.812 | 0.800 | 0.710 | +0.022 |" in text
    assert "| student | 40 of 40 | 5,400 | 15 | 200 | Adam, lr0 0.001 | 37 | 0.812 |" in text
    assert "Student and baseline are compared after the same number of optimizer steps (5,400)." in text
    assert "A difference in mIoU below 0.01 counts as noise" in text and "one random seed (0)" in text
    assert "840 images, none of them used in training" in text and "No test image has a copy in training." in text
    assert "| kd | 1 | 1.5 | 0.17 | 25% |" in text and "the teacher is unchanged, bit for bit" in text
    assert "matches `weights/student.pt`: compared on 100 test images" in text
    assert "| score 2.3e-06, share of pixels 2.5e-07 |" in text and "**engine could not be written:** no GPU" in text
    assert "yolo predict task=semantic model=weights/student.onnx source=FOLDER_OF_IMAGES imgsz=200\n" in text
    assert "(1, 4, 200, 200)" in text and "(0 background, 1 inclusion, 2 patches, 3 scratches)" in text
    assert "rounds imgsz=200 up to 224" in text
    assert "Caution" not in text and "optimistic" not in text


def test_figures_are_shown_where_they_were_drawn():
    text = report_of(results(), {"masks": 1, "losses": 1})
    assert "![1 test image, the worst ones of the student first: truth and predictions](plots/masks.png)" in text
    assert "![Losses of the student](plots/losses.png)" in text and text.count("](plots/") == 2
    text = report_of(results(), {})
    assert "No picture of masks: none was kept, or the files have been moved." in text and "](plots/" not in text


def test_copies_of_test_images_are_a_loud_caution():
    leaks = {"test": 810, "val": 12, "named": NAMED}
    record = changed(results(), "data", split="official", leaks=leaks)
    text = report_of(record, lists_leaks=True)
    top, _, data = text.partition("## Data")
    caution = (
        "810 of 840 test images have a copy in training (rotated, mirrored, or partial): the scores below "
        "are too optimistic; run split=grouped for the true ones"
    )
    assert f"> **Caution: {caution}.**" in top.partition("## On the test")[0]
    assert "12 of 363 validation images" in top and "used in training" not in top
    assert "test images are not new** (all: `splits/test_leaks.txt`), for example:" in data
    assert all(f"- {pair}\n" in data for pair in NAMED)
    assert "The split is that of the data set itself" in data
    assert "(all: " not in report_of(record)
    assert "test images are not new**.\n" in report_of(changed(record, "data.leaks", named=[]))
    out = io.StringIO()
    closing_table(record, Console(file=out, width=60))
    assert caution in out.getvalue()  # on one line, however narrow the terminal is


def test_guard_that_hands_over_the_baseline():
    why = "0.79 against 0.77 on the validation images"
    record = changed(results(student=0.790), "guard", chosen="baseline", why=why)
    record = changed(record, "test", student_trained=measured(0.771, 847_120))
    record = changed(record, "training.student", optimizer_steps=2700)
    text = report_of(record)
    assert text.startswith("# run: what the run found\n\n**The teacher did not help, so the network selected")
    assert "defects 0.790 (the distilled student: 0.771). Why: 0.79 against 0.77" in text
    assert "- **`weights/student.pt` is the baseline**" in text
    assert "| student_trained | mffmetal-30 | 0.771 |" in text
    assert "different numbers of optimizer steps (2,700 against 5,400), which is not fair" in text
    assert closing_line(record) == "student = baseline 0.790, teacher 0.834"


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (0.812, "The teacher helped"),
        (0.800, "The teacher helped"),
        (0.799, "made no difference beyond chance"),
        (0.781, "made no difference beyond chance"),
        (0.780, "The teacher hurt"),
    ],
)
def test_headline_is_honest(student, said):
    sentence = headline(results(student))
    assert said in sentence
    assert f"{student:.3f} against 0.790 ({student - 0.79:+.3f})" in sentence
    assert sentence.endswith("after the same number of optimizer steps (5,400).")


def test_headline_says_what_is_not_known():
    assert "Neither the student nor the baseline" in headline(results(0.004, 0.002))
    record = changed(results(), "data", train_unlabeled=100)
    assert headline(record).startswith("The teacher and the unlabeled images helped")
    record = changed(record, "training.student", batch=30)
    assert "batches of 30 and 15 images, which is not fair" in headline(record)
    record = changed(record, "training.student", optimizer_steps=None)
    assert headline(record).endswith("after trainings of a length that was not recorded.")
    record = without(record, "test.baseline")
    assert "0.812" in headline(record) and "cannot be determined, because no baseline was tested" in headline(record)
    assert closing_line(record) == "student 0.812 (no baseline), teacher 0.834"
    record = changed(record, "", test={"baseline": measured(0.79, 5)})
    assert (
        headline(record).startswith("No student was tested") and closing_line(record) == "baseline 0.790 (no student)"
    )
    assert "says nothing about whether the teacher helped" in headline(without(record, "test"))


def test_run_without_a_student():
    whole = results()
    sections = {name: {"baseline": getattr(whole, name)["baseline"]} for name in ("training", "test", "latency")}
    text = report_of(changed(without(whole, "compare"), "", **sections, guard=None, export=None))
    assert "No student was tested; the network trained on the labels alone reaches 0.790" in text
    assert "the student learned from" not in text and "| patches | 20,000 | 0.790 | - |" in text
    assert "has not been exported" in text and "No loss of the student is recorded." in text


def test_failed_export_is_reported_at_the_top_and_in_its_place():
    failure = "probabilities differ by 0.2, allowed is 0.001"
    wrong = {"passed": False, "failures": [failure], "max_score_diff": None, "miou_fg_onnx": None}
    text = report_of(changed(results(), "export", **wrong))
    assert f"- **The export check failed: {failure}.**" in text.partition("## On the test images")[0]
    assert "do not deploy the file" in text and "computes what" not in text
    assert "| score not a finite number, share of pixels 2.5e-07 |" in text
    assert "| - | - | - | - |" in text and "mIoU 0.0005; with fewer bits" in text


def test_file_that_answers_with_class_ids():
    text = report_of(changed(results(), "export", answers="ids", max_score_diff=None, max_logit_diff=None))
    assert "| share of pixels 2.5e-07 |" in text and "fp32: share of pixels 0.001, mIoU 0.0005" in text
    assert (
        "score" not in text.partition("## The files to deploy")[2].partition("\n|")[0]
        and "logit" not in text.partition("## How to use")[2].partition("##")[0]
    )
    assert "the output is (1, 200, 200), the class of each pixel" in text


def test_teacher_below_the_baseline_is_reported():
    assert "has little to teach" not in report_of(results())
    record = changed(results(), "test.teacher", miou_fg=0.056)
    assert "The teacher (0.056) is worse than the baseline (0.790)" in report_of(record)


def test_teacher_that_has_changed_is_reported():
    record = changed(results(), "training.student.selftest", teacher_unchanged=False)
    assert "the losses boundary, ce, dice, kd gave the student a gradient; the teacher **has changed**." in report_of(
        record
    )
    assert "Self-test" not in report_of(without(record, "training.student.selftest.teacher_unchanged"))


@pytest.mark.parametrize("section", SECTIONS)
def test_any_section_may_be_missing(section):
    record = without(results(), section)
    assert "## How to use the files" in report_of(record)
    closing_table(record, Console(file=io.StringIO()))
    if section in {"data", "guard", "export"}:  # null, where their stage had nothing to do
        null = changed(record, "", **{section: None})
        assert (headline(null), closing_line(null)) == (headline(record), closing_line(record))
        assert report_of(null) == report_of(record)


def test_run_that_has_just_begun(tmp_path):
    MaskRecord(run=results().run).write(tmp_path / "results.json")
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for said in ("have not been tested", "Nothing was trained", "has not been exported", "No data is recorded"):
        assert said in text
    assert "yolo predict" not in text and not (tmp_path / "plots").exists()


def test_values_that_are_null_do_not_break_it():
    """A test part without defects, a training without steps, networks that were not timed or not trained."""
    record = results()
    for role in record.test:
        record = changed(record, f"test.{role}", **dict.fromkeys(("miou_fg", "miou_all", "pixel_accuracy")))
        record = changed(record, f"test.{role}", parameters=None)
        record = changed(record, f"test.{role}.per_class", patches={"iou": None, "pixels": 0})
    record = changed(record, "training.student", optimizer_steps=None, best_epoch=None, val_score_by_epoch=[])
    record = changed(record, "training.student.losses", kd={"weight": 1.0, "by_epoch": []})
    text = report_of(without(record, "training.baseline", "latency.teacher"))
    assert "| patches | 0 | - | - | - | - | - | - |" in text
    assert "| kd | 1 | - | - | 25% |" in text
    assert "| baseline | not trained | - |" in text
    assert "| student | 40 of 40 | - | 15 |" in text


def test_unequal_comparison_is_reported():
    text = report_of(changed(results(), "training.compare2", batches=100))
    assert "**Trained with a different number of batches than the student: compare2.**" in text


def test_network_of_ultralytics_needs_no_code_of_ours():
    record = changed(results(), "models", student="yolo26n-sem.yaml")
    record = changed(record, "test.student", plain=True)
    record.export = None
    text = report_of(changed(record, "training.student", imgsz=224))
    assert "which `ultralytics.YOLO()` loads.\n" in text and "up to" not in text.partition("## How to use")[2]


def test_missing_or_broken_record_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"run": ')
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        write_report(tmp_path)


def test_closing_table():
    out = io.StringIO()
    record = changed(results(), "export", failures=["probabilities differ by 0.2"])
    closing_table(record, Console(file=out, width=140))
    lines = out.getvalue().splitlines()
    assert lines[-1] == headline(record)
    assert lines[-2] == "student 0.812 vs baseline 0.790 (+0.022), teacher 0.834"
    assert lines[-4:-2] == ["export FAILED: probabilities differ by 0.2", "format=engine: no GPU"]
    row = next(line for line in lines if "compare1 (smp:unet)" in line)
    assert all(cell in row for cell in ("0.800", "0.960", "24,400,000", "40.0 ms"))


@pytest.mark.train
def test_report_loads_no_model():
    """Neither torch nor Ultralytics is imported for a report."""
    code = "import dfssd.segmentation.report, sys; sys.exit(bool({'torch', 'ultralytics'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
