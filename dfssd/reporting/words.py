"""Wording that the verdicts of all tasks share: selected network, fairness of a comparison, last line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from dfssd.reporting.tables import format_interval
from dfssd.results.record import RunRecord
from dfssd.results.sections import PRETRAINED, SCRATCH, Gain, Role, Training

ROLES: tuple[Role, ...] = ("teacher", "baseline", "student")


NAMES: Mapping[Role, str] = {
    **{role: role for role in ROLES},
    SCRATCH: "baseline from scratch",
    f"{PRETRAINED}teacher": "teacher, on images alone",
    f"{PRETRAINED}student": "student, on images alone",
}
"""Role -> what it is called in tables and figures."""


def named(*groups: Collection[Role]) -> dict[Role, str]:
    """Names of :data:`ROLES` and of the other known networks that are in one of ``groups``, in the order of tables."""
    order = (*(f"{PRETRAINED}{role}" for role in ("teacher", "student")), "teacher", SCRATCH, "baseline", "student")
    return {role: NAMES[role] for role in order if role in ROLES or any(role in group for group in groups)}


def baseline_is_selected(record: RunRecord) -> bool:
    """Whether the baseline was selected to be shipped as the student."""
    return record.guard is not None and record.guard.chosen == "baseline"


@dataclass(frozen=True)
class BudgetWords:
    """How a task words training budgets; ``{student}`` and ``{baseline}`` are replaced by their numbers."""

    unknown: str
    other_batches: str
    other_steps: str
    equal: str = "after the same number of optimizer steps ({student:,})"


def compare_budgets(student: Training | None, baseline: Training | None, words: BudgetWords) -> str:
    """A phrase on whether student and baseline were trained equally long."""
    if student is None or baseline is None or None in (student.optimizer_steps, baseline.optimizer_steps):
        return words.unknown
    if student.batch != baseline.batch:
        return words.other_batches.format(student=student.batch, baseline=baseline.batch)
    steps = {"student": student.optimizer_steps, "baseline": baseline.optimizer_steps}
    return (words.equal if steps["student"] == steps["baseline"] else words.other_steps).format(**steps)


def beyond(gain: Gain, margin: float) -> bool:
    """Whether a difference, as it is shown, is at least ``margin``, and its interval, if known, leaves out 0."""
    includes_0 = gain.low is not None and gain.high is not None and gain.low <= 0 <= gain.high
    return round(abs(gain.value), 3) >= margin and not includes_0


def closing_line(scores: Mapping[Role, float | None], gain: Gain | None, *, baseline_selected: bool) -> str:
    """``student 0.xxx vs baseline 0.xxx (+0.0xx [+0.0xx, +0.0xx]), teacher 0.xxx``, with what there is.

    Args:
        scores: Test score of each of :data:`ROLES`, and of the baseline from scratch; None or absent without one.
        gain: Student - baseline.
        baseline_selected: Whether the student is the baseline.
    """
    student, baseline, teacher, scratch = (scores.get(role) for role in ("student", "baseline", "teacher", SCRATCH))
    beside = "" if scratch is None else f", baseline from scratch {scratch:.3f}"
    if student is None:
        return "student: no test result" if baseline is None else f"baseline {baseline:.3f} (no student){beside}"
    beside += "" if teacher is None else f", teacher {teacher:.3f}"
    if baseline_selected:
        return f"student = baseline {student:.3f}{beside}"
    against = " (no baseline)" if baseline is None else f" vs baseline {baseline:.3f} ({format_interval(gain)})"
    return f"student {student:.3f}{against}{beside}"


def describe_gain(record: RunRecord, gain: Gain | None) -> str:
    """``+0.0xx, 95 % interval +0.0xx to +0.0xx``, with what is known of a difference that the record holds."""
    if gain is None:
        return "difference not known"
    if gain.low is None or gain.high is None or record.differences is None:
        return f"{gain.value:+.3f}"
    return f"{gain.value:+.3f}, {record.differences.level * 100:g} % interval {gain.low:+.3f} to {gain.high:+.3f}"


def print_closing(table: Table, warnings: Iterable[str], lines: Iterable[str], console: Console | None) -> None:
    """Print the end of a run: scores, warnings, and the result.

    Args:
        table: Scores of the networks; not printed if it has no rows.
        warnings: A line each, in red.
        lines: The result, in figures and then in a sentence; printed once if they are the same.
        console: Where to print; None: the terminal.
    """
    console = console or Console()
    if table.row_count:
        console.print(table)
    for warning in warnings:
        console.print(warning, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for line in dict.fromkeys(lines):
        console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)


def format_failures(record: RunRecord) -> list[str]:
    """A line for each format beside ONNX that is missing or differs; the ONNX file may be sound all the same."""
    return [
        f"format={other.format}: {other.error or '; '.join(other.failures)}"
        for other in (record.export.other if record.export else ())
        if other.error or not other.passed
    ]


def export_failures(record: RunRecord) -> tuple[str, ...]:
    """Why the check of the ONNX file did not pass; empty if it did, or if nothing was exported."""
    return record.export.failures if record.export else ()
