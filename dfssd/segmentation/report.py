"""``report.md`` of a segmentation run and its pictures, and the result in one sentence and one terminal table.

Everything is read from files of the run folder; no model is loaded and nothing is computed anew, so a report can be
written again at any time. The sister of :mod:`dfssd.report`, which tells about boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfssd.files import write_text
from dfssd.report import read_results, record_section
from dfssd.segmentation import pictures
from dfssd.segmentation.verdict import (
    CHANCE,
    METRICS,
    budget,
    headline,
    is_baseline,
    leak_warning,
    milliseconds,
    networks,
    part,
    taught,
    tested_images,
    whole,
)
from dfssd.tables import markdown_table, number, percent, picture, small
from dfssd.verdict import ROLES

_GRID = 32
"""Ultralytics' smallest unit of image sizes [px]."""

_LOSSES = {
    "ce": "cross entropy: each pixel is to get its own class.",
    "dice": "each defect class is to overlap the true one as a whole, so that small defects count, too.",
    "boundary": "probability of a defect far outside of its outline costs, inside it pays; below 0 where that goes "
    "well.",
    "kd": "distillation: how far the student's class probabilities are from the teacher's, pixel by pixel; 0 where "
    "they agree. Beyond the masks it teaches how sure one can be, and which classes look alike. A value that falls "
    "means that the student has come closer to the teacher.",
}
_SPLITS = {
    "official": "The parts are those of the data set itself; a part that it lacks was drawn from its training images.",
    "grouped": "The parts were drawn anew, all copies of an image on one side.",
    "given": "The parts were given as lists.",
}


def write_report(run_dir: Path) -> None:
    """Write ``report.md`` and ``plots/*.png`` of a run folder; what is missing there is told in words.

    Raises:
        UserError: ``results.json`` is missing or broken, or the folder cannot be written to.
    """
    results = read_results(run_dir)
    sections = [
        [f"# {run_dir.resolve().name}: what the run found", "", f"**{headline(results)}**", "", *_cautions(results)],
        _test_section(results, run_dir),
        _training_section(results, run_dir),
        _export_section(results),
        _usage_section(results),
        _data_section(results, run_dir),
        record_section(results),
    ]
    write_text(run_dir / "report.md", "\n\n".join("\n".join(lines).strip("\n") for lines in sections) + "\n")


def _cautions(results: Mapping[str, Any]) -> list[str]:
    """What to keep in mind before believing the headline."""
    data, leaks = part(results, "data"), part(results, "data", "leaks")
    seed, images = part(results, "run").get("seed"), tested_images(results)
    warning = leak_warning(results)
    lines = [f"> **Caution: {warning}.**", ""] if warning else []
    lines.append(
        f"- This is one run with one random seed ({'unknown' if seed is None else seed}). A difference in mIoU below "
        f"{CHANCE} counts as noise; repeat the run with seed=1 and seed=2 before you rely on a small one."
    )
    if images:
        new = "" if warning else ", which no training has seen"
        lines.append(f"- The test part has {images:,} images{new}. A class with few pixels there has an uncertain IoU.")
    if leaks.get("val"):
        lines.append(
            f"- {leaks['val']:,} of {number(data.get('val'))} validation images have a copy in training: the choice of "
            "the best epoch is less strict than it seems."
        )
    if not data.get("train_unlabeled", 1) and taught(part(results, "training")):
        lines.append("- There were no unlabelled images: the student learnt from the labels and from the teacher only.")
    teacher, baseline = (part(results, "test", role).get("miou_fg") for role in ("teacher", "baseline"))
    if teacher is not None and baseline is not None and teacher < baseline - CHANCE:
        lines.append(
            f"- **The teacher ({teacher:.3f}) is worse than the baseline ({baseline:.3f}), so it has little to "
            "teach**: train it longer (`teacher_epochs`), or give a better one."
        )
    if is_baseline(results):
        lines.append("- **`weights/student.pt` is the baseline**; the student that the teacher taught was not better.")
    for failure in part(results, "export").get("failures") or ():
        lines.append(f"- **The export check failed: {failure}.**")
    return lines


