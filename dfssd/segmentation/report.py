"""``report.md`` and ``report.html`` of a segmentation run, and their figures.

Everything is read from files of the run folder; no model is loaded and nothing is recomputed, so a report can be
rewritten at any time. The counterpart of :mod:`dfssd.detection.report`; what they share is in
:mod:`dfssd.reporting`.
"""

from __future__ import annotations

from pathlib import Path

from dfssd.evaluation.significance import CHANCE
from dfssd.files import write_text
from dfssd.reporting import sections
from dfssd.reporting.export import export_section
from dfssd.reporting.html import write_page
from dfssd.reporting.operating import operating_section
from dfssd.reporting.sections import Column, Drawn, Lines, figure_lines
from dfssd.reporting.tables import (
    UNKNOWN,
    format_count,
    format_number,
    format_share,
    format_significant,
    markdown_table,
)
from dfssd.reporting.words import baseline_is_selected
from dfssd.results.record import MaskRecord
from dfssd.results.sections import Loss, MaskScores, MaskSelfTest, MaskTraining, Role
from dfssd.segmentation.figures import draw
from dfssd.segmentation.run_files import SegmentationFiles
from dfssd.segmentation.usage import usage_section
from dfssd.segmentation.verdict import (
    METRICS,
    budget,
    headline,
    leak_warning,
    milliseconds,
    networks,
    score,
    student_training,
    tested_images,
)
from dfssd.trust.texts import in_markdown
from dfssd.wording import are, counted, have

_LOSSES = {
    "ce": "cross entropy: each pixel should get its own class.",
    "dice": "each defect class should overlap the true one as a whole, so that small defects count, too.",
    "boundary": "penalizes defect probability far outside the true outline and rewards it inside; negative where that "
    "works well.",
    "kd": "distillation: how far the student's class probabilities are from the teacher's, pixel by pixel; 0 where "
    "they agree. Beyond the masks it conveys how certain a pixel is, and which classes look alike. A falling value "
    "means that the student has come closer to the teacher.",
}
_SPLITS = {
    "official": "The split is that of the data set itself; a part that it lacks was drawn from its training images.",
    "grouped": "The split was drawn anew, with all copies of an image on one side.",
    "given": "The split was given as lists of images.",
}
_IMAGE_SIZE: Column = ("image [px]", lambda _, done: str(done.imgsz))


def write_report(run_dir: Path) -> None:
    """Write ``report.md``, ``report.html``, and ``plots`` of a run folder; missing parts are described in prose.

    Raises:
        UserError: ``results.json`` is missing or broken, or the folder cannot be written to.
    """
    run = SegmentationFiles.read(run_dir)
    text = words(run, draw(run))
    write_text(run_dir / "report.md", text)
    write_page(text, run_dir)


def words(run: SegmentationFiles, drawn: Drawn) -> str:
    """The text of the report.

    Args:
        run: The files of the run.
        drawn: The figures that the report can show.
    """
    record = run.record
    classes = "classes with the background"
    return sections.join_sections(
        [
            sections.top_section(run.folder.resolve().name, headline(record), _cautions(record)),
            _test_section(run, drawn),
            *_operating_sections(record),
            _training_section(record, drawn),
            export_section(record, run.weights_mb.get("student")),
            usage_section(record),
            sections.data_section(record.data, truth="masks", classes=classes, notes=_data_notes(run)),
            sections.record_section(record),
        ]
    )


def _operating_sections(record: MaskRecord) -> list[Lines]:
    """What the thresholds do to whole images; no section in a record of an earlier version."""
    lines = operating_section(record, networks(record), "share of the image's area")
    return [lines] if lines else []


def _cautions(record: MaskRecord) -> Lines:
    """What to keep in mind before believing the headline."""
    warning = leak_warning(record)
    lines = [f"> **Caution: {warning}.**", ""] if warning else []
    lines.append(sections.seed_caution(record, f"A difference in mIoU below {CHANCE} counts as noise"))
    if images := tested_images(record):
        new = "" if warning else ", none of them used in training"
        lines.append(
            f"- The test set has {counted(images, 'image')}{new}. The IoU of a class with few pixels there is "
            "uncertain."
        )
    if record.data:
        lines += _data_cautions(record)
    teacher, baseline = (score(record, role) for role in ("teacher", "baseline"))
    if teacher is not None and baseline is not None and teacher < baseline - CHANCE:
        lines.append(
            f"- **The teacher ({teacher:.3f}) is worse than the baseline ({baseline:.3f}), so it has little to "
            "teach**: train it longer (`teacher_epochs`), or use a better one."
        )
    if baseline_is_selected(record):
        lines.append("- **`weights/student.pt` is the baseline**; the distilled student was not better.")
    return lines + sections.export_cautions(record)


