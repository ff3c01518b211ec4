from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dfssd.detection.report import words, write_report
from dfssd.detection.verdict import closing_line, closing_table, headline, noise
from dfssd.errors import UserError
from dfssd.results.record import BoxRecord
from dfssd.results.sections import Quality
from tests.detection.recorded_run import FIGURES, measured, pseudo_labels, results, run_files, sized
from tests.reporting.records import changed, without

EVENT = {"epoch": 1, "factor": 0.25, "why": "it was behind"}


def report_of(record: BoxRecord, drawn: dict[str, int] = FIGURES, **files) -> str:
    text = words(run_files(record, **files), drawn)
    assert "None" not in text and "nan" not in text
    return text


def test_complete_run():
    text = report_of(results(), folder=Path("cr7"))
    assert text.startswith("# cr7: what the run found\n\n**The 192 unlabeled images and the teacher made no")
    assert "| student | 0.412 | 0.659 | 0.800 | 0.700 | 1.5 MB |" in text
    assert "| inclusions | 24 | 0.380 | 0.305 | 0.337 | +0.032 |" in text
    assert "| macular | 0 | - | - | - | - |" in text
    assert "| hwjs | 2.000 | 0.1812 | 0.0931 | 41% |" in text
    assert "| baseline | 30 of 30 | 1,260 | 16 | SGD, lr0 0.01 | 28 | 0.390 | 3 min |" in text
    assert "one random seed (0)" in text
    assert "83% are correct" in text and "64% of the true defects" in text
    assert "matches `weights/student.pt`: compared on" in text
    assert "source=FOLDER_OF_IMAGES imgsz=128 conf=0.31" in text


def test_figures_are_shown_where_they_were_drawn():
    text = report_of(results(), {"gallery": 3, "validation": 1})
    assert "![3 unlabeled images with the teacher's pseudo-labels](plots/gallery.png)" in text
    assert "![Progress](plots/validation.png)" in text and text.count("](plots/") == 2
    assert report_of(results(), {}).count("](plots/") == 0


def test_few_test_defects_make_small_differences_chance():
    record = changed(results(0.412, 0.380), "test.student", instances=2_500)
    assert noise(record) == 0.01 and "finds defects better" in headline(record)
    record = changed(record, "test.student", instances=100)
    assert noise(record) == 0.05 and "is about as good as" in headline(record)


@pytest.mark.parametrize(
    ("student", "baseline", "said"),
    [
        (
            0.480,
            0.380,
            "With the 192 unlabeled images and the teacher the student finds defects better than the same network",
        ),
        (
            0.385,
            0.380,
            "The 192 unlabeled images and the teacher made no clear difference: the student is about as good as",
        ),
        (0.380, 0.380, "did not help: the student is about as good as"),
        (0.375, 0.380, "did not help: the student is about as good as"),
        (
            0.300,
            0.380,
            "The 192 unlabeled images and the teacher hurt: the student finds defects worse than the same network",
        ),
        (0.002, 0.001, "Neither the student nor the baseline finds defects yet"),
    ],
)
def test_headline_is_honest(student, baseline, said):
    sentence = headline(results(student, baseline))
    assert said in sentence
    assert "trained on the 96 labeled images alone: " in sentence or max(student, baseline) < 0.01
    shown = f": mAP50 {1.6 * student:.3f} against {1.6 * baseline:.3f} ({1.6 * (student - baseline):+.3f}), "
    assert f"{shown}mAP50-95 {student:.3f} against {baseline:.3f} ({student - baseline:+.3f}), after" in sentence
    assert sentence.endswith("after the same number of optimizer steps (1,260).")


def test_headline_names_what_the_student_had():
    better = "the student finds defects better than"
    for record in (changed(results(0.5), "data", train_unlabeled=0), without(results(0.5), "distill")):
        assert headline(record).startswith(f"With the teacher {better}")  # Ultralytics' distillation uses labels alone
    assert headline(without(results(0.5), "test.teacher")).startswith(f"With the 192 unlabeled images {better}")


