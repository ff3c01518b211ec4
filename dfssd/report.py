"""``report.md`` and its pictures: what the run found, for someone who runs a plant.

Everything is read from files of the run folder (JSON, YAML, CSV); no model is loaded and nothing is computed anew, so
a report can be written again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfssd import plots
from dfssd.errors import UserError
from dfssd.files import read_yaml, write_text
from dfssd.runs.record import upgraded
from dfssd.tables import markdown_table, minutes, number, percent, picture, read_csv, read_json, small
from dfssd.verdict import METRICS, ROLES, closing_table, headline, noise

__all__ = ["closing_table", "write_report"]


def write_report(run_dir: Path) -> None:
    """Write ``report.md`` and ``plots/*.png`` of a run folder; what is missing there is told in words.

    Raises:
        UserError: ``results.json`` is missing or broken, or the folder cannot be written to.
    """
    results = read_results(run_dir)
    sections = [
        [f"# {run_dir.resolve().name}: what the run found", "", f"**{headline(results)}**", "", *_cautions(results)],
        _test_section(results, run_dir),
        _pseudo_section(results, run_dir),
        _training_section(results, run_dir),
        _export_section(results),
        _usage_section(results, run_dir),
        _data_section(results),
        record_section(results),
    ]
    write_text(run_dir / "report.md", "\n\n".join("\n".join(lines).strip("\n") for lines in sections) + "\n")


def _cautions(results: Mapping[str, Any]) -> list[str]:
    """What to keep in mind before believing the headline."""
    test, export = results.get("test") or {}, results.get("export") or {}
    student = test.get("student") or {}
    seed = (results.get("run") or {}).get("seed")
    lines = [
        f"- This is one run with one random seed ({'unknown' if seed is None else seed}). Differences up to about "
        f"{noise(results):.3f} can be chance; repeat the run with seed=1 and seed=2 before you rely on a small one."
    ]
    if student:
        lines.append(
            f"- The test part has {student.get('images')} images with {student.get('instances')} defects, which no "
            "training has seen. A class with fewer than about 30 defects there has an uncertain value."
        )
    if not (results.get("data") or {}).get("train_unlabeled", 1):
        learnt = "the labels" if results.get("incremental") else "the labels and from the teacher"
        lines.append(f"- There were no unlabelled images: the student learnt from {learnt} only.")
    guard = results.get("guard") or {}
    for event in guard.get("events") or ():
        done = f"cut back to {event['factor']:g}" if event["factor"] else "switched off"
        lines.append(
            f"- **After epoch {event['epoch']} the weight of pseudo-labels and distillation was {done}**, because "
            f"{event['why']}."
        )
    shown = (results.get("distill") or {}).get("starved")
    if starved := (results.get("pseudo_labels") or {}).get("starved") if shown is None else shown:
        lines.append(
            f"- No pseudo-label was accepted of: {', '.join(starved)}. The unlabelled images teach nothing about "
            + ("them." if len(starved) > 1 else "it.")
        )
    for failure in export.get("failures") or ():
        lines.append(f"- **The export check failed: {failure}.**")
    return lines


def _test_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    test = results.get("test") or {}
    lines = ["## On the test images", ""]
    if not any(test.get(role) for role in ROLES):
        return [*lines, "The networks have not been tested."]
    rows = []
    for role in ROLES:
        if measured := test.get(role):
            weights = run_dir / "weights" / f"{role}.pt"
            size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else None
            rows.append([role, *(number(measured.get(key)) for key in METRICS), number(size)])
        else:
            rows.append([role, *["not trained" if role == "baseline" else "no result"], *["-"] * 4])
    lines += markdown_table(["network", "mAP50-95", "mAP50", "precision", "recall", "file"], rows)
    lines += [
        "",
        "- **teacher**: the network as it was before, with untrained rows for the new classes; **student**: what it "
        "has become, the network of the last epoch."
        if results.get("incremental")
        else "- **teacher**: the large network that gives the advice; **student**: the small one you deploy; "
        "**baseline**: the same small network, trained on the labelled images only.",
        "- **recall**: share of the true defects that were found; **precision**: share of the alarms that were right; "
        "both at the score threshold where they are best balanced"
        + (f" (student: {number((test.get('student') or {}).get('confidence'), 2)})." if test.get("student") else "."),
        "- **mAP50**: precision averaged over all thresholds and classes, 0 to 1, a box counts if it overlaps the true "
        "one by half; **mAP50-95**: the same, averaged over stricter and stricter overlaps. Higher is better.",
        "",
    ]
    per_class = {role: (test.get(role) or {}).get("per_class") or {} for role in ROLES}
    names = list(per_class["student"] or per_class["baseline"] or per_class["teacher"])
    rows = []
    for name in names:
        values = {role: (per_class[role].get(name) or {}).get("ap50_95") for role in ROLES}
        count = next(((per_class[r].get(name) or {}).get("instances") for r in ROLES if per_class[r].get(name)), None)
        student, baseline = values["student"], values["baseline"]
        gain = None if student is None or baseline is None else student - baseline
        shown = [number(values[role]) for role in ROLES]
        rows.append([name, number(count), *shown, "-" if gain is None else f"{gain:+.3f}"])
    lines += ["AP50-95 of each class; - where the test images have no such defect:", ""]
    lines += markdown_table(["class", "defects", *ROLES, "student - baseline"], rows)
    lines += picture(
        plots.class_precision(test, run_dir / "plots" / "per_class_ap.png"), "per_class_ap", "AP per class"
    )
    drawn = plots.precision_recall(test, run_dir / "plots" / "pr_curves.png")
    return lines + picture(drawn, "pr_curves", "Precision over recall: further up and to the right is better")


def _pseudo_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    section = results.get("pseudo_labels")
    lines = ["## Pseudo-labels: what the teacher saw in the unlabelled images", ""]
    if not section:
        health = _health_lines(results, run_dir)
        if not health:
            return [*lines, "There are none: the run had no unlabelled images, or trained no student on them."]
        return [
            *lines,
            "None were made before the training; the student's own moving average was its teacher.",
            *health,
        ]
    predictions = read_json(run_dir / "pseudo" / "predictions.json")
    low = (predictions.get("rule") or {}).get("tau_low")
    low_text = "the lower limit" if low is None else f"{low:g}"
    lines += [
        f"The teacher marked {section['boxes']:,} boxes in {section['images']:,} images; "
        f"{section['images_without_accepted']:,} images got no accepted box." + _settings(section),
        "",
        f"- **accepted** ({section['accepted']:,}): score at or above the threshold of its class. The student is "
        "trained on it; by default a box counts by its score.",
        f"- **ignored** ({section['ignored']:,}): score between {low_text} and that threshold. It may be a defect, so "
        "the student is taught neither that it is one nor that it is not.",
        f"- **background**: everything else, scores below {low_text}. The student is taught that nothing is there, "
        "except in images without any accepted box.",
        "",
    ]
    quality = section.get("quality")
    header = ["class", "threshold", "accepted", "ignored", *(["precision", "recall"] if quality else [])]
    rows = []
    for name, counts in (section.get("per_class") or {}).items():
        row = [name, number((section.get("thresholds") or {}).get(name)), counts["accepted"], counts["ignored"]]
        if quality:
            known = (quality.get("per_class") or {}).get(name) or {}
            row += [number(known.get("precision")), number(known.get("recall"))]
        rows.append(row)
    lines += markdown_table(header, rows)
    if quality and section["accepted"]:
        lines += [
            "",
            f"True labels of unlabelled images were at hand and were used for this check only: of the accepted boxes, "
            f"{percent(quality.get('precision'))} are right, and they cover {percent(quality.get('recall'))} of the "
            f"true defects (overlap at least {quality.get('iou')}).",
        ]
    elif not section["accepted"]:
        lines += ["", "The student has learnt from no pseudo-label: a better teacher would find more."]
    else:
        lines += ["", "How many of them are right is not known, because these images have no true labels."]
    drawn = plots.pseudo_label_counts(section, run_dir / "plots" / "pseudo_labels.png")
    lines += picture(drawn, "pseudo_labels", "Pseudo-labels per class")
    shown = plots.gallery(predictions, run_dir / "plots" / "gallery.png") if predictions.get("images") else 0
    lines += picture(bool(shown), "gallery", f"{shown} unlabelled images as the teacher sees them")
    if not shown:
        lines += ["", "No picture of them: there is no box to show, or the images have moved."]
    return lines + _health_lines(results, run_dir)


def _settings(section: Mapping[str, Any]) -> str:
    """How the labels were made, where it differs from one teacher with one look."""
    settings = section.get("settings") or {}
    parts = []
    if settings.get("teachers", 1) > 1:
        parts.append(f"{settings['teachers']} teachers")
    if settings.get("tta"):
        parts.append("flipped and resized copies")
    text = f" Boxes of {' and '.join(parts)} were fused." if parts else ""
    if (aim := settings.get("precision")) is not None:
        text += f" Thresholds aim for a precision of {aim:g} on the validation images."
    return text


def _health_lines(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    """What the student was shown of the unlabelled images, epoch by epoch."""
    health = (results.get("distill") or {}).get("health")
    if not health:
        return []
    keys = (
        ("accepted", "accepted boxes per image"),
        ("ignored", "ignored boxes per image"),
        ("score", "mean score of the accepted"),
        ("agreement", "student agrees with the teacher"),
        ("precision", "precision (truth known)"),
        ("recall", "recall (truth known)"),
    )
    shown = [epoch for epoch in health if epoch.get("accepted") is not None] or health  # fewer if the guard said so
    rows = [[label, *(number(epoch.get(key)) for epoch in (shown[0], shown[-1]))] for key, label in keys]
    lines = ["", "What the student was shown in training, over all unlabelled images of an epoch:", ""]
    lines += markdown_table(["", "first epoch", "last epoch"], rows)
    drawn = plots.health(health, run_dir / "plots" / "health.png")
    return lines + picture(drawn, "health", "Pseudo-labels over the epochs")


def _training_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    training = results.get("training") or {}
    lines = ["## Training", ""]
    if not training:
        return [*lines, "Nothing was trained, or no training has finished."]
    curves = {role: read_csv(run_dir / "train" / role / "results.csv") for role in ROLES}
    seconds = {stage["name"]: stage.get("seconds") for stage in results.get("stages") or ()}
    rows, progress = [], {}
    for role in ROLES:
        done = training.get(role)
        if not done:
            rows.append([role, "used as given" if role == "teacher" else "not trained", *["-"] * 6])
            continue
        epochs, steps = done.get("epochs_done") or 0, done.get("optimizer_steps")
        values = curves[role].get("metrics/mAP50-95(B)") or []
        values = values or done.get("val_score_by_epoch") or []  # a baseline of another run has no curve here
        if values and epochs and steps:
            progress[role] = ([steps * (i + 1) / epochs for i in range(len(values))], values)
        rows.append(
            [
                role,
                f"{epochs} of {done.get('epochs')}",
                "-" if steps is None else f"{steps:,}",
                number(done.get("batch")),
                f"{done.get('optimizer')}, lr0 {done.get('lr0')}",
                number(done.get("best_epoch")),
                number(done.get("val_score")),
                minutes(done.get("seconds", seconds.get(role))),
            ]
        )
    header = ["network", "epochs", "optimizer steps", "batch", "optimizer", "best epoch", "its val mAP50-95", "time"]
    lines += markdown_table(header, rows)
    if guard := results.get("guard"):
        lines += ["", f"Handed over as `weights/student.pt`: the **{guard['chosen']}** ({guard['why']})."]
    if rounds := results.get("self_training"):
        reached = ", ".join(f"{value:.3f}" for value in rounds["val_score"])
        lines += [
            "",
            f"The teacher learnt from its own pseudo-labels; val mAP50-95 before and after each round: {reached}; "
            f"taken: {'the first' if not rounds['taken'] else 'round ' + str(rounds['taken'])}.",
        ]
    lines += picture(plots.validation(progress, run_dir / "plots" / "validation.png"), "validation", "Progress")
    terms = (results.get("distill") or {}).get("terms") or {}
    if terms:
        rows = [
            [
                name,
                number(t.get("weight")),
                *(number(t.get(k), 4) for k in ("first", "last")),
                percent(t.get("grad_share")),
            ]
            for name, t in terms.items()
        ]
        lines += ["", "What the student learns from the teacher besides the boxes (distillation terms):", ""]
        lines += markdown_table(["term", "weight", "first epoch", "last epoch", "share of the gradient"], rows)
        moved = any(
            len(set(t.get("weight_by_epoch") or ())) > 1 or t.get("schedule") != "constant" for t in terms.values()
        )
        lines += [
            "",
            "The values include weight and schedule, which moved (the weights shown are the last ones), so a falling "
            "value alone says nothing."
            if moved or (results.get("guard") or {}).get("events")
            else "A term that falls means that the student has come closer to the teacher in that respect.",
        ]
    else:
        lines += ["", "No distillation term is recorded."]
    drawn = plots.loss_terms(curves["student"], curves["baseline"], run_dir / "plots" / "loss_terms.png")
    return lines + picture(drawn, "loss_terms", "Losses of the student (and of the baseline) over the epochs")


def _export_section(results: Mapping[str, Any]) -> list[str]:
    export = results.get("export")
    lines = ["## The ONNX file", ""]
    if not export:
        return [*lines, "The student has not been exported."]
    tolerance = export.get("tolerance") or {}
    maps = (export.get("map50_95_torch"), export.get("map50_95_onnx"))
    map_diff = None if None in maps else abs(maps[0] - maps[1])
    if export.get("passed"):
        lines.append(
            f"`{export['file']}` ({export.get('size_mb')} MB) computes what `weights/student.pt` computes: compared on "
            f"{export.get('images')} test images, all differences are within tolerance."
        )
    else:
        lines.append("**The check failed; do not deploy the file before this is understood:**")
        lines += ["", *(f"- {failure}" for failure in export.get("failures") or ["no reason was recorded"])]
    lines += [""]
    lines += markdown_table(
        ["largest difference", "found", "allowed"],
        [
            ["box edge [px]", small(export.get("max_box_diff_px")), number(tolerance.get("box_px"))],
            ["class score", small(export.get("max_score_diff")), number(tolerance.get("score"))],
            ["mAP50-95", small(map_diff), number(tolerance.get("map50_95"))],
        ],
    )
    for other in export.get("other") or ():
        told = f"could not be written: {other['error']}" if other.get("error") else f"`{other['file']}` (not compared)"
        lines += ["", f"- {other['format']}: {told}"]
    return lines


def _usage_section(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    run = read_yaml(run_dir / "run.yaml") if (run_dir / "run.yaml").is_file() else {}
    shape = (results.get("export") or {}).get("input")
    imgsz = shape[-1] if shape else (run.get("train") or {}).get("imgsz", 640)
    confidence = max(0.01, ((results.get("test") or {}).get("student") or {}).get("confidence") or 0.25)
    return [
        "## How to use the files",
        "",
        "The files are plain Ultralytics and ONNX; they do not need this program. In this folder, with `pip install "
        "ultralytics onnxruntime`:",
        "",
        "```",
        f"yolo predict model=weights/student.pt source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo predict model=weights/student.onnx source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo val model=weights/student.pt data=splits/data.yaml split=test imgsz={imgsz}",
        f"yolo export model=weights/student.pt format=openvino imgsz={imgsz}   # or engine, coreml, ncnn, ...",
        "```",
        "",
        "`conf` is the score from which a box is reported: lower finds more defects and raises more false alarms. The "
        "value above balances both on the test images. Ultralytics and what is trained with it are under AGPL-3.0.",
    ]


def _data_section(results: Mapping[str, Any]) -> list[str]:
    data = results.get("data") or {}
    lines = ["## Data", ""]
    if not data:
        return [*lines, "No data is recorded."]
    rows = [
        ["training, with labels", number(data.get("train_labeled"))],
        ["training, labels unknown or not used", number(data.get("train_unlabeled"))],
        ["validation (chooses the best epoch)", number(data.get("val"))],
        ["test (the numbers above)", number(data.get("test"))],
    ]
    lines += markdown_table(["part", "images"], rows)
    classes = [str(name) for name in data.get("classes") or ()]
    lines += ["", f"{len(classes)} classes: {', '.join(classes)}."]
    if data.get("duplicates"):
        lines.append(f"{data['duplicates']} images repeat another one; repeats were kept on one side of the split.")
    if skipped := data.get("skipped"):
        lines.append(f"{len(skipped)} unreadable files were left out; results.json lists them.")
    return lines


def record_section(results: Mapping[str, Any]) -> list[str]:
    """Lines about the stages, the command and the versions of a run."""
    run = results.get("run") or {}
    rows = [[s["name"], s.get("status"), minutes(s.get("seconds"))] for s in results.get("stages") or ()]
    lines = ["## Record", "", *markdown_table(["stage", "status", "time"], rows), ""]
    if run.get("command"):
        lines += ["```", str(run["command"]), "```", ""]
    facts = [f"{key} {value}" for key, value in run.items() if key != "command" and value is not None]
    return [*lines, ", ".join(facts)]


def read_results(run_dir: Path) -> dict[str, Any]:
    """Content of ``results.json``.

    Raises:
        UserError: The file is missing or broken.
    """
    path = run_dir / "results.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder of a run (project/name)")
    results = read_json(path)
    if not results:
        raise UserError(f"{path} is not a JSON object: the run's record is broken; resume the run to write it again")
    return results if "schema" in results else upgraded(results)
