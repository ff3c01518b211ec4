"""Checks of a detection run before anything is computed: arguments, models, devices and formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfssd.config import DENSE, REGIONS, Config
from dfssd.distillation.compatibility import (
    LABELERS,
    ModelFacts,
    check_bins,
    check_labeler,
    check_pair,
    describe,
    resolve_weights,
    teacher_needs_training,
)
from dfssd.distillation.growth import check_prefix
from dfssd.distillation.selection import has_part
from dfssd.distillation.terms import find_term
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.pretraining.features import check_features
from dfssd.runs.checks import check_freeze, check_machine
from dfssd.runs.data import check_split
from dfssd.runs.model_selection import check_baseline
from dfssd.wording import counted


def check_before_start(config: Config) -> Config:
    """Check everything that does not need the data, before a run folder is made.

    Returns:
        The configuration, without terms of the recipe that these models cannot have.

    Raises:
        UserError: Data not named, split without lists, model missing or not a detector, pair that does not match, or a
            device, precision, format or batch that cannot be used.
    """
    if config["data"] is None:
        raise UserError("data is missing: data=demo, a dataset YAML, a folder, a .zip, or a name such as CR7-DET")
    check_split(config)
    check_machine(config)
    if config["guard"] and config["baseline"] is False:
        LOGGER.info("baseline=off: the guard has no baseline to compare with, the student is selected in any case")
    role = "teacher" if config["student_training"] == "grown" else "student"
    student = describe(resolve_weights(config[role], role), role)
    check_freeze(config.train.get("freeze"), f"{role}={config[role]}", student.parameters)
    if config["pretrain"] not in {None, REGIONS, DENSE}:
        check_features(config["pretrain"])
    if isinstance(config["baseline"], str):
        check_baseline(Path(config["baseline"]), config)
    if config["student_training"] in {"distilled", "grown"}:
        config = with_fitting_terms(config, student, role)
    if not has_teacher(config):
        check_layers(config, student.head)
        return config
    teacher = describe(resolve_weights(config["teacher"], "teacher"), "teacher")
    for extra in config.pseudo.teachers:
        check_labeler(resolve_weights(extra, LABELERS))
    if role == "teacher":
        check_can_grow(teacher)
        check_layers(config, teacher.head)
        LOGGER.info(
            f"teacher {config['teacher']} knows {counted(len(teacher.names), 'class')}: {', '.join(teacher.names)}"
        )
        return config
    check_pair(teacher, student)
    if config["student_start"] == "teacher" and not has_part(teacher.source, student.source):
        raise UserError(
            f"student_start=teacher: student={config['student']} is no narrower network of the same depth as "
            f"teacher={config['teacher']}; leave student_start out, or use such a pair (yolov8s and yolov8n)"
        )
    if config["teacher_train"] is not False:
        check_freeze(config.train.get("freeze"), f"teacher={config['teacher']}", teacher.parameters)
    check_layers(config, min(teacher.head, student.head))
    LOGGER.info(
        f"teacher {config['teacher']} and student {config['student']} match: family {student.family or '?'}, "
        f"strides {student.strides}, {student.reg_max} bins per box side"
    )
    return config


def with_fitting_terms(config: Config, student: ModelFacts, role: str) -> Config:
    """The configuration without terms that compare box distributions, where the student has none (YOLO26).

    Args:
        config: The configuration.
        student: Facts of the student, or of the teacher that it is grown from.
        role: The argument that it was given by.

    Raises:
        UserError: The user has asked for such a term by its weight.
    """
    needing = [name for name in config.terms if find_term(name).needs_bins]
    check_bins(student, [name for name in needing if f"{name}.weight" in config.given], role)
    if not needing or student.reg_max > 1:
        return config
    left = {name: options for name, options in config.terms.items() if name not in needing}
    steps = "steps" if len(needing) == 1 else "step"
    LOGGER.info(
        f"{role}={student.source} has no box distribution: {', '.join(needing)} {steps} aside; "
        f"left: {', '.join(left) or 'no term'}"
    )
    return replace(config, terms=left)


def check_can_grow(teacher: ModelFacts) -> None:
    """Raise :class:`UserError` for a teacher without trained weights, or with a branch that no term would protect."""
    if not teacher.trained:
        raise UserError(f"teacher={teacher.source} has no trained weights: give the model trained so far")
    if teacher.end2end:
        raise UserError(
            f"teacher={teacher.source} predicts by a one-to-one branch (end2end), which would forget: the terms "
            "preserve the one-to-many branch only; use a YOLOv8 or YOLO11 teacher, or end2end: false in its model YAML"
        )


def has_teacher(config: Config) -> bool:
    """Whether the teacher is a separate network; else there is none, or it is the student's moving average."""
    return config["teacher"] is not None and config["teacher_kind"] == "frozen"


def known_classes(config: Config, classes: Sequence[str]) -> int:
    """Number of classes known to a teacher to which new ones are added; 0 in all other recipes.

    Raises:
        UserError: The teacher is not trained, or its classes are not the first ones of the data.
    """
    if config["student_training"] != "grown":
        return 0
    teacher = describe(resolve_weights(config["teacher"], "teacher"), "teacher")
    check_can_grow(teacher)
    return check_prefix(str(config["teacher"]), teacher.names, classes)


def check_layers(config: Config, head: int) -> None:
    """Raise :class:`UserError` if ``layers`` names one that is not before the head."""
    if config["layers"] != "auto" and max(config["layers"]) >= head:
        raise UserError(f"layers={config['layers']}: these models have layers 0 to {head - 1} before the head")


def must_train_teacher(config: Config, classes: Sequence[str]) -> bool:
    """Whether the teacher must be trained on the classes of the data first; checks the extra teachers as well.

    Raises:
        UserError: A teacher was trained on other classes.
    """
    known = known_classes(config, classes)
    for extra in config.pseudo.teachers:
        check_labeler(resolve_weights(extra, LABELERS), classes[: known or None])
    if known or not has_teacher(config):
        return False
    teacher = describe(resolve_weights(config["teacher"], "teacher"), "teacher")
    return teacher_needs_training(teacher, classes, config["teacher_train"])
