"""Checks of a segmentation run before anything is computed: arguments and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfssd.config import Config
from dfssd.distillation.compatibility import resolve_weights
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.runs.checks import check_freeze, check_machine
from dfssd.runs.data import check_split
from dfssd.runs.model_selection import check_baseline
from dfssd.segmentation.model import SemanticSegmentationModel, build_model, load_semantic, parameters

TRIAL_CLASSES = 2
"""Classes of the networks that are built on trial: the fewest possible."""


def check_before_start(config: Config) -> Config:
    """Check everything that does not need the data, before a run folder is made.

    Returns:
        The configuration, as it is.

    Raises:
        UserError: Data not named, split without lists, model missing or of another task, or a device, precision, format
            or batch that cannot be used.
    """
    if config["data"] is None:
        raise UserError("data is missing: data=demo, a semantic data set YAML, a folder, a .zip, or NEU-Seg")
    check_split(config)
    check_machine(config)
    for role in ("student", "teacher"):
        if config[role] is not None:
            source = check_model(config[role], role)
            if freeze := config.train.get("freeze"):
                names = [name for name, _ in _on_trial(source, role).named_parameters()]
                check_freeze(freeze, f"{role}={config[role]}", names)
    others = compared(config)
    for other in others:
        check_model(other, "compare")
        if other == config["student"] or others.count(other) > 1:
            raise UserError(f"compare={other} is trained anyway; name each network once, and not the student")
    if isinstance(config["baseline"], str):
        check_baseline(Path(config["baseline"]), config)
    if config["guard"] and config["baseline"] is False and config["student_training"] != "skip":
        LOGGER.info("baseline=off: there is nothing to compare the student with, so it is selected in any case")
    return config


def check_model(value: str, role: str) -> str:
    """The name of a segmentation model, for :func:`~dfssd.segmentation.model.build_model`.

    Args:
        value: As given by the user; a ``.pt`` of Ultralytics is fetched if need be.
        role: The argument, for the message.

    Raises:
        UserError: It is no segmentation model, or does not exist.
    """
    if value.endswith(".pt") and not Path(value).is_file():
        if "-sem" not in value or len(Path(value).parts) > 1:
            raise UserError(
                f"{role}={value} does not exist, or is no segmentation model: give mffmetal-30 (or another width), "
                "smp:unet, yolo26n-sem.yaml, or a .pt trained on masks"
            )
        return resolve_weights(value, role)  # a release of Ultralytics, fetched
    _on_trial(value, role)
    return value


def _on_trial(value: str, role: str) -> SemanticSegmentationModel:
    """The network of that name, for the fewest classes."""
    try:
        return build_model(value, TRIAL_CLASSES)
    except UserError as e:
        raise UserError(f"{role}={value}: {e}") from e
    except Exception as e:  # a broken description, or too little memory: whatever the library stumbles over
        reason = " ".join(str(e).split())[:160] or type(e).__name__
        raise UserError(f"{role}={value} cannot be built ({reason}); give another network") from e


def size_of(value: str, role: str) -> float:
    """Parameters of the network of that name [millions].

    Raises:
        UserError: It cannot be built.
    """
    return parameters(_on_trial(check_model(value, role), role)) / 1e6


def compared(config: Config) -> list[str]:
    """The networks of ``compare``."""
    given = config["compare"] or []
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def must_train_teacher(config: Config, names: Sequence[str]) -> bool:
    """Whether the teacher has to be trained on these classes first.

    Raises:
        UserError: It was trained on other classes, or has no weights and must not be trained.
    """
    teacher, setting = config["teacher"], config["teacher_train"]
    if setting is True:
        return True
    trained = teacher.endswith(".pt")
    known = (
        [str(name) for _, name in sorted(load_semantic(check_model(teacher, "teacher")).names.items())]
        if trained
        else []
    )
    if known == list(names):
        return False
    if trained or setting is False:
        what = f"knows the classes {', '.join(known[:8])}" if trained else "has no trained weights"
        raise UserError(
            f"teacher={teacher} {what}, and the data has {', '.join(names)}; give a teacher of these, or let it be "
            "trained on them with teacher_train=true"
        )
    return True
