"""The result of a segmentation run in one sentence, one line and one terminal table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dfssd.evaluation.significance import CHANCE
from dfssd.reporting import words
from dfssd.reporting.operating import unresolved
from dfssd.reporting.tables import UNKNOWN, format_count, format_number
from dfssd.reporting.words import (
    ROLES,
    BudgetWords,
    baseline_is_selected,
    beyond,
    compare_budgets,
    export_failures,
    format_failures,
)
from dfssd.results.record import MaskRecord
from dfssd.results.sections import Gain, MaskTraining, Role
from dfssd.wording import counted, have

SCORES = {"miou_fg": "mIoU of the defects", "miou_all": "mIoU with the background"}
"""Scores that networks are compared by, and what they are called."""
METRICS = (*SCORES, "pixel_accuracy")

_BUDGET = BudgetWords(
    unknown="after trainings of a length that was not recorded",
    other_batches="after batches of {student} and {baseline} images, which is not fair",
    other_steps="after different numbers of optimizer steps ({student:,} against {baseline:,}), which is not fair",
)


def headline(record: MaskRecord) -> str:
    """One sentence: did the teacher help, by how much, against what."""
    student, baseline, teacher = (score(record, role) for role in ("student", "baseline", "teacher"))
    unlabeled = record.data and record.data.train_unlabeled
    helper = "The teacher and the unlabeled images" if unlabeled else "The teacher"
    if student is None and baseline is not None:
        return (
            f"No student was tested; the network trained on the labels alone reaches {baseline:.3f} in mIoU of the "
            "defects."
        )
    if student is None:
        return "The student has no result on test images, so this run says nothing about whether the teacher helped."
    if record.guard and baseline_is_selected(record):
        trained = score(record, "student_trained")
        beside = "" if trained is None else f" (the distilled student: {trained:.3f})"
        return (
            f"{helper} did not help, so the network selected as the student is the baseline, trained on the labels "
            f"alone: mIoU of the defects {student:.3f}{beside}. Why: {record.guard.why}."
        )
    gain = record.gain("student", "baseline", "miou_fg")
    if baseline is None or gain is None:
        beside = "" if teacher is None else f"; its teacher reaches {teacher:.3f}"
        return (
            f"The student reaches {student:.3f} in mIoU of the defects on the test images{beside}. Whether the teacher "
            "helped cannot be determined, because no baseline was tested."
        )
    verdict = _judge(student, baseline, gain, helper)
    shown = f"{student:.3f} against {baseline:.3f} ({words.describe_gain(record, gain)})"
    return f"{verdict}. mIoU of the defects: {shown}, {budget(record)}."


def _judge(student: float, baseline: float, gain: Gain, helper: str) -> str:
    """What the difference of two scores means."""
    if max(student, baseline) < CHANCE:
        return "Neither the student nor the baseline finds the defects yet; train longer or with more labels"
    if not beyond(gain, CHANCE):
        return (
            f"{helper} made no difference beyond chance: the student is about as good as the same network trained on "
            "labels alone"
        )
    if gain.value > 0:
        return f"{helper} helped: the student marks the defects better than the same network trained on labels alone"
    return f"{helper} hurt: the student is worse than the same network trained on labels alone"


def closing_table(record: MaskRecord, console: Console | None = None) -> None:
    """Print the test metrics and the cost of all networks, warnings, :func:`closing_line`, and :func:`headline`."""
    table = Table(title="test images", title_justify="left")
    table.add_column("", overflow="fold")  # names may differ at the end only
    for name in ("mIoU defects", "mIoU with background", "pixel accuracy", "parameters", "latency"):
        table.add_column(name, justify="right")
    for role, label in networks(record).items():
        if measured := record.test.get(role):
            cost = (format_count(measured.parameters), milliseconds(record, role).partition(" (")[0])
            table.add_row(label, *(format_number(getattr(measured, key)) for key in METRICS), *cost)
    warnings = [f"export FAILED: {failure}" for failure in export_failures(record)]
    warnings += [*format_failures(record), *unresolved(record)]
    warnings += filter(None, [leak_warning(record)])
    words.print_closing(table, warnings, [closing_line(record), headline(record)], console)


def closing_line(record: MaskRecord) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx [+0.0xx, +0.0xx]), teacher 0.xxx`` in mIoU of the defects."""
    scores = {role: score(record, role) for role in ROLES}
    gain = record.gain("student", "baseline", "miou_fg")
    return words.closing_line(scores, gain, baseline_selected=baseline_is_selected(record))


def leak_warning(record: MaskRecord) -> str:
    """How copies of test images in training affect the numbers; empty if there is none."""
    if not record.data or not record.data.leaks.test:
        return ""
    return (
        f"{record.data.leaks.test:,} of {counted(record.data.test, 'test image')} {have(record.data.leaks.test)} a "
        "copy in training (rotated, mirrored, or partial): the scores below are too optimistic; run split=grouped "
        "for the true ones"
    )


def networks(record: MaskRecord) -> dict[Role, str]:
    """Role -> name for people, in the order of the tables."""
    trained = ["student_trained"] if "student_trained" in record.test else []
    labels = {role: role for role in [*ROLES, *trained]}
    return {**labels, **{role: f"{role} ({model})" for role, model in record.compare.items()}}


def score(record: MaskRecord, role: Role) -> float | None:
    """Mean IoU of the defects of a network on the test images."""
    measured = record.test.get(role)
    return measured.miou_fg if measured else None


def student_training(record: MaskRecord) -> MaskTraining | None:
    """The training of the distilled student, whichever network was selected."""
    return record.training.get("student_trained") or record.training.get("student")


def budget(record: MaskRecord) -> str:
    """Whether student and baseline were trained equally long, in words."""
    return compare_budgets(student_training(record), record.training.get("baseline"), _BUDGET)


def tested_images(record: MaskRecord) -> int | None:
    """Number of test images, None if it is not recorded."""
    if record.data and record.data.test:
        return record.data.test
    student = record.test.get("student")
    return student.images if student else None


def milliseconds(record: MaskRecord, role: Role) -> str:
    """Median latency of a network with its quartiles."""
    timed = record.latency.get(role)
    return f"{timed.median_ms:.1f} ms ({timed.low_ms:.1f}-{timed.high_ms:.1f})" if timed else UNKNOWN