def _test_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    test, labels = part(results, "test"), networks(results)
    lines = ["## On the test images", ""]
    if not any(test.get(role) for role in labels):
        return [*lines, "The networks have not been tested."]
    rows = []
    for role in labels:
        if measured := part(test, role):
            weights = run_dir / "weights" / f"{role}.pt"
            size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else None
            own, student = (part(results, "latency", who).get("median_ms") for who in (role, "student"))
            ratio = f"{own / student:.2f}" if own and student else "-"
            cost = [whole(measured.get("parameters")), milliseconds(results, role), ratio, number(size)]
            rows.append([role, _model(results, role), *(number(measured.get(key)) for key in METRICS), *cost])
        else:
            missing = "not trained" if role == "baseline" else "no result"
            rows.append([role, _model(results, role), missing, *["-"] * 6])
    header = ["network", "model", "mIoU defects", "mIoU with background", "pixel accuracy", "parameters", "latency"]
    lines += markdown_table([*header, "times the student", "file"], rows)
    lines += [
        "",
        "- **teacher**: the wide network that gives the advice; **student**: the small one you deploy; **baseline**: "
        "the same small network, trained on the labelled images only"
        + (
            "; **compare**: other networks, trained on the labelled images only with the same number of batches."
            if part(results, "compare")
            else "."
        ),
        "- **IoU** (intersection over union) of a class: of all pixels that are this class in truth or in the drawing "
        "of the network, the share that is so in both. 1: drawn exactly; 0: never met; 0.5: for instance a third of it "
        "missed and as much drawn too much. Pixels of all test images are counted together.",
        "- **mIoU defects**: mean of the IoU over the defect classes. This is the number that counts. **mIoU with "
        "background** and **pixel accuracy** (share of the pixels with the right class) look better, because most "
        "pixels are background and easy.",
        *_latency_lines(results),
        "",
    ]
    lines += _class_lines(results, labels)
    drawn = pictures.class_iou(test, labels, run_dir / "plots" / "per_class_iou.png")
    lines += picture(drawn, "per_class_iou", "IoU of each class")
    wanted = [role for role in ("student", "student_trained", "teacher", "baseline") if role in labels]
    if is_baseline(results):
        wanted.remove("baseline")  # the same as the student
    columns: dict[str, str] = {role: labels[role] for role in wanted}
    names = [str(name) for name in part(results, "data").get("classes") or part(test, "student", "per_class")]
    shown = pictures.masks(results.get("pictures") or (), names, columns, run_dir, run_dir / "plots" / "masks.png")
    lines += picture(bool(shown), "masks", f"{shown} test images: the truth and what the networks drew")
    return lines if shown else [*lines, "", "No picture of masks: none was kept, or the files have moved."]


def _latency_lines(results: Mapping[str, Any]) -> list[str]:
    timed = {role: own for role, own in part(results, "latency").items() if own}
    if not timed:
        return ["- **latency** was not measured."]
    own = timed.get("student") or next(iter(timed.values()))
    sizes = {role: one.get("imgsz") for role, one in timed.items()}
    if len(set(sizes.values())) > 1:
        size = ", ".join(f"{role} {px}" for role, px in sizes.items())
    else:
        size = str(own.get("imgsz"))
    threads = f" with {own['threads']} thread{'' if own['threads'] == 1 else 's'}" if own.get("threads") else ""
    return [
        f"- **latency**: forward pass alone, one image at a time ({size} px), median of {own.get('rounds')} after a "
        f"warm-up (in brackets the middle half), on {own.get('device')}{threads}. All networks took turns in one run, "
        "so the ratios hold better than the milliseconds."
    ]


