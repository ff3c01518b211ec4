"""What a run that ends with a detector is going to do, as soon as its data is split."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dfssd.config import GROWN
from dfssd.detection.checks import has_teacher, must_train_teacher
from dfssd.distillation.compatibility import describe, resolve_weights
from dfssd.results.sections import PRETRAINED, SCRATCH
from dfssd.runs.length import is_random
from dfssd.runs.plan import PlannedStage, last_stages, planned, teacher_stages
from dfssd.wording import counted

if TYPE_CHECKING:
    from dfssd.detection.run import DetectionRun

ON_LABELS = "on the labeled images"
COPIES = 3
"""Copies of an image with ``pseudo.tta``."""


def plan_of(run: DetectionRun, *, uses_pseudo_labels: bool) -> list[PlannedStage]:
    """The stages after ``prepare``, those that do nothing left out.

    Args:
        run: The run, whose data is split.
        uses_pseudo_labels: Whether the teacher labels the unlabeled images for the student.
    """
    c, data = run.config, run.data
    teacher = _size(run, "teacher") if has_teacher(c) else 0.0
    student = teacher if c["student_training"] == GROWN else _size(run, "student")
    plan = _stages_of_the_teacher(run, teacher, student)
    if teacher and data.train_unlabeled and uses_pseudo_labels and run.learns_from_unlabeled():
        passes = data.train_unlabeled * teacher * (COPIES if c.pseudo.tta else 1)
        plan.append(PlannedStage("pseudo-label", counted(data.train_unlabeled, "image"), cost=passes))
    if c["baseline"] is True:
        names = ("baseline", SCRATCH) if c["pretrain"] else ("baseline",)
        from_scratch = {name: is_random(run.start("student") if name == "baseline" else c["student"]) for name in names}
        trainings = tuple(planned(run, name, student, untaught=new) for name, new in from_scratch.items())
        plan.append(PlannedStage("baseline", ON_LABELS, trainings))
    elif c["baseline"]:
        plan.append(PlannedStage("baseline", f"taken from {c['baseline']}"))
    if trains_student := c["student_training"] != "skip":
        shown = "on labeled and unlabeled images" if run.unlabeled_share() else ON_LABELS
        untaught = c["student_start"] == "own" and c["student_training"] != GROWN and is_random(run.start("student"))
        training = planned(run, "student", student, taught_by=teacher, untaught=untaught)
        plan.append(PlannedStage("student", shown, (training,)))
    alone = bool(c["baseline"]) * (2 if c["pretrain"] else 1)
    return [*plan, *last_stages(run, teacher, [student] * (trains_student + alone))]


def _stages_of_the_teacher(run: DetectionRun, teacher: float, student: float) -> list[PlannedStage]:
    """The stages up to a teacher that is ready; sizes in millions of parameters, 0 without a teacher."""
    c, data = run.config, run.data
    trained = bool(teacher) and must_train_teacher(c, data.classes)
    untaught = trained and is_random(run.start("teacher"))
    plan = [_pretrain(run, student, teacher if trained else 0.0)] if c["pretrain"] else []
    return [*plan, *teacher_stages(run, teacher, trained=trained, untaught=untaught, shown=ON_LABELS)]


def _size(run: DetectionRun, role: str) -> float:
    """Parameters of a network [millions]."""
    return describe(resolve_weights(run.config[role], role), role).size


def _pretrain(run: DetectionRun, student: float, teacher: float) -> PlannedStage:
    """The stage ``pretrain``, of the networks that learn in it."""
    per_epoch, batches = run.batches_per_epoch(), run.config["pretrain_batches"]
    epochs = run.epochs if batches == "auto" else math.ceil(batches / per_epoch)
    length = "epochs" if batches == "auto" else ""
    sizes = {f"{PRETRAINED}student": student, **({f"{PRETRAINED}teacher": teacher} if teacher else {})}
    trainings = tuple(planned(run, name, size, length=length, epochs=epochs) for name, size in sizes.items())
    return PlannedStage("pretrain", "on all training images, without labels", trainings)
