"""How a student can be trained: the values of ``student_training``, each an entry here.

A method trains the network that becomes ``student.pt``. What must hold for its arguments is a rule of
:mod:`dfssd.config.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfssd.config import GROWN
from dfssd.detection.trainer import StudentTrainer
from dfssd.distillation.compatibility import describe, resolve_weights
from dfssd.results.sections import Status
from dfssd.runs.model_selection import nothing_to_teach, select_baseline, select_better
from dfssd.trainers.settings import StageSettings
from dfssd.trainers.stage import StageTrainer

if TYPE_CHECKING:
    from dfssd.detection.run import DetectionRun


@dataclass(frozen=True)
class Method:
    """A way to train the student.

    Attributes:
        train: Trains it and records its training; returns the status of the stage.
        uses_pseudo_labels: The teacher labels the unlabeled images for it.
    """

    train: Callable[[DetectionRun], Status]
    uses_pseudo_labels: bool


def distilled(run: DetectionRun) -> Status:
    """By the YOLO loss on true and accepted boxes and the distillation terms, under the guard."""
    config = run.config
    if config["unsup_weight"] > 0 and (silence := nothing_to_teach(run.record.pseudo_labels)):
        select_baseline(run.weights, run.record, silence)
        return "skipped"
    baseline = run.record.training.get("baseline")
    floor = baseline.val_score_by_epoch if baseline and config["guard"] else ()
    settings = run.student_settings(
        pseudo=run.pseudo, teacher=run.weights / "teacher.pt", terms=config.terms, guard=floor
    )
    run.train("student", StudentTrainer, settings, model=resolve_weights(config["student"], "student"))
    select_better(run.weights, run.record, guarded=config["guard"])
    return "done"


def ultralytics(run: DetectionRun) -> Status:
    """By Ultralytics' own ``distill_model=``, on the labeled images."""
    settings = StageSettings.labels_alone(run.batches_per_epoch(), cpu_bf16=run.cpu_bf16)
    source, teacher = resolve_weights(run.config["student"], "student"), str(run.weights / "teacher.pt")
    run.train("student", StageTrainer, settings, model=source, distill_model=teacher)
    return "done"


def grown(run: DetectionRun) -> Status:
    """The teacher with rows for new classes learns these, and the terms hold what it knew."""
    settings = run.student_settings(
        pseudo=run.pseudo, teacher=run.weights / "teacher.pt", terms=run.config.terms, guard=()
    )
    before = run.weights / "before.pt"
    frozen = {"freeze": describe(str(before), "teacher").head} if run.config["freeze_features"] else {}
    # the last epoch: validation images seldom show old defects, and the best epoch on new ones is a late one
    run.train("student", StudentTrainer, settings, keep="last", model=str(before), **frozen)
    return "done"


def skip(run: DetectionRun) -> Status:
    """No student: the run is about its teacher, or its baseline."""
    return "skipped"


METHODS: Mapping[str, Method] = {
    "distilled": Method(distilled, uses_pseudo_labels=True),
    "ultralytics": Method(ultralytics, uses_pseudo_labels=False),
    GROWN: Method(grown, uses_pseudo_labels=True),
    "skip": Method(skip, uses_pseudo_labels=False),
}
"""``student_training`` -> method; the same names as in the schema of the configuration (tested)."""
