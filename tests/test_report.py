from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dfssd import plots
from dfssd.errors import UserError
from dfssd.report import write_report
from dfssd.verdict import closing_line, closing_table, headline, noise
from tests.recorded_run import measured, results, write_curves, write_run

PICTURES = {"loss_terms", "validation", "pr_curves", "per_class_ap", "pseudo_labels", "gallery"}


def report_of(folder: Path, record: dict, **options) -> str:
    write_report(write_run(folder, record, **options))
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in PICTURES:  # every picture that is shown is there, and the other way round
        assert (f"(plots/{name}.png)" in text) == (folder / "plots" / f"{name}.png").is_file(), name
    return text


def without(*keys: str) -> dict:
    """A record that lacks ``a.b``, given as two keys, or ``a``, given as one."""
    record = results()
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return record


def test_complete_run(tmp_path):
    text = report_of(tmp_path / "cr7", results())
    assert text.startswith("# cr7: what the run found\n\n**The student is about as good as the same network")
    assert {p.stem for p in (tmp_path / "cr7" / "plots").iterdir()} == PICTURES
    assert "| student | 0.412 | 0.659 | 0.800 | 0.700 | 1.5 MB |" in text
    assert "| inclusions | 24 | 0.380 | 0.305 | 0.337 | +0.032 |" in text
    assert "| macular | 0 | - | - | - | - |" in text
    assert "| hwjs | 2.000 | 0.1812 | 0.0931 | 41% |" in text
    assert "| baseline | 30 of 30 | 1,260 | 16 | SGD, lr0 0.01 | 28 | 0.390 | 3 min |" in text
    assert "one random seed (0)" in text
    assert "83% are right" in text and "64% of the true defects" in text
    assert "computes what `weights/student.pt` computes" in text
    assert "source=FOLDER_OF_IMAGES imgsz=128 conf=0.31" in text


def test_report_can_be_written_again(tmp_path):
    first = report_of(tmp_path / "run", results())
    write_report(tmp_path / "run")
    assert (tmp_path / "run" / "report.md").read_text(encoding="utf-8") == first
    assert not list((tmp_path / "run").rglob("*.part*"))


def test_few_test_defects_make_small_differences_chance():
    record = results(0.412, 0.380)
    record["test"]["student"]["instances"] = 2_500
    assert noise(record) == 0.01 and "finds defects better" in headline(record)
    record["test"]["student"]["instances"] = 100
    assert noise(record) == 0.05 and "is about as good as" in headline(record)


@pytest.mark.parametrize(
    ("student", "baseline", "words"),
    [
        (0.480, 0.380, "finds defects better"),
        (0.385, 0.380, "is about as good as"),
        (0.380, 0.380, "did not help"),
        (0.375, 0.380, "did not help"),
        (0.300, 0.380, "did harm"),
        (0.002, 0.001, "Neither the student nor the baseline finds defects yet"),
    ],
)
def test_headline_is_honest(student, baseline, words):
    sentence = headline(results(student, baseline))
    assert words in sentence
    assert f"mAP50-95 {student:.3f} against {baseline:.3f} ({student - baseline:+.3f})" in sentence
    assert sentence.endswith("after the same number of optimizer steps (1,260).")


def test_unequal_training_is_said_to_be_unfair():
    record = results()
    record["training"]["baseline"]["optimizer_steps"] = 600
    assert "different numbers of optimizer steps (1,260 against 600), so not a fair comparison" in headline(record)


def test_run_without_baseline(tmp_path):
    record = without("test", "baseline")
    del record["training"]["baseline"]
    folder = write_run(tmp_path / "run", record)
    shutil.rmtree(folder / "train" / "baseline")
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "cannot be told, because no baseline was trained (baseline=off)" in text
    assert "| baseline | not trained | - | - | - | - |" in text
    assert "| inclusions | 24 | 0.380 | - | 0.337 | - |" in text
    assert closing_line(record) == "student 0.412 (no baseline), teacher 0.455"


def test_run_without_unlabelled_images(tmp_path):
    record = results()
    record["pseudo_labels"] = None
    record["data"]["train_unlabeled"] = 0
    folder = write_run(tmp_path / "run", record)
    shutil.rmtree(folder / "pseudo")
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "There are none: the run had no unlabelled images" in text
    assert "There were no unlabelled images: the student learnt from the labels and from the teacher only." in text
    assert not (folder / "plots" / "gallery.png").exists()