def _class_lines(results: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """Table of the IoU of each class."""
    tables = {role: own for role in labels if (own := part(results, "test", role, "per_class"))}
    names = list(tables.get("student") or next(iter(tables.values()), {}))
    if not names:
        return ["The IoU of each class is not recorded."]
    rows = []
    for name in names:
        found = {role: own.get(name) or {} for role, own in tables.items()}
        iou = {role: one.get("iou") for role, one in found.items()}
        student, baseline = iou.get("student"), iou.get("baseline")
        gain = "-" if student is None or baseline is None else f"{student - baseline:+.3f}"
        pixels = next((one["pixels"] for one in found.values() if one.get("pixels") is not None), None)
        rows.append([name, whole(pixels), *(number(iou[role]) for role in tables), gain])
    header = ["class", "true pixels", *(labels[role] for role in tables), "student - baseline"]
    return ["IoU of each class; - for one that is neither there nor drawn:", "", *markdown_table(header, rows)]


def _training_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    training, labels = part(results, "training"), networks(results)
    lines = ["## Training", ""]
    if not any(training.values()):
        return [*lines, "Nothing was trained, or no training has finished."]
    rows = []
    for role, label in labels.items():
        done = part(training, role)
        if not done:
            if role in ROLES:
                rows.append([label, "used as given" if role == "teacher" else "not trained", *["-"] * 6])
            continue
        rows.append(
            [
                label,
                f"{number(done.get('epochs_done'))} of {number(done.get('epochs'))}",
                whole(done.get("optimizer_steps")),
                number(done.get("batch")),
                number(done.get("imgsz")),
                f"{done.get('optimizer')}, lr0 {done.get('lr0')}",
                number(done.get("best_epoch")),
                number(done.get("val_score")),
            ]
        )
    header = ["network", "epochs", "optimizer steps", "batch", "image [px]", "optimizer", "best epoch"]
    lines += markdown_table([*header, "its val mIoU defects"], rows)
    if training.get("baseline") and taught(training):
        lines += ["", f"Student and baseline are compared {budget(results)}."]
    unequal = [role for role in part(results, "compare") if _differs(training, role)]
    if unequal:
        lines += ["", f"**Trained with another number of batches than the student: {', '.join(unequal)}.**"]
    if guard := part(results, "guard"):
        lines += ["", f"Handed over as `weights/student.pt`: the **{guard.get('chosen')}** ({guard.get('why')})."]
    drawn = pictures.validation(training, labels, run_dir / "plots" / "validation.png")
    lines += picture(drawn, "validation", "mIoU of the defects on the validation images over the training")
    return lines + _loss_lines(taught(training), run_dir)


def _loss_lines(student: Mapping[str, Any], run_dir: Path) -> list[str]:
    """What the student was asked for, and what came of it."""
    losses, selftest = part(student, "losses"), part(student, "selftest")
    if not losses:
        return ["", "No loss of the student is recorded."]
    rows = []
    for name, own in losses.items():
        values = [value for value in (own or {}).get("by_epoch") or () if value is not None]
        ends = [small(values[end]) if values else "-" for end in (0, -1)]
        share = percent(part(selftest, "grad_share").get(name))
        rows.append([name, _small((own or {}).get("weight")), *ends, share])
    lines = ["", "What the student was trained to make small, each loss with its weight:", ""]
    lines += markdown_table(["loss", "weight", "first epoch", "last epoch", "share of the gradient at the start"], rows)
    lines += ["", *(f"- **{name}**: {_LOSSES[name]}" for name in losses if name in _LOSSES)]
    if "teacher_unchanged" in selftest:
        lines += [
            "",
            f"Self-test: the losses {', '.join(selftest.get('alive') or ())} gave the student a gradient; the teacher "
            + ("stayed the same bit for bit." if selftest["teacher_unchanged"] else "**has changed**."),
        ]
    return lines + picture(pictures.losses(losses, run_dir / "plots" / "losses.png"), "losses", "Losses of the student")


def _export_section(results: Mapping[str, Any]) -> list[str]:
    export, tolerance = part(results, "export"), part(results, "export", "tolerance")
    lines = ["## The ONNX file", ""]
    if not export:
        return [*lines, "The student has not been exported."]
    if export.get("passed"):
        lines.append(
            f"`{export.get('file')}` ({export.get('size_mb')} MB) computes what `weights/student.pt` computes: "
            f"compared on {export.get('images')} test images, all differences are within tolerance."
        )
    else:
        lines.append("**The check failed; do not deploy the file before this is understood:**")
        lines += ["", *(f"- {failure}" for failure in export.get("failures") or ["no reason was recorded"])]
    torch, onnx = export.get("miou_fg_torch"), export.get("miou_fg_onnx")
    moved = None if torch is None or onnx is None else abs(torch - onnx)
    allowed, differing = _small(tolerance.get("score")), _small(export.get("differing_pixels"))
    if export.get("answers") == "ids":  # there is nothing softer to compare
        rows = [["share of the pixels with another class", differing, allowed]]
    else:
        rows = [
            ["probability of a class", small(export.get("max_score_diff")), allowed],
            ["logit of a class", small(export.get("max_logit_diff")), "-"],
            ["share of the pixels with another class", differing, "-"],
        ]
    rows += [
        ["mIoU of the defects", _small(moved), _small(tolerance.get("miou"))],
    ]
    lines += ["", *markdown_table(["largest difference", "found", "allowed"], rows)]
    for other in export.get("other") or ():
        told = f"could not be written: {other['error']}" if other.get("error") else f"`{other['file']}` (not compared)"
        lines += ["", f"- {other['format']}: {told}"]
    return lines


def _usage_section(results: Mapping[str, Any]) -> list[str]:
    shape = part(results, "export").get("input")
    sides = list(shape[-2:]) if shape else [taught(part(results, "training")).get("imgsz")]
    size = "" if None in sides else f" imgsz={','.join(str(side) for side in dict.fromkeys(sides))}"
    onnx = part(results, "export").get("file") or "weights/student.onnx"
    classes = [str(name) for name in part(results, "data").get("classes") or ()]
    ids = f" ({', '.join(f'{i} {name}' for i, name in enumerate(classes))})" if classes else ""
    height, width = (str(side) for side in sides[-2:]) if shape else ("H", "W")
    plain = part(results, "test", "student").get("plain")
    rounded = [side for side in sides if side and side % _GRID]
    lines = ["## How to use the files", ""]
    if part(results, "export").get("answers") == "ids":
        output = f"(1, {height}, {width}), the class of each pixel{ids}"
    else:
        output = (
            f"(1, {len(classes) or 'nc'}, {height}, {width}), a logit for each class at full resolution; the class of "
            f"a pixel is the one with the largest logit{ids}"
        )
    if shape:
        lines += [
            "The ONNX file needs none of our code. In this folder, with `pip install ultralytics onnxruntime`, this "
            "draws the defects into each image:",
            "",
            "```",
            f"yolo predict task=semantic model={onnx} source=FOLDER_OF_IMAGES{size}",
            "```",
            "",
            f"In a program of your own: the input is RGB in [0, 1], float, (1, 3, {height}, {width}); the output is "
            f"{output}. An image of another shape is scaled to fit, centred and filled up with grey 114; cut that off "
            "the output.",
            "",
        ]
    lines.append(
        "`weights/student.pt` is an Ultralytics checkpoint, which `ultralytics.YOLO()` loads"
        + ("." if plain else " where `dfssd` can be imported, too, since the network is a module of `dfssd`.")
    )
    if rounded:
        lines.append(
            f'Mind that `YOLO("weights/student.pt").predict()` rounds imgsz={rounded[0]} up to '
            f"{-(-rounded[0] // _GRID) * _GRID}, a multiple of {_GRID}"
            + ("; the ONNX file keeps its size." if shape else ".")
        )
    return [*lines, "Ultralytics and what is trained with it are under AGPL-3.0."]


def _data_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    data, leaks = part(results, "data"), part(results, "data", "leaks")
    lines = ["## Data", ""]
    if not data:
        return [*lines, "No data is recorded."]
    rows = [
        ["training, with masks", number(data.get("train_labeled"))],
        ["training, masks unknown or not used", number(data.get("train_unlabeled"))],
        ["validation (chooses the best epoch)", number(data.get("val"))],
        ["test (the numbers above)", number(data.get("test"))],
    ]
    lines += markdown_table(["part", "images"], rows)
    classes = [str(name) for name in data.get("classes") or ()]
    lines += ["", f"{len(classes)} classes with the background: {', '.join(classes)}."]
    if split := data.get("split"):
        lines.append(_SPLITS.get(split, f"The split is {split}."))
    if data.get("duplicates"):
        lines.append(f"{data['duplicates']:,} images repeat another one, rotated, mirrored or in part.")
    if left_out := data.get("left_out"):
        lines.append(f"{left_out:,} images without masks were left out, since they or a copy belong to val or test.")
    if skipped := data.get("skipped"):
        lines.append(f"{len(skipped)} unusable files were left out; results.json lists them.")
    if not leaks:
        lines.append("Whether test images have a copy in training is not recorded.")
    elif not leaks.get("test"):
        lines.append("No test image has a copy in training.")
    else:
        listed = " (all: `splits/test_leaks.txt`)" if (run_dir / "splits" / "test_leaks.txt").is_file() else ""
        told = f"**{leaks['test']:,} of {number(tested_images(results))} test images are not new**{listed}"
        named = [f"- {pair}" for pair in leaks.get("named") or ()]
        lines += ["", f"{told}, for example:", "", *named] if named else ["", f"{told}."]
    return lines


def _model(results: Mapping[str, Any], role: str) -> str:
    """The model of a network; baseline and student have the same."""
    models = part(results, "models")
    if role in part(results, "compare"):
        return str(results["compare"][role])
    return number(models.get("teacher" if role == "teacher" else "student"))


def _differs(training: Mapping[str, Any], role: str) -> bool:
    """Whether a network saw another number of batches than the student, as far as is known."""
    batches = [own.get("batches") for own in (part(training, role), taught(training))]
    return None not in batches and batches[0] != batches[1]


def _small(value: float | None) -> str:
    """A number of any size with two digits, - for nothing."""
    return "-" if value is None else small(value)
