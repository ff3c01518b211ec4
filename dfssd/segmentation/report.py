"""``report.md`` of a segmentation run and its pictures, and the result in one sentence and one terminal table.

Everything is read from files of the run folder; no model is loaded and nothing is computed anew, so a report can be
written again at any time. The sister of :mod:`dfssd.report`, which tells about boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dfssd.files import write_text
from dfssd.report import read_results, record_section
from dfssd.segmentation import pictures
from dfssd.tables import markdown_table, number, percent, picture, small

METRICS = ("miou_fg", "miou_all", "pixel_accuracy")
CHANCE = 0.01
"""Difference in mIoU that is not called a difference, since another seed alone can make it."""

_ALWAYS = ("teacher", "baseline", "student")
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


def headline(results: Mapping[str, Any]) -> str:
    """One sentence: did the teacher help, by how much, against what."""
    student, baseline, teacher = (_miou(results, role) for role in ("student", "baseline", "teacher"))
    helper = "The teacher and the unlabelled images" if _part(results, "data").get("train_unlabeled") else "The teacher"
    if student is None and baseline is not None:
        return (
            f"No student was tested; the network trained on the labels alone reaches {baseline:.3f} in mIoU of the "
            "defects."
        )
    if student is None:
        return "The student has no result on test images, so this run says nothing about whether the teacher helped."
    if _is_baseline(results):
        trained = _miou(results, "student_trained")
        beside = "" if trained is None else f" (the student that the teacher taught: {trained:.3f})"
        return (
            f"{helper} did not help, so the network handed over as the student is the baseline, trained on the labels "
            f"alone: mIoU of the defects {student:.3f}{beside}. Why: {results['guard'].get('why')}."
        )
    if baseline is None:
        beside = "" if teacher is None else f"; its teacher reaches {teacher:.3f}"
        return (
            f"The student reaches {student:.3f} in mIoU of the defects on the test images{beside}. Whether the teacher "
            "helped cannot be told, because no baseline was tested."
        )
    gain = round(student - baseline, 3)  # the difference that is shown is the one that is judged
    if max(student, baseline) < CHANCE:
        verdict = "Neither the student nor the baseline finds the defects yet; train longer or with more labels"
    elif gain >= CHANCE:
        verdict = f"{helper} helped: the student marks the defects better than the same network trained on labels alone"
    elif gain > -CHANCE:
        verdict = (
            f"{helper} made no difference beyond chance: the student is about as good as the same network trained on "
            "labels alone"
        )
    else:
        verdict = f"{helper} did harm: the student is worse than the same network trained on labels alone"
    return f"{verdict}. mIoU of the defects: {student:.3f} against {baseline:.3f} ({gain:+.3f}), {_budget(results)}."


def closing_table(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the test metrics and the cost of all networks, what warns of them, and :func:`closing_line`."""
    console = console or Console()
    table = Table("", title="test images", title_justify="left")
    for name in ("mIoU defects", "mIoU with background", "pixel accuracy", "parameters", "latency"):
        table.add_column(name, justify="right")
    for role, label in _networks(results).items():
        if measured := _part(results, "test", role):
            cost = (_whole(measured.get("parameters")), _milliseconds(results, role).partition(" (")[0])
            table.add_row(label, *(number(measured.get(key)) for key in METRICS), *cost)
    if table.row_count:
        console.print(table)
    told = [f"export FAILED: {failure}" for failure in _part(results, "export").get("failures") or ()]
    for line in [*told, *filter(None, [_leak_warning(results)])]:
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(closing_line(results), style="bold", markup=False, highlight=False, soft_wrap=True)