def _data_cautions(record: MaskRecord) -> Lines:
    """How the data affects the numbers, apart from copies of test images."""
    data, lines = record.data, []
    if data and data.leaks.val:
        lines.append(
            f"- {data.leaks.val:,} of {counted(data.val, 'validation image')} {have(data.leaks.val)} a copy in "
            "training, so the validation scores, which choose the best epoch, are too optimistic."
        )
    if data and not data.train_unlabeled and student_training(record):
        lines.append("- There were no unlabeled images: the student learned from the labels and the teacher only.")
    return lines


def _test_section(run: SegmentationFiles, drawn: Drawn) -> Lines:
    record, labels = run.record, networks(run.record)
    lines = ["## On the test images", ""]
    if not any(role in record.test for role in labels):
        return [*lines, "The networks have not been tested."]
    names = {role: [role, _model(record, role)] for role in labels}
    cells = {role: _cells(run, role, record.test[role]) for role in labels if role in record.test}
    header = ["network", "model", "mIoU defects", "mIoU with background", "pixel accuracy", "parameters", "latency"]
    rows = sections.network_rows(names, cells, 7)
    lines += markdown_table([*header, "times the student", "file"], rows)
    lines += sections.difference_lines(record, labels, {"miou_fg": "mIoU defects", "miou_all": "mIoU with background"})
    compared = "; **compare**: other networks, trained on the labeled images only with the same number of batches."
    lines += [
        "",
        "- **teacher**: the wide network that guides the training; **student**: the small one you deploy; "
        "**baseline**: the same small network, trained on the labeled images only"
        + (compared if record.compare else "."),
        "- **IoU** (intersection over union) of a class: of all pixels that are this class in the truth or in the "
        "prediction, the share that is in both. 1: exact; 0: no overlap; 0.5: for instance, a third of the class "
        "missed and as much marked in excess. Pixels of all test images are counted together.",
        "- **mIoU defects**: mean of the IoU over the defect classes. This is the number that counts. **mIoU with "
        "background** and **pixel accuracy** (share of the pixels with the right class) look better, because most "
        "pixels are background and easy.",
        *_latency_lines(record),
        "",
        *_class_lines(record, labels),
        *figure_lines(drawn, "per_class_iou", "IoU of each class"),
        *figure_lines(
            drawn,
            "masks",
            f"{counted(drawn.get('masks', 0), 'test image')}, the worst ones of the student first: truth and "
            "predictions",
        ),
    ]
    if not drawn.get("masks"):
        lines += ["", "No picture of masks: none was kept, or the files have been moved."]
    return lines


def _cells(run: SegmentationFiles, role: Role, measured: MaskScores) -> Lines:
    """Scores and cost of a network."""
    own, student = (run.record.latency.get(who) for who in (role, "student"))
    ratio = f"{own.median_ms / student.median_ms:.2f}" if own and student and student.median_ms else UNKNOWN
    scores = [format_number(getattr(measured, key)) for key in METRICS]
    cost = [format_count(measured.parameters), milliseconds(run.record, role), ratio]
    return [*scores, *cost, sections.file_size(run.weights_mb, role)]


def _latency_lines(record: MaskRecord) -> Lines:
    if not record.latency:
        return ["- **latency** was not measured."]
    own = record.latency.get("student") or next(iter(record.latency.values()))
    sizes = {role: one.imgsz for role, one in record.latency.items()}
    size = ", ".join(f"{role} {px}" for role, px in sizes.items()) if len(set(sizes.values())) > 1 else str(own.imgsz)
    threads = f" with {own.threads} thread{'' if own.threads == 1 else 's'}" if own.threads else ""
    return [
        f"- **latency**: forward pass alone, one image at a time ({size} px), median of {own.rounds} after a "
        f"warm-up (in brackets the middle half), on {own.device}{threads}. All networks took turns in one run, "
        "so the ratios are more reliable than the milliseconds."
    ]


def _class_lines(record: MaskRecord, labels: dict[Role, str]) -> Lines:
    """Table of the IoU of each class."""
    tables = {role: record.test[role].per_class for role in labels if role in record.test}
    order = list(tables.get("student") or next(iter(tables.values())))
    scores = {role: {name: own.iou for name, own in table.items()} for role, table in tables.items()}
    pixels = {name: format_count(own.pixels) for table in tables.values() for name, own in table.items()}
    header = ["class", "true pixels", *(labels[role] for role in tables), "student - baseline"]
    rows = sections.class_rows(scores, pixels, order)
    return ["IoU of each class; - for one that is in neither truth nor prediction:", "", *markdown_table(header, rows)]


