"""Checks of a teacher and student before anything is trained, and the class map between them.

A mismatched pair trains silently in Ultralytics 8.4.190 (a teacher with other classes, another family, a segmentation
teacher), and the damage shows only in the result. Here every mismatch is an error that says what to do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml
from ultralytics.utils.downloads import GITHUB_ASSETS_STEMS, attempt_download_asset

from dfssd.deployment.tensors import SUFFIX, as_checkpoint
from dfssd.errors import UserError, reason
from dfssd.files import atomic_write, load_yaml
from dfssd.pseudo_labels.families import family_of, keep_classes
from dfssd.trust.architectures import check_description
from dfssd.trust.checkpoints import load, load_checkpoint
from dfssd.wording import counted

LABELERS = "pseudo.teachers"
"""The argument with further detectors that label images, beside ``teacher`` and ``student``, which form a pair."""


@dataclass(frozen=True)
class ModelFacts:
    """What must match between two detectors.

    Attributes:
        source: The file or architecture name, as given.
        family: Model family, for example ``yolov8``; ``""`` if unknown.
        strides: Strides of the detection levels [px], for example (8, 16, 32).
        head: Number of the head layer.
        reg_max: Bins of the box distribution per side (16 in YOLOv8, 1 means no distribution).
        names: Class names in id order.
        end2end: Whether it predicts by a one-to-one branch, without non-maximum suppression.
        trained: Whether it has weights from a checkpoint.
        parameters: Names of its parameters.
        size: Number of its parameters [millions].
    """

    source: str
    family: str
    strides: tuple[int, ...]
    head: int
    reg_max: int
    names: tuple[str, ...]
    end2end: bool
    trained: bool
    parameters: tuple[str, ...] = ()
    size: float = 0.0


def resolve_weights(value: str, role: str) -> str:
    """Path of a model given by the user: an existing file, a known architecture, or a release that can be fetched.

    Args:
        value: ``.pt``, ``.safetensors`` or ``.yaml`` name or path.
        role: The argument, for the message.

    Raises:
        UserError: Not a model file, or missing and unavailable; the message names the alternative.
    """
    path = Path(value)
    if path.suffix in {".yaml", ".yml"}:
        try:
            if path.is_file():
                load_yaml(path)  # Ultralytics would write out any number of aliases
            check_description(yaml_model_load(value), f"{role}={value}")
        except UserError:
            raise
        except FileNotFoundError as e:
            raise UserError(
                f"{role}={value}: no such architecture; use yolov8n.yaml, yolov8s.yaml or your own file"
            ) from e
        except Exception as e:  # a broken file: whatever the parser stumbles over
            raise UserError(f"{role}={value} is not a model description: {reason(e)}") from e
        return value
    if path.suffix == SUFFIX:
        try:
            return str(as_checkpoint(path))
        except UserError as e:
            raise UserError(f"{role}={e}") from e
    if path.suffix != ".pt":
        raise UserError(f"{role}={value} is not a model: give a .pt file or an architecture such as yolov8n.yaml")
    if path.is_file():
        return str(path.resolve())
    alternative = (
        f"{path.stem}.yaml" if path.stem in GITHUB_ASSETS_STEMS else f"yolov8{'s' if role == 'teacher' else 'n'}.yaml"
    )
    untrained = f", or start from random weights with {role}={alternative}" if role in {"teacher", "student"} else ""
    if len(path.parts) == 1 and path.stem in GITHUB_ASSETS_STEMS:
        try:
            fetched = Path(attempt_download_asset(value))
        except Exception as e:
            raise UserError(
                f"{role}={value} is not here and could not be downloaded ({reason(e)}): put the file into the current "
                f"folder{untrained}"
            ) from e
        if fetched.is_file():
            return str(fetched.resolve())
    raise UserError(f"{role}={value}: no such file; give the path of a .pt{untrained}")


def describe(source: str, role: str) -> ModelFacts:
    """Read the facts of a model from its checkpoint or architecture file; once, unless the file changes.

    Raises:
        UserError: The file is no Ultralytics checkpoint, or the model is not a plain detector.
    """
    return _described(source, role, _state(source))


def _state(source: str) -> tuple[int, int] | None:
    """Time and size of a file, which change with it; None for the name of an architecture."""
    file = Path(source)
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None


def _read(source: str, role: str) -> tuple[Any, Any]:
    """The network of a checkpoint or architecture, and its last layer; None for one without layers."""
    try:
        model: Any = load_checkpoint(source)[0] if source.endswith(".pt") else DetectionModel(source, verbose=False)
    except UserError as e:
        raise UserError(*(f"{role}={problem}" for problem in e.problems)) from e
    except Exception as e:
        raise UserError(
            f"{role}={source} cannot be read as an Ultralytics model: it is damaged, or something else ({reason(e)})"
        ) from e
    check_description(getattr(model, "yaml", None) or {}, f"{role}={source}")
    return model, model.model[-1] if hasattr(model, "model") else None


def _kind(model: Any, head: Any) -> str:
    return type(model if head is None else head).__name__


def _class_names(model: Any) -> tuple[str, ...]:
    names = model.names if isinstance(model.names, Mapping) else dict(enumerate(model.names))
    return tuple(str(names[k]) for k in sorted(names))


@functools.lru_cache(maxsize=16)  # the network is built for it, which takes a second
def _described(source: str, role: str, _: tuple[int, int] | None) -> ModelFacts:
    trained = source.endswith(".pt")
    model, head = _read(source, role)
    if type(head) is not Detect:  # its subclasses segment, estimate poses, read prompts or lack the one-to-many head
        kind = _kind(model, head)
        if role == "teacher" and family_of(head):
            raise UserError(
                f"teacher={source} cannot be compared with a student (its head is {kind}); it can help to label "
                f"images: {LABELERS}={source} beside a YOLO as teacher"
            )
        raise UserError(f"{role}={source} is not a detector (its head is {kind}); give a detection model")
    return ModelFacts(
        source=source,
        family=_family(model, source),
        strides=tuple(int(s) for s in torch.as_tensor(model.stride).flatten()),
        head=int(head.i),
        reg_max=int(head.reg_max),
        names=_class_names(model),
        end2end=bool(head.end2end),
        trained=trained,
        parameters=tuple(name for name, _ in model.named_parameters()),
        size=sum(values.numel() for values in model.parameters()) / 1e6,
    )


def _family(model: nn.Module, source: str) -> str:
    """``yolov8`` from the architecture's file name (kept in checkpoints), else from the file name."""
    yaml = getattr(model, "yaml", {}) or {}
    for text in (str(yaml.get("yaml_file", "")), str(source)):
        if match := re.search(r"(yolov?\d+)", Path(text).name.lower()):
            return match.group(1)
    return ""