def closing_line(results: Mapping[str, Any]) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx), teacher 0.xxx`` in mIoU of the defects, with what there is."""
    student, baseline, teacher = (_miou(results, role) for role in ("student", "baseline", "teacher"))
    if student is None:
        return "student: no test result" if baseline is None else f"baseline {baseline:.3f} (no student)"
    beside = "" if teacher is None else f", teacher {teacher:.3f}"
    if _is_baseline(results):
        return f"student = baseline {student:.3f}{beside}"
    against = " (no baseline)" if baseline is None else f" vs baseline {baseline:.3f} ({student - baseline:+.3f})"
    return f"student {student:.3f}{against}{beside}"


def _cautions(results: Mapping[str, Any]) -> list[str]:
    """What to keep in mind before believing the headline."""
    data, leaks = _part(results, "data"), _part(results, "data", "leaks")
    seed, images = _part(results, "run").get("seed"), _test_images(results)
    warning = _leak_warning(results)
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
    if not data.get("train_unlabeled", 1) and _taught(_part(results, "training")):
        lines.append("- There were no unlabelled images: the student learnt from the labels and from the teacher only.")
    if _is_baseline(results):
        lines.append("- **`weights/student.pt` is the baseline**; the student that the teacher taught was not better.")
    for failure in _part(results, "export").get("failures") or ():
        lines.append(f"- **The export check failed: {failure}.**")
    return lines


def _leak_warning(results: Mapping[str, Any]) -> str:
    """What copies of test images in training do to the numbers; empty if there is none."""
    leaking = _part(results, "data", "leaks").get("test")
    if not leaking:
        return ""
    return (
        f"{leaking:,} of {number(_test_images(results))} test images have a copy in training (rotated, mirrored or in "
        "part): the numbers below flatter; run split=grouped for the true figure"
    )


def _test_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    test, labels = _part(results, "test"), _networks(results)
    lines = ["## On the test images", ""]
    if not any(test.get(role) for role in labels):
        return [*lines, "The networks have not been tested."]
    rows = []
    for role in labels:
        if measured := _part(test, role):
            weights = run_dir / "weights" / f"{role}.pt"
            size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else None
            own, student = (_part(results, "latency", who).get("median_ms") for who in (role, "student"))
            ratio = f"{own / student:.2f}" if own and student else "-"
            cost = [_whole(measured.get("parameters")), _milliseconds(results, role), ratio, number(size)]
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
            if _part(results, "compare")
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
    if _is_baseline(results):
        wanted.remove("baseline")  # the same as the student
    columns: dict[str, str] = {role: labels[role] for role in wanted}
    names = [str(name) for name in _part(results, "data").get("classes") or _part(test, "student", "per_class")]
    shown = pictures.masks(results.get("pictures") or (), names, columns, run_dir, run_dir / "plots" / "masks.png")
    lines += picture(bool(shown), "masks", f"{shown} test images: the truth and what the networks drew")
    return lines if shown else [*lines, "", "No picture of masks: none was kept, or the files have moved."]


def _latency_lines(results: Mapping[str, Any]) -> list[str]:
    timed = {role: own for role, own in _part(results, "latency").items() if own}
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
    tables = {role: own for role in labels if (own := _part(results, "test", role, "per_class"))}
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
        rows.append([name, _whole(pixels), *(number(iou[role]) for role in tables), gain])
    header = ["class", "true pixels", *(labels[role] for role in tables), "student - baseline"]
    return ["IoU of each class; - for one that is neither there nor drawn:", "", *markdown_table(header, rows)]


def _training_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    training, labels = _part(results, "training"), _networks(results)
    lines = ["## Training", ""]
    if not any(training.values()):
        return [*lines, "Nothing was trained, or no training has finished."]
    rows = []
    for role, label in labels.items():
        done = _part(training, role)
        if not done:
            if role in _ALWAYS:
                rows.append([label, "used as given" if role == "teacher" else "not trained", *["-"] * 6])
            continue
        rows.append(
            [
                label,
                f"{number(done.get('epochs_done'))} of {number(done.get('epochs'))}",
                _whole(done.get("optimizer_steps")),
                number(done.get("batch")),
                number(done.get("imgsz")),
                f"{done.get('optimizer')}, lr0 {done.get('lr0')}",
                number(done.get("best_epoch")),
                number(done.get("val_miou_fg")),
            ]
        )
    header = ["network", "epochs", "optimizer steps", "batch", "image [px]", "optimizer", "best epoch"]
    lines += markdown_table([*header, "its val mIoU defects"], rows)
    if training.get("baseline") and _taught(training):
        lines += ["", f"Student and baseline are compared {_budget(results)}."]
    unequal = [role for role in _part(results, "compare") if _differs(training, role)]
    if unequal:
        lines += ["", f"**Trained with another number of batches than the student: {', '.join(unequal)}.**"]
    if guard := _part(results, "guard"):
        lines += ["", f"Handed over as `weights/student.pt`: the **{guard.get('chosen')}** ({guard.get('why')})."]
    drawn = pictures.validation(training, labels, run_dir / "plots" / "validation.png")
    lines += picture(drawn, "validation", "mIoU of the defects on the validation images over the training")
    return lines + _loss_lines(_taught(training), run_dir)


def _loss_lines(student: Mapping[str, Any], run_dir: Path) -> list[str]:
    """What the student was asked for, and what came of it."""
    losses, selftest = _part(student, "losses"), _part(student, "selftest")
    if not losses:
        return ["", "No loss of the student is recorded."]
    rows = []
    for name, own in losses.items():
        values = [value for value in (own or {}).get("by_epoch") or () if value is not None]
        ends = [small(values[end]) if values else "-" for end in (0, -1)]
        share = percent(_part(selftest, "grad_share").get(name))
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
    export, tolerance = _part(results, "export"), _part(results, "export", "tolerance")
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
    shape = _part(results, "export").get("input")
    sides = list(shape[-2:]) if shape else [_taught(_part(results, "training")).get("imgsz")]
    size = "" if None in sides else f" imgsz={','.join(str(side) for side in dict.fromkeys(sides))}"
    onnx = _part(results, "export").get("file") or "weights/student.onnx"
    classes = [str(name) for name in _part(results, "data").get("classes") or ()]
    ids = f" ({', '.join(f'{i} {name}' for i, name in enumerate(classes))})" if classes else ""
    height, width = (str(side) for side in sides[-2:]) if shape else ("H", "W")
    plain = str(_part(results, "models").get("student")).endswith((".yaml", ".yml"))
    rounded = [side for side in sides if side and side % _GRID]
    lines = ["## How to use the files", ""]
    if _part(results, "export").get("answers") == "ids":
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
            f"{output}.",
            "",
        ]
    lines.append(
        "`weights/student.pt` is an Ultralytics checkpoint, which `ultralytics.YOLO()` loads"
        + ("." if plain else " where `dfssd` is installed, too, since the network is a module of `dfssd`.")
    )
    if rounded:
        lines.append(
            f'Mind that `YOLO("weights/student.pt").predict()` rounds imgsz={rounded[0]} up to '
            f"{-(-rounded[0] // _GRID) * _GRID}, a multiple of {_GRID}"
            + ("; the ONNX file keeps its size." if shape else ".")
        )
    return [*lines, "Ultralytics and what is trained with it are under AGPL-3.0."]


def _data_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    data, leaks = _part(results, "data"), _part(results, "data", "leaks")
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
        told = f"**{leaks['test']:,} of {number(_test_images(results))} test images are not new**{listed}"
        named = [f"- {pair}" for pair in leaks.get("named") or ()]
        lines += ["", f"{told}, for example:", "", *named] if named else ["", f"{told}."]
    return lines


def _part(results: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A section within sections; empty where one of them is absent or null."""
    for key in keys:
        results = results.get(key) or {}
    return results


