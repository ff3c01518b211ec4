"""``report.md``, ``report.html``, and their figures: what the run found, for someone who runs a plant.

Everything is read from files of the run folder (JSON, YAML, CSV); no model is loaded and nothing is recomputed, so a
report can be rewritten at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dfssd.detection.advice import advice_section
from dfssd.detection.error_section import error_section
from dfssd.detection.example_section import example_section
from dfssd.detection.figures import draw
from dfssd.detection.run_files import DetectionFiles
from dfssd.detection.usage import usage_section
from dfssd.detection.verdict import METRICS, headline, noise
from dfssd.files import write_text
from dfssd.reporting import sections
from dfssd.reporting.export import export_section
from dfssd.reporting.html import write_page
from dfssd.reporting.operating import operating_section
from dfssd.reporting.sections import Column, Drawn, Lines, figure_lines
from dfssd.reporting.tables import (
    UNKNOWN,
    format_duration,
    format_number,
    format_share,
    markdown_table,
)
from dfssd.reporting.words import ROLES, named
from dfssd.results.record import BoxRecord
from dfssd.results.sections import (
    SCRATCH,
    BoxScores,
    LabelSettings,
    PseudoLabels,
    Quality,
    Role,
    Term,
    Training,
)
from dfssd.trust.texts import in_markdown
from dfssd.wording import counted

_HEALTH = {
    "accepted": "accepted boxes per image",
    "ignored": "ignored areas per image",
    "score": "mean score of the accepted",
    "agreement": "student agrees with the teacher",
    "precision": "precision (truth known)",
    "recall": "recall (truth known)",
}


def write_report(run_dir: Path) -> None:
    """Write ``report.md``, ``report.html``, and ``plots`` of a run folder; missing parts are described in prose.

    Raises:
        UserError: ``results.json`` is missing or broken, or the folder cannot be written to.
    """
    run = DetectionFiles.read(run_dir)
    text = words(run, draw(run))
    write_text(run_dir / "report.md", text)
    write_page(text, run_dir)


def words(run: DetectionFiles, drawn: Drawn) -> str:
    """The text of the report.

    Args:
        run: The files of the run.
        drawn: The figures that the report can show.
    """
    record = run.record
    return sections.join_sections(
        [
            sections.top_section(run.folder.resolve().name, headline(record), _cautions(record)),
            _test_section(run, drawn),
            *_operating_sections(record, drawn),
            *_optional(example_section(run.examples, drawn)),
            *_optional(advice_section(record)),
            _pseudo_section(run, drawn),
            _training_section(record, drawn),
            export_section(record, run.weights_mb.get("student")),
            usage_section(run),
            sections.data_section(record.data, truth="labels", classes="classes", notes=_data_notes(record)),
            sections.record_section(record),
        ]
    )


def _cautions(record: BoxRecord) -> Lines:
    """What to keep in mind before believing the headline."""
    lines = [sections.seed_caution(record, f"Differences up to about {noise(record):.3f} can be chance")]
    if student := record.test.get("student"):
        lines.append(
            f"- The test set has {counted(student.images, 'image')} with {counted(student.instances, 'defect')}, none "
            "of them used in training. The score of a class with fewer than about 30 defects there is uncertain."
        )
    if record.data and not record.data.train_unlabeled:
        source = "the labels" if record.incremental else "the labels and the teacher"
        lines.append(f"- There were no unlabeled images: the student learned from {source} only.")
    for event in record.guard.events if record.guard else ():
        done = f"cut back to {event.factor:g}" if event.factor else "switched off"
        lines.append(
            f"- **After epoch {event.epoch} the weight of pseudo-labels and distillation was {done}**, because "
            f"{event.why}."
        )
    if starved := _starved(record):
        lines.append(
            f"- No pseudo-label was accepted for: {', '.join(map(in_markdown, starved))}. The unlabeled images add "
            "nothing for " + ("these classes." if len(starved) > 1 else "this class.")
        )
    return lines + sections.export_cautions(record)


def _starved(record: BoxRecord) -> tuple[str, ...]:
    """Classes without a pseudo-label in the student's training or, if no student was trained, without any at all."""
    if record.distill:
        return record.distill.starved
    return record.pseudo_labels.starved if record.pseudo_labels else ()


