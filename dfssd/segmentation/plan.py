"""What a run that ends with a mask network is going to do, as soon as its data is split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfssd.runs.plan import PlannedStage, last_stages, planned, teacher_stages
from dfssd.segmentation.checks import must_train_teacher, size_of

if TYPE_CHECKING:
    from dfssd.segmentation.run import SegmentationRun

ON_MASKS = "on the masks"


def plan_of(run: SegmentationRun) -> list[PlannedStage]:
    """The stages after ``prepare``, those that do nothing left out."""
    c, data = run.config, run.data
    student = size_of(c["student"], "student")
    teacher = 0.0 if c["teacher"] is None else size_of(c["teacher"], "teacher")
    learns = bool(teacher) and must_train_teacher(c, data.classes)
    plan = teacher_stages(run, teacher, trained=learns, untaught=False, shown=ON_MASKS)
    others = {role: size_of(name, "compare") for role, name in run.others.items()}
    trained = {**({"baseline": student} if c["baseline"] is True else {}), **others}
    if trained:
        networks = tuple(planned(run, role, size) for role, size in trained.items())
        plan.append(PlannedStage("baseline", ON_MASKS, networks))
    elif c["baseline"]:
        plan.append(PlannedStage("baseline", f"taken from {c['baseline']}"))
    if c["student_training"] != "skip":
        shown = "on images with and without masks" if data.train_unlabeled else ON_MASKS
        plan.append(PlannedStage("student", shown, (planned(run, "student", student, taught_by=teacher),)))
    students = [student] * ((c["student_training"] != "skip") + bool(c["baseline"]))
    return [*plan, *last_stages(run, teacher, [*students, *others.values()])]