def test_baseline_in_place_of_a_student_is_said_with_the_score_of_both():
    record = changed(results(0.38, 0.38), "test", student_trained=results(0.35).test["student"])
    selected = {"student_val_score": 0.3, "baseline_val_score": 0.4}
    record = changed(record, "guard", chosen="baseline", why="it is better", **selected)
    assert headline(record).endswith(
        "the baseline, trained on the 96 labeled images alone: mAP50-95 0.380 (the student that was trained with them: "
        "0.350). Why: it is better."
    )


def test_unequal_training_is_called_unfair():
    record = changed(results(), "training.baseline", optimizer_steps=600)
    assert "different numbers of optimizer steps (1,260 against 600), so not a fair comparison" in headline(record)
    record = changed(record, "training.baseline", batch=8)
    assert "but with batches of 16 and 8 images, so not a fair comparison" in headline(record)
    record = changed(record, "training.student", optimizer_steps=None)
    assert headline(record).endswith("with a training length that was not recorded.")


def test_run_without_baseline():
    record = without(results(), "test.baseline", "training.baseline")
    text = report_of(record)
    assert "cannot be determined, because no baseline was trained (baseline=off)" in text
    assert "| baseline | not trained | - | - | - | - |" in text
    assert "| inclusions | 24 | 0.380 | - | 0.337 | - |" in text
    assert closing_line(record) == "student 0.412 (no baseline), teacher 0.455"


def test_run_without_unlabeled_images():
    record = changed(results(), "data", train_unlabeled=0)
    record.pseudo_labels = None
    text = report_of(record)
    assert "There are none: the run had no unlabeled images" in text
    assert "There were no unlabeled images: the student learned from the labels and the teacher only." in text
    assert "gallery" not in text


def test_unknown_quality_is_not_invented():
    text = report_of(changed(results(), "pseudo_labels", quality=None))
    assert "How many of them are correct is unknown" in text
    assert "| class | threshold | accepted | ignored |\n" in text


def test_teacher_that_sees_nothing():
    nothing = Quality(precision=None, recall=0.0, per_class={}, iou=0.5, images=192)
    record = changed(results(), "pseudo_labels", accepted=0, quality=nothing)
    assert "No pseudo-label was accepted, so" in report_of(record)


def test_classes_without_pseudo_labels_are_named():
    """By what the student saw in training, and by what the teacher marked before if no student was trained."""
    before = changed(results(), "pseudo_labels", starved=["dents", "pits"])
    assert "No pseudo-label was accepted for" not in report_of(before)
    assert "accepted for: dents, pits. The unlabeled images add nothing for these classes." in report_of(
        without(before, "distill")
    )
    after = changed(before, "distill", starved=["pits"])
    assert "accepted for: pits. The unlabeled images add nothing for this class." in report_of(after)


def test_failed_export_is_reported_at_the_top_and_in_its_place():
    failure = "class scores differ by 0.2, allowed is 0.01"
    wrong = {"passed": False, "failures": [failure], "max_score_diff": 0.2, "max_box_diff_px": None}
    text = report_of(changed(results(), "export", **wrong))
    assert f"- **The export check failed: {failure}.**" in text.partition("## On the test images")[0]
    assert "do not deploy the file" in text
    assert "| box edge [px] not a finite number, score 0.2 | 0.412 | +0.000 |" in text
    assert "matches `weights" not in text


def test_other_formats_are_listed():
    other = [
        {"format": "torchscript", "file": "weights/student.torchscript", "error": None},
        {"format": "engine", "file": None, "error": "no GPU", "passed": False},
        {
            "format": "openvino",
            "file": "deploy/student_openvino_model",
            "error": None,
            "precision": "fp32",
            "size_mb": 6.2,
        }
        | {
            "passed": False,
            "failures": ["class scores differ by 0.2, allowed is 0.01"],
            "median_ms": 4.2,
            "p95_ms": 5.0,
        },
    ]
    record = changed(results(), "export", other=other)
    text = report_of(record)
    assert "| `weights/student.torchscript` | - | - | not compared |" in text
    assert (
        "| engine | - | - | **could not be written** |" in text and "- **engine could not be written:** no GPU" in text
    )
    assert "| `deploy/student_openvino_model` | fp32 | 6.20 |" in text and "| - | 4.2 | 5.0 |" in text
    assert "- **openvino differs:** class scores differ by 0.2, allowed is 0.01" in text