def _test_section(run: DetectionFiles, drawn: Drawn) -> Lines:
    test = run.record.test
    lines = ["## On the test images", ""]
    names = named(test)
    if not any(role in test for role in names):
        return [*lines, "The networks have not been tested."]
    cells = {
        role: [*(format_number(getattr(test[role], key)) for key in METRICS), sections.file_size(run.weights_mb, role)]
        for role in names
        if role in test
    }
    rows = sections.network_rows({role: [name] for role, name in names.items()}, cells, 5)
    if trained := test.get("student_trained"):
        values = (format_number(getattr(trained, key)) for key in METRICS)
        rows.append(
            ["student as trained, not selected", *values, sections.file_size(run.weights_mb, "student_trained")]
        )
    lines += markdown_table(["network", "mAP50-95", "mAP50", "precision", "recall", "file"], rows)
    labels = names | {"student_trained": "the student as trained"}
    lines += sections.difference_lines(run.record, labels, {"map50_95": "mAP50-95", "map50": "mAP50"})
    confidence = f" (student: {format_number(test['student'].confidence, 2)})." if "student" in test else "."
    scratch = "; **baseline from scratch**: the same, not pretrained on images alone" if SCRATCH in test else ""
    lines += [
        "",
        "- **teacher**: the network before this step, with untrained rows for the new classes; **student**: the "
        "network after it (last epoch)."
        if run.record.incremental
        else "- **teacher**: the large network that guides the training; **student**: the small one you deploy; "
        f"**baseline**: the same small network, trained on the labeled images only{scratch}.",
        "- **recall**: share of the true defects that were found; **precision**: share of the alarms that were "
        f"correct; both at the score threshold where they are best balanced on the validation images{confidence}",
        "- **mAP50**: precision averaged over all thresholds and classes, 0 to 1, a box counts if it overlaps the true "
        "one by half; **mAP50-95**: the same, averaged over increasingly strict overlaps. Higher is better.",
        "",
        "AP50-95 of each class; - where the test images have no such defect:",
        "",
        *markdown_table(["class", "defects", *ROLES, "student - baseline"], _class_rows(test)),
        *figure_lines(drawn, "per_class_ap", "AP per class"),
    ]
    return lines + figure_lines(drawn, "pr_curves", "Precision over recall: further up and to the right is better")


def _optional(section: Lines) -> list[Lines]:
    """A section, unless it is empty."""
    return [section] if section else []


def _operating_sections(record: BoxRecord, drawn: Drawn) -> list[Lines]:
    """What the thresholds do to whole images, and what they get wrong box by box."""
    names = named(record.operating)
    if "student_trained" in record.operating:
        names["student_trained"] = "student as trained"
    lines = operating_section(record, names, "score of a box")
    return [lines, error_section(record, drawn)] if lines else []


def _class_rows(test: Mapping[Role, BoxScores]) -> list[Lines]:
    tested = [role for role in ROLES if role in test]
    scores: dict[Role, dict[str, float | None]] = {
        role: {name: own.ap50_95 for name, own in test[role].per_class.items()} if role in test else {}
        for role in ROLES
    }
    # the first network that knows a class counts it
    counts = {name: str(own.instances) for role in reversed(tested) for name, own in test[role].per_class.items()}
    return sections.class_rows(scores, counts, list(scores["student"] or scores["baseline"] or scores["teacher"]))