def _training_section(record: MaskRecord, drawn: Drawn) -> Lines:
    lines = ["## Training", ""]
    if not record.training:
        return [*lines, "Nothing was trained, or no training has finished."]
    columns = [sections.EPOCHS, sections.OPTIMIZER_STEPS, sections.BATCH, _IMAGE_SIZE, sections.OPTIMIZER]
    columns += [sections.BEST_EPOCH, sections.val_score("its val mIoU defects")]
    lines += sections.training_table(networks(record), record.training, columns)
    student = student_training(record)
    if student and "baseline" in record.training:
        lines += ["", f"Student and baseline are compared {budget(record)}."]
    if unequal := _other_budgets(record, student):
        lines += ["", f"**Trained with a different number of batches than the student: {', '.join(unequal)}.**"]
    lines += sections.selected_network(record.guard)
    lines += sections.self_training(record)
    lines += figure_lines(drawn, "validation", "mIoU of the defects on the validation images over the training")
    if not student or not student.losses:
        return [*lines, "", "No loss of the student is recorded."]
    lines += [*_loss_lines(student), *_selftest_lines(student.selftest)]
    return lines + figure_lines(drawn, "losses", "Losses of the student")


def _other_budgets(record: MaskRecord, student: MaskTraining | None) -> list[Role]:
    """Networks of ``compare`` that were trained with a different number of batches than the student."""
    if not student:
        return []
    trained = {role: record.training.get(role) for role in record.compare}
    return [role for role, done in trained.items() if done and done.batches != student.batches]


def _loss_lines(student: MaskTraining) -> Lines:
    """The losses of the student, and how they fell."""
    lines = ["", "The losses that the student was trained to minimize, each times its weight:", ""]
    rows = [_loss_row(name, own, student.selftest) for name, own in student.losses.items()]
    lines += markdown_table(["loss", "weight", "first epoch", "last epoch", "share of the gradient at the start"], rows)
    return [*lines, "", *(f"- **{name}**: {_LOSSES[name]}" for name in student.losses if name in _LOSSES)]


def _loss_row(name: str, loss: Loss, selftest: MaskSelfTest) -> Lines:
    ends = [format_significant(loss.by_epoch[end]) for end in (0, -1)] if loss.by_epoch else [UNKNOWN, UNKNOWN]
    return [name, format_significant(loss.weight), *ends, format_share(selftest.grad_share.get(name))]


def _selftest_lines(selftest: MaskSelfTest) -> Lines:
    if selftest.teacher_unchanged is None:
        return []
    return [
        "",
        f"Self-test: the losses {', '.join(selftest.alive)} gave the student a gradient; the teacher "
        + ("is unchanged, bit for bit." if selftest.teacher_unchanged else "**has changed**."),
    ]


def _data_notes(run: SegmentationFiles) -> Lines:
    """Where the split comes from, and lines about copies, files left out and leaks."""
    data = run.record.data
    if not data:
        return []
    notes = [_SPLITS[data.split]]
    if data.duplicates:
        kinds = "rotated, mirrored, or partial"
        notes.append(
            f"{counted(data.duplicates, f'image is a {kinds} copy', f'images are {kinds} copies')} of another."
        )
    if data.left_out:
        why = "they belong to val or test, or are copies of images that do"
        notes.append(
            f"{counted(data.left_out, 'image without masks was', 'images without masks were')} left out, since {why}."
        )
    if data.skipped:
        notes.append(
            f"{counted(len(data.skipped), 'unusable file was', 'unusable files were')} left out: see results.json."
        )
    if data.warnings:
        notes += ["", "The import found:", "", *(f"- {in_markdown(warning)}." for warning in data.warnings)]
    if not data.leaks.test:
        return [*notes, "", "No test image has a copy in training."]
    listed = " (all: `splits/test_leaks.txt`)" if run.lists_leaks else ""
    leaks = f"**{data.leaks.test:,} of {counted(data.test, 'test image')} {are(data.leaks.test)} not new**{listed}"
    named = [f"- {in_markdown(pair)}" for pair in data.leaks.named]
    return [*notes, "", *([f"{leaks}, for example:", "", *named] if named else [f"{leaks}."])]


def _model(record: MaskRecord, role: Role) -> str:
    """The model of a network; baseline and student have the same."""
    if role in record.compare:
        return record.compare[role]
    return format_number(record.models.get("teacher" if role == "teacher" else "student"))