def test_what_eight_bits_lose_is_told_by_size():
    """Small defects lose 9 of 40, large ones 1 of 104: the former are named, and both are in the table."""
    small = {"format": "openvino", "file": "deploy/a", "error": None, "precision": "int8", "size_mb": 3.5, "score": 0.4}
    record = changed(results(), "export", other=[{**small, "sizes": sized(13, 90)}])
    text = report_of(record)
    assert "| -0.012 | 8 to 16 px: 13 of 40 found, not 22 | - | - |" in text
    assert "| 8 to 16 px | 22 of 40 | 13 of 40 |" in text and "| size | PyTorch | a |" in text
    same = report_of(changed(results(), "export", other=[{**small, "sizes": sized(22, 91)}]))
    assert "| -0.012 | nothing | - | - |" in same and "| size | PyTorch" not in same


def test_record_without_sizes_has_no_column_for_them():
    record = without(results(), "export.torch_sizes", "export.onnx_sizes")
    assert "most lost" not in report_of(record) and "most lost" in report_of(results())


@pytest.mark.parametrize("section", ["data", "stages", "pseudo_labels", "training", "test", "export", "distill"])
def test_any_section_may_be_missing(section):
    record = without(results(), section)
    assert "## How to use the files" in report_of(record)
    closing_table(record, Console(file=io.StringIO()))


def test_record_of_a_run_that_has_just_begun(tmp_path):
    BoxRecord(run=results().run).write(tmp_path / "results.json")
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "says nothing about whether the method helped" in text
    assert "Nothing was trained" in text
    assert not (tmp_path / "plots").exists()


def test_values_that_are_null_do_not_break_it():
    """A test split without boxes, an epoch without numbers, and an aborted first epoch."""
    record = results()
    for role in record.test:
        scores = dict.fromkeys(("map50_95", "map50", "precision", "recall", "confidence"))
        record = changed(record, f"test.{role}", **scores)
    record = changed(record, "distill.terms.hwjs", first=None, last=None, grad_share=None)
    record = changed(record, "training.student", epochs_done=0, optimizer_steps=None, best_epoch=None)
    text = report_of(record)
    assert "| hwjs | 2.000 | - | - | - |" in text
    assert "conf=0.25" in text


@pytest.mark.parametrize("moved", [None, "weight", "schedule", "guard"])
def test_falling_terms_mean_something_only_where_nothing_else_moves_them(moved):
    record = results()
    for name in record.distill.terms:
        record = changed(record, f"distill.terms.{name}", schedule="constant", weight_by_epoch=[2.0, 2.0])
    changes = {"weight": {"weight_by_epoch": [1.0, 2.0]}, "schedule": {"schedule": "cosine"}}
    record = changed(record, f"distill.terms.{name}", **changes.get(moved, {}))
    if moved == "guard":
        scores = {"student_val_score": 0.4, "baseline_val_score": 0.3}
        record = changed(record, "guard", chosen="student", why="it is better", events=[EVENT], **scores)
    text = report_of(record)
    assert ("has come closer to the teacher" in text) is (moved is None)
    assert ("a falling value alone says nothing" in text) is (moved is not None)


def test_images_that_have_moved_cost_only_the_gallery():
    text = report_of(results(), {name: shown for name, shown in FIGURES.items() if name != "gallery"})
    assert "the images have been moved" in text and "gallery" not in text


def test_missing_or_broken_record_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"run": ')
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        write_report(tmp_path)


