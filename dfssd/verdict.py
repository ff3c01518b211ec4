"""The result of a run in one sentence, one line and one terminal table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dfssd.tables import number

ROLES = ("teacher", "baseline", "student")
METRICS = ("map50_95", "map50", "precision", "recall")
CHANCE = 0.01
"""Difference in mAP50-95 that another seed alone can make, however many test images there are."""


def noise_of(instances: int | None) -> float:
    """Difference in mAP50-95 that is not called a difference: max(0.01, 0.5 / sqrt(n)) for n defects.

    The second one is the standard error of a share near one half counted on n independent cases: 0.016 for 1,000
    defects, 0.05 for 100.
    """
    return max(CHANCE, 0.5 / math.sqrt(instances)) if instances else CHANCE


def noise(results: Mapping[str, Any]) -> float:
    """:func:`noise_of` the defects of the test part."""
    return noise_of(((results.get("test") or {}).get("student") or {}).get("instances"))


def closing_table(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the test metrics of all networks and :func:`closing_line`."""
    console = console or Console()
    test = results.get("test") or {}
    table = Table("", "mAP50-95", "mAP50", "precision", "recall", title="test images", title_justify="left")
    for role in ROLES:
        if test.get(role):
            table.add_row(role, *(number(test[role].get(key)) for key in METRICS))
    if table.row_count:
        console.print(table)
    for failure in (results.get("export") or {}).get("failures") or ():
        console.print(f"export FAILED: {failure}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(closing_line(results), style="bold", markup=False, highlight=False, soft_wrap=True)


def closing_line(results: Mapping[str, Any]) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx), teacher 0.xxx`` in mAP50-95, with what there is."""
    student, baseline, teacher = (_map(results, role) for role in ("student", "baseline", "teacher"))
    if results.get("incremental"):
        return _new_classes(results)
    if student is None:
        return "student: no test result" if baseline is None else f"baseline {baseline:.3f} (no student)"
    if _is_baseline(results):
        return f"student = baseline {student:.3f}" + ("" if teacher is None else f", teacher {teacher:.3f}")
    line = f"student {student:.3f}"
    line += " (no baseline)" if baseline is None else f" vs baseline {baseline:.3f} ({student - baseline:+.3f})"
    return line + ("" if teacher is None else f", teacher {teacher:.3f}")


def _new_classes(results: Mapping[str, Any]) -> str:
    """What a run that taught new classes has won and lost, in AP50."""
    part = results["incremental"]
    count, before, after = len(part["classes_new"]), part["map_old_before"], part["map_old"]
    new = "not measured, no test image shows them" if part["map_new"] is None else f"AP50 {part['map_new']:.3f}"
    line = f"The model knows {count} more class{'' if count == 1 else 'es'}: {new}"
    if before is None or after is None:
        return f"{line}. What it has forgotten of the old ones cannot be told: no test image shows them."
    return f"{line}; on the {len(part['classes_old'])} old ones AP50 {after:.3f}, before {before:.3f}."


def headline(results: Mapping[str, Any]) -> str:
    """One sentence: did the unlabelled images and the teacher help, by how much, against what."""
    if results.get("incremental"):
        return _new_classes(results)
    student, baseline, teacher = (_map(results, role) for role in ("student", "baseline", "teacher"))
    if student is None and baseline is not None:
        return f"No student was trained; the network trained on the labels alone reaches mAP50-95 {baseline:.3f}."
    if student is None:
        return "The student has no result on test images, so this run says nothing about whether the method helped."
    if _is_baseline(results):
        return (
            "The teacher and the unlabelled images did not help, so the network handed over as the student is the "
            f"baseline, trained on the labels alone: mAP50-95 {student:.3f}. Why: {results['guard']['why']}."
        )
    if baseline is None:
        beside = "" if teacher is None else f"; its teacher reaches {teacher:.3f}"
        return (
            f"The student reaches mAP50-95 {student:.3f} on the test images{beside}. Whether the unlabelled images and "
            "the teacher helped cannot be told, because no baseline was trained (baseline=off)."
        )
    gain, margin = student - baseline, noise(results)
    if max(student, baseline) < CHANCE:
        verdict = "Neither the student nor the baseline finds defects yet; train longer or with more labels"
    elif gain > margin:
        verdict = "The student finds defects better than the same network trained on the labelled images alone"
    elif gain > 0:
        verdict = "The student is about as good as the same network trained on the labelled images alone"
    elif gain >= -margin:
        verdict = "The method did not help: the student is about as good as the same network trained on labels alone"
    else:
        verdict = "The method did harm: the student is worse than the same network trained on the labelled images alone"
    return f"{verdict}: mAP50-95 {student:.3f} against {baseline:.3f} ({gain:+.3f}), {_budget(results)}."


def _budget(results: Mapping[str, Any]) -> str:
    """Whether both were trained equally long, in words."""
    training = results.get("training") or {}
    steps, batches = (
        [(training.get(role) or {}).get(key) for role in ("student", "baseline")]
        for key in ("optimizer_steps", "batch")
    )
    if None in steps:
        return "with a training length that was not recorded"
    if batches[0] != batches[1]:
        return f"but with batches of {batches[0]} and {batches[1]} images, so not a fair comparison"
    if steps[0] == steps[1]:
        return f"after the same number of optimizer steps ({steps[0]:,})"
    return (
        f"but after different numbers of optimizer steps ({steps[0]:,} against {steps[1]:,}), so not a fair comparison"
    )


def _is_baseline(results: Mapping[str, Any]) -> bool:
    """Whether the guard has handed over the baseline as the student."""
    return (results.get("guard") or {}).get("chosen") == "baseline"


def _map(results: Mapping[str, Any], role: str) -> float | None:
    return ((results.get("test") or {}).get(role) or {}).get("map50_95")