def normalized(name: str) -> str:
    """Class name without case, underscores and hyphens: ``Oil_Spots`` and ``oil spots`` are the same class."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))


def map_classes(teacher_names: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Position of each data class among the teacher's classes, matched by name; None if one is missing."""
    where = {normalized(n): i for i, n in enumerate(teacher_names)}
    found = [where.get(normalized(n)) for n in names]
    return None if any(i is None for i in found) else [i for i in found if i is not None]


def align_teacher(source: str, names: Sequence[str], target: Path) -> None:
    """Write a teacher to ``target`` with exactly the classes ``names`` in that order, as a plain Ultralytics file.

    The rows of the last classification layers are picked by class name, so every later stage can rely on one class
    order, and the file in the run folder predicts the classes of the data set.

    Args:
        source: A trained detector of one of the :mod:`~dfssd.pseudo_labels.families`.
        names: Class names in id order.
        target: The file to write.

    Raises:
        UserError: The teacher does not know one of the classes.
    """
    checkpoint = load(source)
    model = (checkpoint.get("ema") or checkpoint["model"]).float()
    known = _class_names(model)
    rows = map_classes(known, names)
    if rows is None:
        raise UserError(f"teacher={source} does not know all of: {', '.join(names)}")
    if rows != list(range(len(known))):
        keep_classes(model.model[-1], rows)
        model.nc, model.yaml = len(rows), {**model.yaml, "nc": len(rows)}
    model.names = dict(enumerate(names))
    with atomic_write(target) as temporary:
        torch.save({**checkpoint, "ema": None, "model": model.half()}, temporary)


def is_coco(names: Iterable[str]) -> bool:
    """Whether these are the 80 classes of the public pretrained models."""
    coco = YAML.load(check_yaml("coco.yaml"))["names"]
    return [normalized(n) for n in names] == [normalized(n) for n in coco.values()]


