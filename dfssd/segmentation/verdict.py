"""The result of a segmentation run in one sentence, one line and one terminal table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dfssd.tables import number
from dfssd.verdict import ROLES

METRICS = ("miou_fg", "miou_all", "pixel_accuracy")
CHANCE = 0.01
"""Difference in mIoU that is not called a difference, since another seed alone can make it."""


def headline(results: Mapping[str, Any]) -> str:
    """One sentence: did the teacher help, by how much, against what."""
    student, baseline, teacher = (_miou(results, role) for role in ("student", "baseline", "teacher"))
    helper = "The teacher and the unlabelled images" if part(results, "data").get("train_unlabeled") else "The teacher"
    if student is None and baseline is not None:
        return (
            f"No student was tested; the network trained on the labels alone reaches {baseline:.3f} in mIoU of the "
            "defects."
        )
    if student is None:
        return "The student has no result on test images, so this run says nothing about whether the teacher helped."
    if is_baseline(results):
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
    return f"{verdict}. mIoU of the defects: {student:.3f} against {baseline:.3f} ({gain:+.3f}), {budget(results)}."


def closing_table(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the test metrics and the cost of all networks, what warns of them, and :func:`closing_line`."""
    console = console or Console()
    table = Table(title="test images", title_justify="left")
    table.add_column("", overflow="fold")  # a network is known by the end of its name, too
    for name in ("mIoU defects", "mIoU with background", "pixel accuracy", "parameters", "latency"):
        table.add_column(name, justify="right")
    for role, label in networks(results).items():
        if measured := part(results, "test", role):
            cost = (whole(measured.get("parameters")), milliseconds(results, role).partition(" (")[0])
            table.add_row(label, *(number(measured.get(key)) for key in METRICS), *cost)
    if table.row_count:
        console.print(table)
    told = [f"export FAILED: {failure}" for failure in part(results, "export").get("failures") or ()]
    for line in [*told, *filter(None, [leak_warning(results)])]:
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(closing_line(results), style="bold", markup=False, highlight=False, soft_wrap=True)


def closing_line(results: Mapping[str, Any]) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx), teacher 0.xxx`` in mIoU of the defects, with what there is."""
    student, baseline, teacher = (_miou(results, role) for role in ("student", "baseline", "teacher"))
    if student is None:
        return "student: no test result" if baseline is None else f"baseline {baseline:.3f} (no student)"
    beside = "" if teacher is None else f", teacher {teacher:.3f}"
    if is_baseline(results):
        return f"student = baseline {student:.3f}{beside}"
    against = " (no baseline)" if baseline is None else f" vs baseline {baseline:.3f} ({student - baseline:+.3f})"
    return f"student {student:.3f}{against}{beside}"


def leak_warning(results: Mapping[str, Any]) -> str:
    """What copies of test images in training do to the numbers; empty if there is none."""
    leaking = part(results, "data", "leaks").get("test")
    if not leaking:
        return ""
    return (
        f"{leaking:,} of {number(tested_images(results))} test images have a copy in training (rotated, mirrored or in "
        "part): the numbers below flatter; run split=grouped for the true figure"
    )


def part(results: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A section within sections; empty where one of them is absent or null."""
    for key in keys:
        results = results.get(key) or {}
    return results


def networks(results: Mapping[str, Any]) -> dict[str, str]:
    """Role -> name for people, in the order of the tables."""
    trained = ["student_trained"] if part(results, "test", "student_trained") else []
    labels = {role: role for role in [*ROLES, *trained]}
    return {**labels, **{role: f"{role} ({model})" for role, model in part(results, "compare").items()}}


def _miou(results: Mapping[str, Any], role: str) -> float | None:
    return part(results, "test", role).get("miou_fg")


def is_baseline(results: Mapping[str, Any]) -> bool:
    """Whether the guard has handed over the baseline as the student."""
    return part(results, "guard").get("chosen") == "baseline"


def taught(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """The training of the student by the teacher, whatever was handed over."""
    return part(training, "student_trained") or part(training, "student")


def budget(results: Mapping[str, Any]) -> str:
    """Whether student and baseline were trained equally long, in words."""
    training = part(results, "training")
    both = (taught(training), part(training, "baseline"))
    steps, batches = ([own.get(key) for own in both] for key in ("optimizer_steps", "batch"))
    if None in steps:
        return "after trainings of a length that was not recorded"
    if batches[0] != batches[1]:
        return f"after batches of {batches[0]} and {batches[1]} images, which is not fair"
    if steps[0] == steps[1]:
        return f"after the same number of optimizer steps ({steps[0]:,})"
    return f"after different numbers of optimizer steps ({steps[0]:,} against {steps[1]:,}), which is not fair"


def tested_images(results: Mapping[str, Any]) -> int | None:
    """Number of test images, None if it is not recorded."""
    return part(results, "data").get("test") or part(results, "test", "student").get("images")


def milliseconds(results: Mapping[str, Any], role: str) -> str:
    """Median latency of a network with its quartiles."""
    own = part(results, "latency", role)
    if own.get("median_ms") is None:
        return "-"
    around = "" if None in (low := own.get("low_ms"), high := own.get("high_ms")) else f" ({low:.1f}-{high:.1f})"
    return f"{own['median_ms']:.1f} ms{around}"


def whole(count: int | None) -> str:
    """A large whole number."""
    return "-" if count is None else f"{count:,}"
