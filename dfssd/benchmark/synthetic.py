"""A small generated data set, and a teacher with random weights, for measurements that need no trained networks.

The pixels are noise with a coarse structure, so that decoding and changing a view cost what they cost for a photo.
Random weights are as fast as trained ones; a random teacher is biased to detect about 20 boxes per image, so that
labeling during the training has realistic work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfssd.config import Config
from dfssd.files import write_yaml
from dfssd.pseudo_labels.files import write_pseudo_labels
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.thresholds import ClassThresholds

CLASSES = 7
BOXES, IGNORED = 3, 2
"""Boxes to learn in each photo, and ignored ones in each unlabeled photo: about as in CR7-DET."""
MARKED = 20
"""Boxes per image above ``pseudo.tau_low`` that a random teacher is biased to detect."""
SPREAD = 2.0
"""Standard deviation of its class logits."""


def photo(random: np.random.Generator, side: int) -> np.ndarray:
    """Gray noise with a coarse structure, (side, side, 3) uint8."""
    coarse = random.integers(60, 200, (8, 8), dtype=np.uint8)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    gray = (smooth + random.integers(-25, 26, (side, side), dtype=np.int16)).clip(0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """``count`` boxes inside the image: (count, 4), xywh center format, shares of the image."""
    side = 0.08 + 0.3 * random.random((count, 2))
    found: np.ndarray = np.concatenate([side / 2 + (1 - side) * random.random((count, 2)), side], axis=1)
    return found


def write_photos(folder: Path, *, side: int, labeled: int, unlabeled: int, names: Sequence[str], masks: bool) -> Path:
    """Write photos with boxes or masks, from a fixed seed; return the data set YAML.

    Args:
        folder: Where to; ``images/`` and ``labels/`` or ``masks/`` are made there.
        side: Side of the photos [px].
        labeled: Photos to train on; more if that many do not show all classes, as those for validation and test do.
        unlabeled: Photos without labels.
        names: Class names; with masks, the first one is the background.
        masks: A class for each pixel instead of boxes.
    """
    random = np.random.default_rng(0)
    few = math.ceil((len(names) - masks) / BOXES)
    parts = {"train": max(labeled, few), "val": few, "test": few, "unlabeled": unlabeled}
    for part, count in parts.items():
        for number in range(count):
            file = folder / "images" / part / f"{part}{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = photo(random, side)
            label = folder / ("masks" if masks else "labels") / part / file.stem
            label.parent.mkdir(parents=True, exist_ok=True)
            found = sorted(boxes(random, BOXES), key=lambda box: -box[2] * box[3])  # a small one hides no other
            classes = [masks + (BOXES * number + k) % (len(names) - masks) for k in range(BOXES)]
            mask = np.zeros((side, side), np.uint8)
            for class_id, (x, y, w, h) in zip(classes, (box * side for box in found)):
                area = np.s_[int(y - h / 2) : int(y + h / 2), int(x - w / 2) : int(x + w / 2)]
                pixels[area] = (pixels[area] // 2) + 12 * class_id
                mask[area] = class_id
            cv2.imwrite(str(file), pixels)
            if part == "unlabeled":
                continue
            if masks:
                cv2.imwrite(str(label.with_suffix(".png")), mask)
            else:
                rows = (f"{c} {' '.join(f'{v:.6f}' for v in box)}\n" for c, box in zip(classes, found))
                label.with_suffix(".txt").write_text("".join(rows), encoding="utf-8")
    tree: dict[str, Any] = {part: f"images/{part}" for part, count in parts.items() if count}
    tree |= {"path": str(folder), "names": dict(enumerate(names))} | ({"masks_dir": "masks"} if masks else {})
    write_yaml(folder / "data.yaml", tree)
    return folder / "data.yaml"


def write_labels(folder: Path, images: Sequence[Path], names: Sequence[str], config: Config, side: int) -> None:
    """Write pseudo-labels as the teacher would: :data:`BOXES` accepted and :data:`IGNORED` ignored boxes per photo."""
    random = np.random.default_rng(1)
    rule = config.pseudo
    doubtful = (rule.tau_low + rule.tau0) / 2
    predictions = [
        ImagePrediction(
            image=image,
            width=side,
            height=side,
            classes=random.integers(0, len(names), BOXES + IGNORED),
            scores=np.r_[0.5 + 0.5 * random.random(BOXES), np.full(IGNORED, doubtful)].astype(np.float32),
            boxes_xywhn=boxes(random, BOXES + IGNORED).astype(np.float32),
        )
        for image in images
    ]
    write_pseudo_labels(folder, predictions, ClassThresholds.from_rule(len(names), rule), names)


def mark_boxes(teacher: Any, images: Any, score: float) -> None:
    """Give a detector with random weights class scores like those of a trained one.

    The features of a fresh network fade on their way, and its scores are nearly constant. Here the logits differ by
    about :data:`SPREAD` from place to place, and :data:`MARKED` boxes per image score at least ``score``.

    Args:
        teacher: Detector, in evaluation mode afterwards.
        images: (N, 3, H, W) in [0, 1].
        score: In (0, 1).
    """
    import torch

    head = teacher.model[-1]
    norms = [module for module in teacher.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    usual = [module.momentum for module in norms]
    for module in norms:
        module.momentum = None  # the mean over all batches, here one
    with torch.no_grad():
        for branch in head.cv3:
            torch.nn.init.normal_(branch[-1].weight)
        teacher.train()(images)
        for module, momentum in zip(norms, usual):
            module.momentum = momentum
        factor = SPREAD / _logits(teacher, images).std()
        for branch in head.cv3:
            branch[-1].weight *= factor
            branch[-1].bias.zero_()
        best = _logits(teacher, images).amax(1).flatten()
        level = best.topk(min(MARKED * len(images), len(best))).values[-1]
        for branch in head.cv3:
            branch[-1].bias += math.log(score / (1 - score)) - level


def _logits(teacher: Any, images: Any) -> Any:
    """Class logits in inference, (N, nc, A)."""
    raw = teacher.eval()(images)[1]
    return raw.get("one2many", raw)["scores"]


def write_teacher(source: str, file: Path, names: Sequence[str]) -> None:
    """Save a network with random weights as a trained checkpoint.

    Args:
        source: Its ``.yaml``, or the name of a mask network.
        file: The checkpoint.
        names: Class names.
    """
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from dfssd.segmentation.model import build_model

    torch.manual_seed(0)
    named, masks = dict(enumerate(names)), not source.endswith((".yaml", ".yml")) or "-sem" in Path(source).stem
    model = build_model(source, len(names), named) if masks else DetectionModel(source, nc=len(names), verbose=False)
    model.names = named
    _save(model, "semantic" if masks else "detect", file)


def calibrate_teacher(file: Path, images: Any, score: float) -> None:
    """:func:`mark_boxes` for the detector of a checkpoint."""
    from dfssd.trust.checkpoints import load_checkpoint

    model = load_checkpoint(file)[0].float()
    mark_boxes(model, images, score)
    _save(model, "detect", file)


def _save(model: Any, task: str, file: Path) -> None:
    import torch

    model.args = {"task": task}
    torch.save({"model": model.half(), "train_args": model.args, "epoch": -1}, file)