def teacher_needs_training(teacher: ModelFacts, names: Sequence[str], setting: str | bool) -> bool:
    """Decide ``teacher_train=auto`` and check the classes of a teacher that is to be used as is.

    Raises:
        UserError: The teacher was trained on other classes, or ``teacher_train=false`` without a trained teacher.
    """
    mapped = teacher.trained and map_classes(teacher.names, names) is not None
    if setting is True:
        return True
    if mapped:
        return False
    if setting is False or (teacher.trained and not is_coco(teacher.names)):
        missing = sorted(set(map(normalized, names)) - set(map(normalized, teacher.names)))
        what = f"does not know {', '.join(missing)}" if teacher.trained else "has no trained weights"
        raise UserError(
            f"teacher={teacher.source} {what} (its classes: {', '.join(teacher.names[:12])}); "
            "give a teacher trained on these classes, or let it be trained with teacher_train=true"
        )
    return True


def check_labeler(source: str, names: Sequence[str] | None = None, role: str = LABELERS) -> tuple[str, ...]:
    """Check a detector that is to label images, of any family; return its class names in id order.

    Args:
        source: The file, as given.
        names: Class names that it has to know, once they are known.
        role: The argument, for the message.

    Raises:
        UserError: It has no trained weights, is no detector whose boxes can be fused, or does not know a class.
    """
    known = _labeler_classes(source, role, _state(source))
    if names is not None and map_classes(known, names) is None:
        missing = sorted(set(map(normalized, names)) - set(map(normalized, known)))
        raise UserError(
            f"{role}={source} does not know {', '.join(missing)} (its classes: {', '.join(known[:12])}); "
            f"train it on the labels first: {_training(source)}"
        )
    return known


def _training(source: str) -> str:
    """The command of Ultralytics that trains a detector on the labels of a run."""
    return f"yolo detect train model={source} data=<run>/splits/data.yaml"


@functools.lru_cache(maxsize=16)
def _labeler_classes(source: str, role: str, _: tuple[int, int] | None) -> tuple[str, ...]:
    if not source.endswith(".pt"):
        raise UserError(f"{role}={source} has no trained weights; train it first: {_training(source)}")
    model, head = _read(source, role)
    if family_of(head) is None:
        raise UserError(
            f"{role}={source} finds no boxes that can be used (its head is {_kind(model, head)}); "
            "give a YOLO or RT-DETR detector"
        )
    names = _class_names(model)
    if len(set(names)) != head.nc or len(names) != head.nc:
        known = counted(len(set(names)), "name")
        raise UserError(f"{role}={source} finds {counted(head.nc, 'class')}, but has {known} for them")
    return names


def check_bins(model: ModelFacts, needing: Sequence[str], role: str = "student") -> None:
    """Check that the student has box distributions, if a term compares them.

    Args:
        model: Facts of the student, or of the teacher that it is grown from.
        needing: The terms in use that need distributions.
        role: The argument that the model was given by, for the message.

    Raises:
        UserError: It has none.
    """
    if needing and model.reg_max < 2:
        off = " ".join(f"{name}.weight=0" for name in needing)
        raise UserError(
            f"{role}={model.source} has no box distribution (reg_max 1), which {', '.join(needing)} "
            f"need{'s' if len(needing) == 1 else ''}; switch off with {off}"
        )


def check_pair(teacher: ModelFacts, student: ModelFacts) -> None:
    """Check that the outputs of both models can be compared anchor by anchor.

    Args:
        teacher: Facts of the teacher.
        student: Facts of the student.

    Raises:
        UserError: Different family, strides, number of levels or bins.
    """
    pair = f"teacher={teacher.source} and student={student.source}"
    if teacher.strides != student.strides:
        raise UserError(
            f"{pair} have different detection levels (strides {teacher.strides} and {student.strides}); "
            "use two models of the same kind, for example yolov8s and yolov8n"
        )
    if teacher.family and student.family and teacher.family != student.family:
        raise UserError(
            f"{pair} are of different families ({teacher.family}, {student.family}); "
            "use a teacher of the student's family"
        )
    if teacher.reg_max != student.reg_max:
        raise UserError(
            f"{pair} describe boxes differently (reg_max {teacher.reg_max} and {student.reg_max}); "
            "use two models of the same family"
        )
