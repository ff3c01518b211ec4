"""New classes for a trained detector: rows added to the last layers of its head, everything else as it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfssd.distillation.compatibility import normalized
from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.trust.checkpoints import load
from dfssd.wording import counted

ROWS = ("cv3", "one2one_cv3")
"""Class branches of the head, whose last layers have one row per class."""


def check_prefix(teacher: str, known: Sequence[str], names: Sequence[str]) -> int:
    """Number of old classes: those of the teacher must be the first ones of the data, by name and in order.

    Args:
        teacher: Its file, for the message.
        known: Its class names.
        names: Class names of the data, old and new.

    Raises:
        UserError: They are not, or there is no new class.
    """
    for number, name in enumerate(known):
        if number >= len(names) or normalized(names[number]) != normalized(name):
            found = f"'{names[number]}'" if number < len(names) else "nothing"
            raise UserError(
                f"teacher={teacher} knows class {number} as '{name}', the data has {found} there: list the old classes "
                "first, in the teacher's order, then the new ones"
            )
    if len(names) == len(known):
        raise UserError(
            f"teacher={teacher} knows all of the data's {counted(len(known), 'class')} already: there is none to add"
        )
    seen = [normalized(name) for name in names]
    for number in range(len(known), len(names)):
        if seen[number] in seen[:number]:
            raise UserError(
                f"names: class {number}, '{names[number]}', is class {seen.index(seen[number])} again; give each "
                "class one id"
            )
    return len(known)


def grown(model: Any, names: Sequence[str], seed: int = 0) -> Any:
    """A detection model with rows added for ``names`` beyond its own classes; changed in place and returned.

    The old rows and all other weights stay bit for bit. New rows start as in a fresh network: uniform random weights
    within 1 / sqrt(input channels) and a bias for a rare class (Ultralytics' prior).

    Args:
        model: Detection model whose classes are the first of ``names``.
        names: All class names in id order.
        seed: Of the random weights, so that all trainings from this teacher start alike.
    """
    head = model.model[-1]
    old, new = head.nc, len(names)
    generator = torch.Generator().manual_seed(seed)
    for branch in ROWS:
        for level, stride in zip(getattr(head, branch, None) or (), head.stride.tolist()):
            last = level[-1]
            bigger: Any = nn.Conv2d(last.in_channels, new, 1).to(last.weight.device, last.weight.dtype)
            with torch.no_grad():
                bound = 1 / math.sqrt(last.in_channels)
                bigger.weight.copy_(torch.empty(bigger.weight.shape).uniform_(-bound, bound, generator=generator))
                bigger.bias.fill_(math.log(5 / new / (640 / stride) ** 2))
                bigger.weight[:old], bigger.bias[:old] = last.weight, last.bias
            level[-1] = bigger
    head.nc, head.no = new, new + 4 * head.reg_max
    model.nc, model.yaml, model.names = new, {**model.yaml, "nc": new}, dict(enumerate(names))
    return model


def write_grown(source: Path, names: Sequence[str], target: Path, seed: int = 0) -> None:
    """Write the detector in ``source``, :func:`grown` for ``names``, to ``target`` as a plain YOLO file."""
    checkpoint = load(source)
    model = (checkpoint.get("ema") or checkpoint["model"]).float()
    with atomic_write(target) as temporary:
        torch.save({**checkpoint, "ema": None, "model": grown(model, names, seed).half()}, temporary)


def same_old_rows(model: Any, teacher: Any, tolerance: float = 1e-3) -> bool:
    """Whether the class rows that ``teacher`` has are the first ones of ``model``, to half precision."""
    count = teacher.model[-1].nc
    for branch in ROWS:
        pairs = zip(getattr(model.model[-1], branch, None) or (), getattr(teacher.model[-1], branch, None) or ())
        for own, theirs in pairs:
            for kind in ("weight", "bias"):
                a, b = (getattr(level[-1], kind).detach().float().cpu() for level in (own, theirs))
                if a.shape[1:] != b.shape[1:] or not torch.allclose(a[:count], b, rtol=tolerance, atol=tolerance):
                    return False
    return True
