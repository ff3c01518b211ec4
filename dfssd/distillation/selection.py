"""Weight selection: a student starts from a part of the weights of its trained teacher (arXiv:2311.18823, ICLR 2024).

Networks of one family and depth differ in the widths of their layers only. Of a layer with b channels in the teacher
and a in the student, channel i of the student is channel floor(i b / a) of the teacher: evenly spaced, in every layer
alike, so that a channel still reads what it has learned to read, through concatenations and splits too. Normalizations
take their scale, shift and statistics along. What is not normalized (the last layers of the head) reads a / b of the
inputs it had, and its weights are multiplied by b / a, so that its outputs keep their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import Attention
from ultralytics.nn.tasks import DetectionModel

from dfssd.distillation.channels import held_channels
from dfssd.files import atomic_write
from dfssd.trust.checkpoints import load, load_checkpoint


def select(weights: Tensor, shape: torch.Size) -> Tensor:
    """Entries floor(i b / a) of each dimension of size b of ``weights``, for a new size a <= b in ``shape``.

    Raises:
        ValueError: ``shape`` has another number of dimensions, or is larger somewhere.
    """
    if weights.dim() != len(shape) or any(a > b for a, b in zip(shape, weights.shape)):
        raise ValueError(f"weights of shape {tuple(weights.shape)} have no part of shape {tuple(shape)}")
    for dimension, (a, b) in enumerate(zip(shape, weights.shape)):
        if a != b:
            weights = weights.index_select(dimension, held_channels(a, b).to(weights.device))
    return weights.clone()


def can_select(teacher: Any, student: Any) -> bool:
    """Whether every weight of ``student`` has a counterpart of the same name in ``teacher``, at least as large."""
    theirs = teacher.state_dict()
    return all(
        name in theirs
        and theirs[name].dim() == own.dim()
        and all(a <= b for a, b in zip(own.shape, theirs[name].shape))
        and own.shape[2:] == theirs[name].shape[2:]
        for name, own in student.state_dict().items()
    )


def select_weights(teacher: Any, student: Any) -> None:
    """Give ``student`` the selected weights of ``teacher``, in place.

    Attention keeps its own random weights: its rows are grouped by heads, whose number depends on the width.

    Args:
        teacher: Trained detection model.
        student: Detection model of the same classes for which :func:`can_select` holds.
    """
    theirs = teacher.state_dict()
    kept = tuple(f"{name}." for name, module in student.named_modules() if isinstance(module, Attention))
    state = student.state_dict()
    for name, own in state.items():
        if not (kept and name.startswith(kept)):
            state[name] = select(theirs[name].to(own.dtype), own.shape)
    for name, module in student.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            weight = f"{name}.weight"
            state[weight] = state[weight] * (theirs[weight].shape[1] / module.weight.shape[1])
    student.load_state_dict(state)


def has_part(teacher: str, student: str) -> bool:
    """Whether the architecture ``student`` can start at a part of ``teacher``; both are given by .yaml or .pt."""
    return can_select(*(_untrained(source, classes=1) for source in (teacher, student)))


def _untrained(source: str, classes: int, channels: int = 3) -> Any:
    """A network of the architecture in a .yaml, or in a checkpoint, with random weights."""
    architecture = load_checkpoint(source)[0].yaml if source.endswith(".pt") else source
    return DetectionModel(architecture, ch=channels, nc=classes, verbose=False)


def write_selected(teacher: Path, student: str, target: Path, seed: int) -> bool:
    """Write a student with the selected weights of a teacher to ``target``, a plain YOLO file.

    Args:
        teacher: Checkpoint of the trained teacher.
        student: Its architecture: a .yaml, or the .pt of any network that has it.
        target: Where to write it.
        seed: Of the weights that are not the teacher's.

    Returns:
        Whether the teacher has a counterpart of every weight; if not, nothing is written.
    """
    model: Any = load_checkpoint(str(teacher))[0].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = _untrained(student, len(model.names), model.yaml.get("channels", 3))
    if not can_select(model, small):
        return False
    select_weights(model, small)
    small.names, small.args = model.names, model.args
    checkpoint = load(teacher)
    with atomic_write(target) as temporary:
        torch.save({**checkpoint, "ema": None, "model": small.half()}, temporary)
    return True