def _pseudo_section(run: DetectionFiles, drawn: Drawn) -> Lines:
    section = run.record.pseudo_labels
    lines = ["## Pseudo-labels: what the teacher found in the unlabeled images", ""]
    health = _health_lines(run.record, drawn)
    if not section and not health:
        return [*lines, "There are none: the run had no unlabeled images, or trained no student on them."]
    if not section:
        own = "None were made before the training: the teacher was the moving average of the student itself."
        return [*lines, own, *health]
    low = "the lower limit" if run.lowest_score is None else f"{run.lowest_score:g}"
    lines += [
        f"The teacher marked {counted(section.boxes, 'box')} in {counted(section.images, 'image')}; "
        f"{counted(section.images_without_accepted, 'image')} got no accepted box." + _label_settings(section.settings),
        "",
        f"- **accepted** ({section.accepted:,}): score at or above the threshold of its class. The student is "
        "trained on it; by default a box counts by its score.",
        f"- **ignored** ({section.ignored:,}): score between {low} and that threshold. It may be a defect, so in the "
        "student's training it counts neither as a defect nor as background.",
        f"- **background**: everything else, scores below {low}. The student is trained to find nothing there, "
        "except in images without any accepted box.",
        "",
        *_pseudo_table(section),
        "",
        _quality_words(section),
        *figure_lines(drawn, "pseudo_labels", "Pseudo-labels per class"),
        *figure_lines(
            drawn, "gallery", counted(drawn.get("gallery", 0), "unlabeled image") + " with the teacher's pseudo-labels"
        ),
    ]
    if not drawn.get("gallery"):
        lines += ["", "No picture of them: there is no box to show, or the images have been moved."]
    return lines + health


def _pseudo_table(section: PseudoLabels) -> Lines:
    """Pseudo-labels of each class, with their quality where it is known."""
    quality = section.quality
    rows = []
    for name, counts in section.per_class.items():
        row = [
            in_markdown(name),
            format_number(section.thresholds.get(name)),
            str(counts.accepted),
            str(counts.ignored),
        ]
        rows.append([*row, *_class_quality(quality, name)] if quality else row)
    header = ["class", "threshold", "accepted", "ignored", *(["precision", "recall"] if quality else [])]
    return markdown_table(header, rows)


def _class_quality(quality: Quality, name: str) -> Lines:
    known = quality.per_class.get(name)
    return [format_number(known.precision), format_number(known.recall)] if known else [UNKNOWN, UNKNOWN]


def _quality_words(section: PseudoLabels) -> str:
    """How many of the accepted boxes are correct, as far as it is known."""
    quality = section.quality
    if not section.accepted:
        return "No pseudo-label was accepted, so the student learned from none; a better teacher would find more."
    if not quality:
        return "How many of them are correct is unknown, because these images have no true labels."
    return (
        f"True labels of unlabeled images were available and were used for this check only: of the accepted boxes, "
        f"{format_share(quality.precision)} are correct, and they cover {format_share(quality.recall)} of the "
        f"true defects (overlap at least {quality.iou})."
    )


def _label_settings(settings: LabelSettings | None) -> str:
    """How the labels were made, where it differs from a single pass of a single teacher."""
    if not settings:
        return ""
    parts = [f"{settings.teachers} teachers"] if settings.teachers > 1 else []
    if settings.tta:
        parts.append("flipped and resized copies")
    text = f" Boxes of {' and '.join(parts)} were fused." if parts else ""
    if settings.precision is not None:
        text += f" Thresholds aim for a precision of {settings.precision:g} on the validation images."
    return text


def _health_lines(record: BoxRecord, drawn: Drawn) -> Lines:
    """The pseudo-labels that the student was trained on, in the first and the last epoch."""
    health = record.distill.health if record.distill else ()
    if not health:
        return []
    # an epoch has none if the guard has switched them off
    shown = [epoch for epoch in health if epoch.accepted is not None] or health
    rows = [[label, *(format_number(getattr(shown[i], key)) for i in (0, -1))] for key, label in _HEALTH.items()]
    lines = ["", "Pseudo-labels that the student was trained on, over all unlabeled images of an epoch:", ""]
    lines += markdown_table(["", "first epoch", "last epoch"], rows)
    lines += [
        "",
        "An ignored area is a doubtful box (see above), or an image without an accepted box: one area, or in a "
        "mosaic the tiles that cover it.",
    ]
    return lines + figure_lines(drawn, "health", "Pseudo-labels over the epochs")