def test_closing_line_and_table():
    assert closing_line(results()) == "student 0.412 vs baseline 0.380 (+0.032), teacher 0.455"
    assert closing_line(results(0.3, 0.38)) == "student 0.300 vs baseline 0.380 (-0.080), teacher 0.455"
    assert closing_line(without(results(), "test")) == "student: no test result"
    out = io.StringIO()
    record = changed(results(), "export", failures=["box edges [px] differ by 3"])
    closing_table(record, Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert lines[-1] == headline(record)
    assert lines[-2] == "student 0.412 vs baseline 0.380 (+0.032), teacher 0.455"
    assert lines[-4] == "export FAILED: box edges [px] differ by 3"
    assert lines[-3].startswith("false_alarms=0.02: too few good images")
    assert any("student" in line and "0.412" in line and "0.659" in line for line in lines)


def test_baseline_from_scratch_has_a_line_of_its_own():
    record = changed(results(), "test", baseline_scratch=measured(0.36))
    line = "student 0.412 vs baseline 0.380 (+0.032), baseline from scratch 0.360, teacher 0.455"
    assert closing_line(record) == line
    alone = without(record, "test.student", "test.teacher")
    assert closing_line(alone) == "baseline 0.380 (no student), baseline from scratch 0.360"
    out = io.StringIO()
    closing_table(record, Console(file=out, width=100))
    rows = [line.split("│")[1].strip() for line in out.getvalue().splitlines() if line.startswith("│")]
    assert rows == ["teacher", "baseline from scratch", "baseline", "student"]


def with_gain(value: float, half: float) -> BoxRecord:
    """A record of a student that is ``value`` above its baseline, with an interval of that half width."""
    gain = {"map50_95": {"value": value, "low": value - half, "high": value + half}}
    pairs = [{"network": "student", "reference": "baseline", "gains": gain}]
    section = {"method": "paired bootstrap over the test images", "level": 0.95, "draws": 1000, "pairs": pairs}
    return changed(results(0.38 + value, 0.38), "", differences=section)


@pytest.mark.parametrize(
    ("value", "half", "said"),
    [
        (0.032, 0.010, "finds defects better than"),
        (0.032, 0.040, "is about as good as"),
        (0.009, 0.001, "is about as good as"),  # another seed alone can do that
        (-0.032, 0.010, "hurt: the student finds defects worse than"),
        (-0.032, 0.040, "did not help"),
    ],
)
def test_interval_decides_what_counts_as_a_difference(value, half, said):
    record = with_gain(value, half)
    shown = f"({value:+.3f} [{value - half:+.3f}, {value + half:+.3f}])"
    interval = f"{value:+.3f}, 95 % interval {value - half:+.3f} to {value + half:+.3f})"
    assert said in headline(record) and interval in headline(record) and shown in closing_line(record)
    assert noise(record) == pytest.approx(max(0.01, half))
    assert f"Differences up to about {max(0.01, half):.3f} can be chance" in report_of(record)
    assert f"| student - baseline | {shown[1:-1]} | " in report_of(record)
    out = io.StringIO()
    closing_table(record, Console(file=out, width=80))
    assert out.getvalue().splitlines()[-1] == headline(record)
    assert any(line.startswith("│ student") and shown[1:-1] in line for line in out.getvalue().splitlines())


def test_record_of_an_earlier_version_has_differences_without_intervals():
    text = report_of(results())
    assert "(+0.032), after" in text and "| difference |" not in text


@pytest.mark.train
def test_report_loads_no_model():
    """Neither torch nor Ultralytics is imported for a report."""
    code = "import dfssd.detection.report, sys; sys.exit(bool({'torch', 'ultralytics'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_names_with_a_bar_do_not_break_tables():
    record = results()
    record.pseudo_labels = pseudo_labels().model_copy(update={"per_class": {"a|b": pseudo_labels().per_class["dents"]}})
    assert "| a\\|b | - | 42 | 9 | - | - |" in report_of(record)