def test_unknown_quality_is_not_invented(tmp_path):
    record = results()
    record["pseudo_labels"]["quality"] = None
    text = report_of(tmp_path / "run", record)
    assert "How many of them are right is not known" in text
    assert "| class | threshold | accepted | ignored |\n" in text


def test_teacher_that_sees_nothing(tmp_path):
    record = results()
    record["pseudo_labels"] |= {"accepted": 0, "quality": {"precision": None, "recall": 0.0, "per_class": {}}}
    assert "learnt from no pseudo-label" in report_of(tmp_path / "run", record)


def test_failed_export_is_told_at_the_top_and_in_its_place(tmp_path):
    record = results()
    failure = "class scores differ by 0.2, allowed is 0.01"
    record["export"] |= {"passed": False, "failures": [failure], "max_score_diff": 0.2, "max_box_diff_px": None}
    text = report_of(tmp_path / "run", record)
    assert f"- **The export check failed: {failure}.**" in text.partition("## On the test images")[0]
    assert "do not deploy the file" in text
    assert "| box edge [px] | not a finite number | 0.500 |" in text
    assert "computes what" not in text


def test_other_formats_are_listed(tmp_path):
    record = results()
    record["export"]["other"] = [
        {"format": "torchscript", "file": "weights/student.torchscript", "error": None},
        {"format": "engine", "file": None, "error": "no GPU"},
    ]
    text = report_of(tmp_path / "run", record)
    assert "- torchscript: `weights/student.torchscript` (not compared)" in text
    assert "- engine: could not be written: no GPU" in text


@pytest.mark.parametrize("section", ["data", "stages", "pseudo_labels", "training", "test", "export", "distill", "run"])
def test_any_section_may_be_missing(tmp_path, section):
    record = without(section)
    assert "## How to use the files" in report_of(tmp_path / "run", record)
    closing_table(record, Console(file=io.StringIO()))


def test_record_of_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "results.json").write_text('{"run": {}, "stages": []}')
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "says nothing about whether the method helped" in text
    assert "Nothing was trained" in text
    assert not (tmp_path / "plots").exists()


def test_values_that_are_null_do_not_break_it(tmp_path):
    """A test split without boxes, an epoch without numbers, and an aborted first epoch."""
    record = results()
    for role in record["test"]:
        record["test"][role] |= {"map50_95": None, "map50": None, "precision": None, "recall": None, "confidence": None}
    record["distill"]["terms"]["hwjs"] |= {"first": None, "last": None, "grad_share": None}
    record["training"]["student"] |= {"epochs_done": 0, "optimizer_steps": None, "best_epoch": None}
    folder = write_run(tmp_path / "run", record)
    (folder / "train" / "student" / "results.csv").write_text("epoch,time,train/box_loss\n1,2.0,nan\n2,3")
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| hwjs | 2.000 | - | - | - |" in text
    assert "conf=0.25" in text
    assert not (folder / "plots" / "loss_terms.png").exists()


@pytest.mark.parametrize("moved", [None, "weight", "schedule", "guard"])
def test_falling_terms_mean_something_only_where_nothing_else_moves_them(tmp_path, moved):
    record = results()
    for term in record["distill"]["terms"].values():
        term |= {"schedule": "constant", "weight_by_epoch": [2.0, 2.0]}
    term |= {"weight": {"weight_by_epoch": [1.0, 2.0]}, "schedule": {"schedule": "cosine"}}.get(moved, {})
    if moved == "guard":
        events = [{"epoch": 1, "factor": 0.25, "why": "it was behind"}]
        record["guard"] = {"chosen": "student", "why": "it is better", "events": events}
    text = report_of(tmp_path / "run", record)
    assert ("has come closer to the teacher" in text) is (moved is None)
    assert ("a falling value alone says nothing" in text) is (moved is not None)


def test_images_that_have_moved_cost_only_the_gallery(tmp_path):
    folder = write_run(tmp_path / "run", results())
    shutil.rmtree(folder / "plates")
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "the images have moved" in text and "gallery" not in text


