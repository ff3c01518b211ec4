"""What can be refused before anything is computed: arguments, models, devices and formats."""

from __future__ import annotations

from collections.abc import Sequence

from dfssd.config import Config
from dfssd.distillation.compatibility import check_pair, describe, resolve_weights, teacher_needs_training
from dfssd.errors import UserError
from dfssd.export import check_formats
from dfssd.hardware import check_device, check_room, resolve_amp


def check_before_start(config: Config) -> None:
    """Check everything that does not need the data, before a run folder is made.

    Raises:
        UserError: Data not named, model missing or no detector, pair that does not match, device, precision, format
            or batch that cannot be used.
    """
    if config["data"] is None:
        raise UserError("data is missing: data=demo, a dataset YAML, a folder, a .zip, or a name such as CR7-DET")
    device = check_device(config.train.get("device"))
    check_room(device)
    resolve_amp(config.train.get("amp"), device)
    check_formats(config["format"].split(","))
    _check_training(config)
    batch = config.train.get("batch", 16)
    if not isinstance(batch, int) or batch < 2:
        raise UserError(f"batch={batch}: give a whole number of at least 2; budgets are matched in batches of one size")
    facts = [describe(resolve_weights(config[role], role), role) for role in ("teacher", "student")]
    teacher, student = facts
    check_pair(teacher, student, needs_dfl="response_dfl" in config.terms)
    if config["layers"] != "auto" and max(config["layers"]) >= min(teacher.head, student.head):
        last = min(teacher.head, student.head) - 1
        raise UserError(f"layers={config['layers']}: these models have layers 0 to {last} before the head")
    print(
        f"[dfssd] teacher {config['teacher']} and student {config['student']} match: family {student.family or '?'}, "
        f"strides {student.strides}, {student.reg_max} bins per box side"
    )


OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
"""What Ultralytics 8.4.190 builds (tested)."""


def _check_training(config: Config) -> None:
    """Values that Ultralytics accepts here and stumbles over in the middle of a run."""
    train = config.train
    for key, low in (("epochs", 1), ("imgsz", 32)):
        value = train.get(key, low)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise UserError(f"{key}={value}: must be a whole number >= {low}")
    optimizer = str(train.get("optimizer", "auto"))
    if optimizer.lower() not in {o.lower() for o in OPTIMIZERS}:
        raise UserError(f"optimizer={optimizer}: must be one of {', '.join(OPTIMIZERS)}")


def teacher_is_to_be_trained(config: Config, classes: Sequence[str]) -> bool:
    """Check the teacher against the classes of the data; whether it has to be trained on them first.

    Raises:
        UserError: It was trained on other classes.
    """
    teacher = describe(resolve_weights(config["teacher"], "teacher"), "teacher")
    return teacher_needs_training(teacher, classes, config["teacher_train"])
