"""The result of a run in one sentence, one line and one terminal table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dfssd.evaluation.significance import CHANCE, noise_of
from dfssd.reporting import words
from dfssd.reporting.operating import unresolved
from dfssd.reporting.tables import format_interval, format_number
from dfssd.reporting.words import (
    ROLES,
    BudgetWords,
    baseline_is_selected,
    beyond,
    compare_budgets,
    export_failures,
    format_failures,
    named,
)
from dfssd.results.record import BoxRecord
from dfssd.results.sections import SCRATCH, Gain, Incremental, Role
from dfssd.wording import counted

SCORE = "map50_95"
"""What networks are compared by."""
SCORES = {SCORE: "mAP50-95", "map50": "mAP50"}
METRICS = (*SCORES, "precision", "recall")

_BUDGET = BudgetWords(
    unknown="with a training length that was not recorded",
    other_batches="but with batches of {student} and {baseline} images, so not a fair comparison",
    other_steps="but after different numbers of optimizer steps ({student:,} against {baseline:,}), so not a fair "
    "comparison",
)


def noise(record: BoxRecord) -> float:
    """Difference in mAP50-95 from the baseline that can be chance, by its interval, else by the number of defects."""
    student, gain = record.test.get("student"), record.gain("student", "baseline", SCORE)
    if gain is None or gain.low is None or gain.high is None:
        return noise_of(student.instances if student else None)
    return max(CHANCE, (gain.high - gain.low) / 2)


def closing_table(record: BoxRecord, console: Console | None = None) -> None:
    """Print the test metrics of all networks, :func:`closing_line`, and :func:`headline`."""
    same = {"baseline", "student"} if baseline_is_selected(record) else {"baseline"}
    compared = ["vs. baseline (mAP50-95)"] if "baseline" in record.test else []
    columns = ("", "mAP50-95", "mAP50", "precision", "recall", *compared)
    table = Table(*columns, title="test images", title_justify="left")
    for role, name in named(record.test).items():
        if scores := record.test.get(role):
            gain = None if role in same else record.gain(role, "baseline", SCORE)
            beside = [format_interval(gain)] if compared else []
            table.add_row(name, *(format_number(getattr(scores, key)) for key in METRICS), *beside)
    warnings = [f"export FAILED: {failure}" for failure in export_failures(record)]
    warnings += [*format_failures(record), *unresolved(record)]
    words.print_closing(table, warnings, [closing_line(record), headline(record)], console)


def closing_line(record: BoxRecord) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx [+0.0xx, +0.0xx]), teacher 0.xxx`` in mAP50-95."""
    if record.incremental:
        return _new_classes(record.incremental)
    scores = {role: _score(record, role) for role in (*ROLES, SCRATCH)}
    gain = record.gain("student", "baseline", SCORE)
    return words.closing_line(scores, gain, baseline_selected=baseline_is_selected(record))


def _new_classes(step: Incremental) -> str:
    """What a run that added new classes has gained and lost, in AP50."""
    count = len(step.classes_new)
    new = "not measured, no test image shows them" if step.map_new is None else f"AP50 {step.map_new:.3f}"
    line = f"The model knows {count} more class{'' if count == 1 else 'es'}: {new}"
    if step.map_old_before is None or step.map_old is None:
        return f"{line}. How much of the old ones it has forgotten cannot be determined: no test image shows them."
    old = f"on the {len(step.classes_old)} old ones AP50 {step.map_old:.3f}, before {step.map_old_before:.3f}"
    return f"{line}; {old}."


def headline(record: BoxRecord) -> str:
    """One sentence: what the unlabeled images, or the teacher, brought, by how much, against what."""
    if record.incremental:
        return _new_classes(record.incremental)
    student, baseline, teacher = (_score(record, role) for role in ("student", "baseline", "teacher"))
    if student is None and baseline is not None:
        return f"No student was trained; the network trained on the labels alone reaches mAP50-95 {baseline:.3f}."
    if student is None:
        return "The student has no result on test images, so this run says nothing about whether the method helped."
    if record.guard and baseline_is_selected(record):
        trained = _score(record, "student_trained")
        beside = "" if trained is None else f" (the student that was trained with them: {trained:.3f})"
        return (
            "The teacher and the unlabeled images did not help, so the network selected as the student is the "
            f"baseline, trained on {_labels(record)}: mAP50-95 {student:.3f}{beside}. Why: {record.guard.why}."
        )
    gain = record.gain("student", "baseline", SCORE)
    if baseline is None or gain is None:
        beside = "" if teacher is None else f"; its teacher reaches {teacher:.3f}"
        return (
            f"The student reaches mAP50-95 {student:.3f} on the test images{beside}. Whether {_helper(record)} "
            "helped cannot be determined, because no baseline was trained (baseline=off)."
        )
    verdict = _judge(record, max(student, baseline), gain)
    compared = ", ".join(_compared(record, key) for key in ("map50", SCORE))
    budget = compare_budgets(record.training.get("student"), record.training.get("baseline"), _BUDGET)
    return f"{verdict}: {compared}, {budget}."


def _helper(record: BoxRecord) -> str:
    """What the student had and the baseline had not; Ultralytics' distillation sees the labeled images alone."""
    images = record.data.train_unlabeled if record.data and record.distill else 0
    helpers = [f"the {counted(images, 'unlabeled image')}"] if images else []
    return " and ".join([*helpers, "the teacher"] if "teacher" in record.test else helpers) or "the teacher"


def _labels(record: BoxRecord) -> str:
    """What the baseline was trained on."""
    return (
        f"the {counted(record.data.train_labeled, 'labeled image')} alone"
        if record.data
        else "the labeled images alone"
    )


def _judge(record: BoxRecord, best: float, gain: Gain) -> str:
    """What the difference of two scores means, the higher of which is ``best``."""
    if best < CHANCE:
        return "Neither the student nor the baseline finds defects yet; train longer or with more labels"
    helper, other = _helper(record), f"the same network trained on {_labels(record)}"
    clear = beyond(gain, noise(record))
    if clear and gain.value > 0:
        return f"With {helper} the student finds defects better than {other}"
    outcome = "hurt" if clear else "made no clear difference" if gain.value > 0 else "did not help"
    rank = "finds defects worse than" if clear else "is about as good as"
    return f"{helper[0].upper()}{helper[1:]} {outcome}: the student {rank} {other}"


def _compared(record: BoxRecord, key: str) -> str:
    """``mAP50 0.xxx against 0.xxx (+0.0xx, 95 % interval +0.0xx to +0.0xx)``; the interval, if it is known."""
    own, other = (format_number(getattr(record.test[role], key)) for role in ("student", "baseline"))
    gain = record.gain("student", "baseline", key)
    return f"{SCORES[key]} {own} against {other} ({words.describe_gain(record, gain)})"


def _score(record: BoxRecord, role: Role) -> float | None:
    scores = record.test.get(role)
    return scores.map50_95 if scores else None