def _networks(results: Mapping[str, Any]) -> dict[str, str]:
    """Role -> name for people, in the order of the tables."""
    trained = ["student_trained"] if _part(results, "test", "student_trained") else []
    labels = {role: role for role in [*_ALWAYS, *trained]}
    return {**labels, **{role: f"{role} ({model})" for role, model in _part(results, "compare").items()}}


def _model(results: Mapping[str, Any], role: str) -> str:
    """The model of a network; baseline and student have the same."""
    models = _part(results, "models")
    if role in _part(results, "compare"):
        return str(results["compare"][role])
    return number(models.get("teacher" if role == "teacher" else "student"))


def _miou(results: Mapping[str, Any], role: str) -> float | None:
    return _part(results, "test", role).get("miou_fg")


def _is_baseline(results: Mapping[str, Any]) -> bool:
    """Whether the guard has handed over the baseline as the student."""
    return _part(results, "guard").get("chosen") == "baseline"


def _taught(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """The training of the student by the teacher, whatever was handed over."""
    return _part(training, "student_trained") or _part(training, "student")


def _differs(training: Mapping[str, Any], role: str) -> bool:
    """Whether a network saw another number of batches than the student, as far as is known."""
    batches = [own.get("batches") for own in (_part(training, role), _taught(training))]
    return None not in batches and batches[0] != batches[1]


def _budget(results: Mapping[str, Any]) -> str:
    """Whether student and baseline were trained equally long, in words."""
    training = _part(results, "training")
    both = (_taught(training), _part(training, "baseline"))
    steps, batches = ([own.get(key) for own in both] for key in ("optimizer_steps", "batch"))
    if None in steps:
        return "after trainings of a length that was not recorded"
    if batches[0] != batches[1]:
        return f"after batches of {batches[0]} and {batches[1]} images, which is not fair"
    if steps[0] == steps[1]:
        return f"after the same number of optimizer steps ({steps[0]:,})"
    return f"after different numbers of optimizer steps ({steps[0]:,} against {steps[1]:,}), which is not fair"


def _test_images(results: Mapping[str, Any]) -> int | None:
    return _part(results, "data").get("test") or _part(results, "test", "student").get("images")


def _milliseconds(results: Mapping[str, Any], role: str) -> str:
    """Median latency of a network with its quartiles."""
    own = _part(results, "latency", role)
    if own.get("median_ms") is None:
        return "-"
    around = "" if None in (low := own.get("low_ms"), high := own.get("high_ms")) else f" ({low:.1f}-{high:.1f})"
    return f"{own['median_ms']:.1f} ms{around}"


def _whole(count: int | None) -> str:
    """A large whole number."""
    return "-" if count is None else f"{count:,}"


def _small(value: float | None) -> str:
    """A number of any size with two digits, - for nothing."""
    return "-" if value is None else small(value)
