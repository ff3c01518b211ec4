"""The ways to train the network that a detection run ships: the values of ``student_training``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfssd.config import GROWN
from dfssd.detection.trainer import StudentTrainer
from dfssd.distillation.compatibility import describe
from dfssd.results.sections import Status
from dfssd.runs.model_selection import missing_labels_reason, select_baseline, select_better
from dfssd.trainers.stage import StageTrainer

if TYPE_CHECKING:
    from dfssd.detection.run import DetectionRun


@dataclass(frozen=True)
class Method:
    """A way to train the network that becomes ``student.pt``: a value of ``student_training``.

    The rules for its arguments are in :mod:`dfssd.config.rules`.

    Attributes:
        train: Trains it and records its training; returns the status of the stage.
        uses_pseudo_labels: The teacher labels the unlabeled images for it.
    """

    train: Callable[[DetectionRun], Status]
    uses_pseudo_labels: bool


def distilled(run: DetectionRun) -> Status:
    """Train by the YOLO loss on true and accepted boxes and by the distillation terms, under the guard."""
    config = run.config
    if config["unsup_weight"] > 0 and (reason := missing_labels_reason(run.record.pseudo_labels)):
        select_baseline(run.weights, run.record, reason)
        return "skipped"
    baseline = run.record.training.get("baseline")
    floor = baseline.val_score_by_epoch if baseline and config["guard"] else ()
    source, start = run.distilled_start()
    settings = run.student_settings(
        source,
        pseudo=run.pseudo,
        teacher=run.weights / "teacher.pt",
        terms=config.terms,
        guard=floor,
        selected=start == "teacher",
    )
    run.train("student", StudentTrainer, settings, model=source)
    if run.record.distill:
        run.record.distill = run.record.distill.model_copy(update={"start": start})
    select_better(run.weights, run.record, guarded=config["guard"])
    return "done"


def labels(run: DetectionRun) -> Status:
    """Train it as the baseline, by the labels alone, from where a distilled one starts: what that start is worth."""
    source, start = run.distilled_start()
    settings = run.labels_alone(source, run.batches_per_epoch(), run.epochs, selected=start == "teacher")
    run.train("student", StageTrainer, settings, model=source)
    return "done"


def ultralytics(run: DetectionRun) -> Status:
    """Train by Ultralytics' own ``distill_model=``, on the labeled images."""
    source, teacher = run.start("student"), str(run.weights / "teacher.pt")
    settings = run.labels_alone(source, run.batches_per_epoch(), run.epochs)
    run.train("student", StageTrainer, settings, model=source, distill_model=teacher)
    return "done"


def grown(run: DetectionRun) -> Status:
    """Train the teacher, with rows for new classes added, on these; the terms preserve what it knew."""
    before = run.weights / "before.pt"
    settings = run.student_settings(
        str(before), pseudo=run.pseudo, teacher=run.weights / "teacher.pt", terms=run.config.terms, guard=()
    )
    frozen = {"freeze": describe(str(before), "teacher").head} if run.config["freeze_features"] else {}
    # the last epoch: validation images seldom show old defects, and the best epoch for the new ones is a late one
    run.train("student", StudentTrainer, settings, keep="last", model=str(before), **frozen)
    return "done"


def skip(run: DetectionRun) -> Status:
    """Train no student: the run is about its teacher or its baseline."""
    return "skipped"


METHODS: Mapping[str, Method] = {
    "distilled": Method(distilled, uses_pseudo_labels=True),
    "labels": Method(labels, uses_pseudo_labels=False),
    "ultralytics": Method(ultralytics, uses_pseudo_labels=False),
    GROWN: Method(grown, uses_pseudo_labels=True),
    "skip": Method(skip, uses_pseudo_labels=False),
}
"""``student_training`` -> method; the same names as in the schema of the configuration (tested)."""
