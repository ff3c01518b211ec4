"""The networks that label: read from what a line names, checked, and copied to where all workers read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment.facts import KEY, checked_facts
from dfssd.deployment.folder import FOLDER as DEPLOY
from dfssd.deployment.folder import MANIFEST
from dfssd.deployment.networks import FULL_BITS
from dfssd.distillation.compatibility import align_teacher, check_labeler, resolve_weights
from dfssd.errors import UserError
from dfssd.files import read_json
from dfssd.labeling.names import LARGEST
from dfssd.pseudo_labels.teacher_inference import STRIDE
from dfssd.trust.checkpoints import load

MODELS = "models"
"""Folder of the models, which all workers read."""

OF_A_RUN = ("deploy/pytorch/student.pt", "weights/student.pt")
IMGSZ = 640
"""Side of the input where a checkpoint does not tell [px]."""


@dataclass(frozen=True)
class Models:
    """Networks that label together.

    Attributes:
        files: Their checkpoints, for this machine.
        names: Class names in id order, those of the first one.
        imgsz: Side of the images that the first one was trained on [px].
        bits: That the camera of its training images used in files with more than 8 of them.
        preprocess: What was done to the pixels of its training images; None: nothing.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    imgsz: int
    bits: int
    preprocess: Mapping[str, Any] | None

    @property
    def steps(self) -> Preprocess | None:
        """As :attr:`preprocess`, to be applied."""
        return Preprocess(**self.preprocess) if self.preprocess else None

    def copies(self, folder: Path) -> tuple[Path, ...]:
        """Where :meth:`copy_to` writes them."""
        return tuple(folder / f"model-{number}.pt" for number in range(len(self.files)))

    def copy_to(self, folder: Path) -> None:
        """Write them where all workers read them, with one order of the classes."""
        folder.mkdir(exist_ok=True)
        for file, copy in zip(self.files, self.copies(folder), strict=True):
            align_teacher(str(file), self.names, copy)


def read_models(given: Sequence[str]) -> Models:
    """The networks that a line names.

    Args:
        given: Each a ``.pt``, a ``.safetensors``, or the folder of a run, whose student is meant.

    Raises:
        UserError: One does not exist, finds no boxes, or does not know a class of the first one.
    """
    files = [_file_of(Path(one).expanduser()) for one in given]
    names = check_labeler(str(files[0]), role="model")
    for file in files[1:]:
        check_labeler(str(file), names, "model")
    for one, file in zip(given, files, strict=True):
        _check_weights(one, file)
    content = load(files[0])
    about = checked_facts(content.get(KEY) or read_json(files[0].parent.parent / DEPLOY / MANIFEST), given[0])
    arguments = content.get("train_args")
    side = arguments.get("imgsz") if isinstance(arguments, dict) else None
    known = side if type(side) is int and STRIDE <= side <= LARGEST else IMGSZ
    return Models(
        files=tuple(files),
        names=names,
        imgsz=math.ceil(known / STRIDE) * STRIDE,
        bits=about.get("bits", FULL_BITS),
        preprocess=about.get("preprocess"),
    )


def _check_weights(given: str, file: Path) -> None:
    """Refuse a network that computes nothing.

    Raises:
        UserError: Some of its weights are no finite numbers.
    """
    content = load(file)
    network = content.get("ema") or content["model"]
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        raise UserError(f"model={given}: holds weights that are no numbers (NaN or infinite): train it again")


def _file_of(given: Path) -> Path:
    if given.is_dir():
        found = next((given / name for name in OF_A_RUN if (given / name).is_file()), None)
        if found is None:
            raise UserError(f"model={given}: is no run with a student of boxes: it has no weights/student.pt")
        return found
    if given.suffix.lower() not in {".pt", ".safetensors"}:
        raise UserError(f"model={given}: images are labeled by a .pt, a .safetensors, or the student of a run folder")
    return Path(resolve_weights(str(given), "model"))