def _training_section(record: BoxRecord, drawn: Drawn) -> Lines:
    lines = ["## Training", ""]
    if not record.training:
        return [*lines, "Nothing was trained, or no training has finished."]
    lines += sections.training_table(named(record.training), record.training, _training_columns(record))
    lines += _pretraining_lines(record)
    if record.distill and record.distill.start == "teacher":
        lines += ["", "The student started at a part of its teacher's weights (`student_start`), the baseline did not."]
    lines += sections.selected_network(record.guard)
    lines += sections.self_training(record)
    lines += figure_lines(drawn, "validation", "Progress")
    lines += _term_lines(record)
    return lines + figure_lines(drawn, "loss_terms", "Losses of the student (and of the baseline) over the epochs")


def _pretraining_lines(record: BoxRecord) -> Lines:
    """What the networks have learned from images alone."""
    if not record.pretraining:
        return []
    method, images = next((learned.method, learned.images) for learned in record.pretraining.values())
    lines = [
        "",
        f"First, networks learned from {counted(images, 'training image')} without any label (`pretrain={method}`):",
        "",
    ]
    rows = [
        [
            role,
            name,
            format_number(values[0]),
            format_number(values[-1]),
            ", ".join(map(format_number, learned.spread)) or UNKNOWN,
        ]
        for role, learned in record.pretraining.items()
        for name, values in learned.losses.items()
    ]
    lines += markdown_table(["network", "loss", "first epoch", "last epoch", "spread of the features"], rows)
    if any(learned.spread for learned in record.pretraining.values()):
        lines += [
            "",
            "The spread says how different the places of the images are to the network, on each level of its head, "
            "fine to coarse: 1 is most, at 0 it has learned nothing that a detector could use.",
        ]
    return lines


def _training_columns(record: BoxRecord) -> list[Column]:
    seconds = {stage.name: stage.seconds for stage in record.stages}
    shared = bool(record.pretraining)  # then stages hold several trainings

    def own(done: Training) -> float | None:
        return done.seconds.total if done.seconds else None

    return [
        sections.EPOCHS,
        sections.OPTIMIZER_STEPS,
        sections.BATCH,
        sections.OPTIMIZER,
        sections.BEST_EPOCH,
        sections.val_score("its val mAP50-95"),
        ("time", lambda role, done: format_duration(own(done) if shared else seconds.get(role))),
    ]


def _term_lines(record: BoxRecord) -> Lines:
    """The distillation terms, and what their values mean."""
    terms = record.distill.terms if record.distill else {}
    if not terms:
        return ["", "No distillation term is recorded."]
    rows = [
        [name, format_number(term.weight), *(format_number(v, 4) for v in (term.first, term.last)), share]
        for name, term in terms.items()
        for share in [format_share(term.grad_share)]
    ]
    varied = any(map(_weight_varies, terms.values())) or bool(record.guard and record.guard.events)
    return [
        "",
        "What the student learned from the teacher besides the boxes (distillation terms):",
        "",
        *markdown_table(["term", "weight", "first epoch", "last epoch", "share of the gradient"], rows),
        "",
        "The values include weight and schedule, which changed during training (the weights shown are the last ones), "
        "so a falling value alone says nothing."
        if varied
        else "A falling term means that the student has come closer to the teacher in that respect.",
    ]


def _weight_varies(term: Term) -> bool:
    """Whether the weight of a term changes during the training."""
    return len(set(term.weight_by_epoch)) > 1 or term.schedule != "constant"


def _data_notes(record: BoxRecord) -> Lines:
    """Lines about duplicates and unreadable files."""
    data, notes = record.data, []
    if data and data.duplicates:
        notes.append(
            f"{counted(data.duplicates, 'image is a copy', 'images are copies')} of another one; copies were kept on "
            "one side of the split."
        )
    if data and data.skipped:
        notes.append(
            f"{counted(len(data.skipped), 'unusable file was', 'unusable files were')} left out: see results.json."
        )
    if data and data.warnings:
        notes += ["", "The import found:", "", *(f"- {in_markdown(warning)}." for warning in data.warnings)]
    return notes