def test_missing_or_broken_record_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"run": ')
    with pytest.raises(UserError, match="not a JSON object"):
        write_report(tmp_path)


def test_closing_line_and_table():
    assert closing_line(results()) == "student 0.412 vs baseline 0.380 (+0.032), teacher 0.455"
    assert closing_line(results(0.3, 0.38)) == "student 0.300 vs baseline 0.380 (-0.080), teacher 0.455"
    assert closing_line({}) == "student: no test result"
    out = io.StringIO()
    record = results()
    record["export"]["failures"] = ["box edges [px] differ by 3"]
    closing_table(record, Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert lines[-1] == "student 0.412 vs baseline 0.380 (+0.032), teacher 0.455"
    assert lines[-2] == "export FAILED: box edges [px] differ by 3"
    assert any("student" in line and "0.412" in line and "0.659" in line for line in lines)


def test_gallery_shows_at_most_twelve_and_every_class(tmp_path):
    folder = write_run(tmp_path / "run", results(), images=40)
    predictions = plots_predictions(folder)
    for entry in predictions["images"][:30]:  # one class crowds the front of the list
        entry["boxes"][0]["cls"] = 0
    assert plots.gallery(predictions, tmp_path / "gallery.png") == 12
    chosen = plots._varied(predictions)[:12]
    assert {box["cls"] for entry in chosen for box in entry["boxes"] if box["zone"] == "accept"} == set(range(7))
    assert len({entry["image"] for entry in plots._varied(predictions)}) == 40


def test_gallery_draws_solid_accepted_and_no_background_boxes(tmp_path):
    predictions = plots_predictions(write_run(tmp_path / "run", results(), images=1))
    plots.gallery(predictions, tmp_path / "both.png")
    entry = copy.deepcopy(predictions["images"][0])
    entry["boxes"][1]["zone"] = "background"
    plots.gallery({**predictions, "images": [entry]}, tmp_path / "one.png")
    both, one = (count_colour(tmp_path / f"{name}.png", plots.IGNORED) for name in ("both", "one"))
    assert both > 2 * one  # in both pictures the legend shows the colour
    assert plots.gallery({**predictions, "images": []}, tmp_path / "none.png") == 0
    assert not (tmp_path / "none.png").exists()


def test_many_classes_keep_the_largest_differences(tmp_path):
    test = {"student": measured(0.4), "baseline": measured(0.4)}
    for number in range(100):
        base = {"ap50_95": 0.3, "ap50": 0.5, "precision": 0.5, "recall": 0.5, "instances": 3}
        test["baseline"]["per_class"][f"class {number}"] = base
        test["student"]["per_class"][f"class {number}"] = {**base, "ap50_95": 0.3 + 0.001 * number}
    assert plots.class_precision(test, tmp_path / "many.png")
    height = Image.open(tmp_path / "many.png").height
    assert height < 110 * (2 + plots.MOST_CLASSES * 0.6)


def test_single_epoch_is_visible(tmp_path):
    write_curves(tmp_path / "a" / "results.csv", 0.4, distilled=True, epochs=1)
    assert plots.loss_terms({"train/box_loss": [0.7]}, None, tmp_path / "one.png")
    assert count_colour(tmp_path / "one.png", plots.COLOURS["student"]) > 10
    assert not plots.loss_terms({"train/box_loss": [float("nan")]}, None, tmp_path / "none.png")


def test_report_loads_no_model():
    """Neither torch nor Ultralytics is imported for a report."""
    code = "import dfssd.report, sys; sys.exit(bool({'torch', 'ultralytics'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_names_with_a_bar_do_not_break_tables(tmp_path):
    record = results()
    record["pseudo_labels"]["per_class"] = {"a|b": {"accepted": 1, "ignored": 2}}
    assert "| a\\|b | - | 1 | 2 | - | - |" in report_of(tmp_path / "run", record)


def plots_predictions(folder: Path) -> dict:
    return json.loads((folder / "pseudo" / "predictions.json").read_text())


def count_colour(path: Path, colour: str) -> int:
    """Pixels of a picture that have this colour, about."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - wanted).max(axis=2) < 12).sum())
