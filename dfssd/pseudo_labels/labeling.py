"""The pseudo-label stage: teacher inference, class thresholds, zones, files, and quality where true boxes are known."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import img2label_paths

from dfssd.config.sections import PseudoSection
from dfssd.datasets.label_files import read_label_file
from dfssd.distributed import group
from dfssd.distributed.crew import call_others, own_device
from dfssd.distributed.place import place
from dfssd.errors import UserError
from dfssd.pseudo_labels.files import write_pseudo_labels
from dfssd.pseudo_labels.fusion import fuse
from dfssd.pseudo_labels.quality import find_matches
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.teacher_inference import Inference, View, augmented_views, forward_batch
from dfssd.pseudo_labels.thresholds import ClassThresholds, precision_thresholds

MATCH_IOU = 0.5
"""Minimum IoU with a true box at which a box counts as correct."""


def label_images(
    weights: Path | Sequence[Path],
    images: Sequence[Path],
    folder: Path,
    *,
    names: Sequence[str],
    imgsz: int,
    batch: int,
    device: str,
    rule: PseudoSection,
    val: Sequence[Path] = (),
    n_label_classes: int | None = None,
) -> dict[str, Any]:
    """Label ``images`` with the teacher and write ``folder``, completely or not at all.

    First the thresholds are updated with the confidences of all images (batch by batch, in list order); the final
    thresholds then assign every detection to its zone, which thus does not depend on the order of the images.

    Where several processes share a run, each predicts for a part of the images, with the same result.

    Several teachers, or several views of test-time augmentation, or both, are fused once, all with the same weight, by
    :func:`dfssd.pseudo_labels.fusion.fuse`, which defines the fused score.

    With ``rule.precision`` the threshold of a class is the lowest score at which the predictions of the teacher on the
    ``val`` images, made in the same way, reach that precision
    (:func:`dfssd.pseudo_labels.thresholds.precision_thresholds`). Classes with too few detections on ``val`` follow the
    average as without it. The best epoch of the teacher was selected on ``val``, too, so the precision elsewhere is a
    little lower.

    Args:
        weights: The teacher, or several, each with the classes ``names`` in that order.
        images: Unlabeled images.
        folder: Where ``labels/`` and ``predictions.json`` go.
        names: Class names in id order.
        imgsz: Inference size [px].
        batch: Images per forward pass and per threshold update.
        device: Ultralytics device.
        rule: How the teacher predicts, and which of its detections are accepted.
        val: Labeled images, used with ``rule.precision`` only. One without label file is free of defects, as in
            Ultralytics' validation.
        n_label_classes: Number of classes in label files, if they cover more than the teacher knows; None: the same.

    Returns:
        The section ``pseudo_labels`` of ``results.json``: that of :func:`write_pseudo_labels`, and ``settings``, with
        the number of ``teachers``, ``tta`` and ``precision``. ``quality`` compares the accepted boxes with true labels
        where a data set has them (benchmark splits); they are used for the report only.

    Raises:
        UserError: An image or a label file of ``val`` cannot be read, or the folder cannot be written to.
        ValueError: There is no teacher, or a setting is outside its range.
    """
    teachers = [weights] if isinstance(weights, (str, Path)) else list(weights)
    if not teachers:
        raise ValueError("at least one teacher must be given")
    if rule.precision is not None and not 0 < rule.precision <= 1:
        raise ValueError(f"precision={rule.precision} must be above 0 and at most 1")
    thresholds = ClassThresholds.from_rule(len(names), rule)  # raises before hours of inference
    n_label_classes = n_label_classes or len(names)

    def detect(at: Sequence[Path], what: str) -> list[ImagePrediction]:
        request = _Request(teachers, at, imgsz, batch, device, rule, what)
        call_others(_detect_and_send, request)
        return _detect(request) if place().world == 1 else _detect_and_send(request)

    if rule.precision is not None:
        found = match_to_truth(detect(val, "val images"), labels_of(val, n_label_classes))
        fixed = precision_thresholds(*found, len(names), precision=rule.precision, tau_low=rule.tau_low)
        thresholds = ClassThresholds.from_rule(len(names), rule, fixed)
    predictions = detect(images, "unlabeled images")
    for start in range(0, len(predictions), batch):
        part = predictions[start : start + batch]
        thresholds.update(
            np.concatenate([p.classes for p in part]).astype(int), np.concatenate([p.scores for p in part])
        )
    section = write_pseudo_labels(
        folder, predictions, thresholds, names, truth=true_boxes(images, len(names), n_label_classes) or None
    )
    return {**section, "settings": {"teachers": len(teachers), "tta": rule.tta, "precision": rule.precision}}


@dataclass(frozen=True)
class _Request:
    """What is to be detected.

    Attributes:
        teachers: Files of the teachers.
        images: All images, of which each process takes a part.
        imgsz: As in :func:`label_images`.
        batch: As in :func:`label_images`.
        device: As in :func:`label_images`; several GPUs are those of the processes of a node.
        rule: As in :func:`label_images`.
        what: Word for the images in the progress bar.
    """

    teachers: Sequence[Path]
    images: Sequence[Path]
    imgsz: int
    batch: int
    device: str
    rule: PseudoSection
    what: str


def _detect(request: _Request) -> list[ImagePrediction]:
    """Detections of the images of this process, in their order."""
    rule, device = request.rule, own_device(request.device)
    views = augmented_views(request.imgsz) if rule.tta else (View(request.imgsz),)
    mine = part_of(request.images, forward_batch(request.batch, max(view.imgsz for view in views), device))
    inference = Inference(request.teachers, views, batch=request.batch, device=device, conf=rule.tau_low, iou=rule.iou)
    return [fuse(looks, score_floor=rule.tau_low) for looks in inference.predict(mine, request.what)]


def _detect_and_send(request: _Request) -> list[ImagePrediction]:
    """:func:`_detect` in each process; the first one gets what all have found, in the order of the images."""
    return [found for part in group.gather(_detect(request)) for found in part]


def part_of(images: Sequence[Path], batch: int) -> Sequence[Path]:
    """The images of this process: whole batches, so that each is computed as one process would, in one piece.

    Args:
        images: All images.
        batch: Images in a forward pass.
    """
    mine, batches = place(), math.ceil(len(images) / batch)
    start, end = (batch * (batches * rank // mine.world) for rank in (mine.rank, mine.rank + 1))
    return images[start:end]


def match_to_truth(
    predictions: Sequence[ImagePrediction], truth: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which detections are correct: matched class by class at IoU 0.5, greedily by falling score.

    Args:
        predictions: Predictions for images with known true boxes.
        truth: Their true boxes, each (m, 5) rows [class id, x, y, w, h], xywh center format normalized to 0-1.

    Returns:
        Class ids (n,) int64, scores (n,) and whether each found a true box of its own (n,) bool, over all images.
    """
    classes, scores, correct = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for prediction, true in zip(predictions, truth, strict=True):
        for c in np.unique(prediction.classes):
            mine = prediction.classes == c
            real = true[true[:, 0] == c, 1:]
            classes.append(prediction.classes[mine])
            scores.append(prediction.scores[mine])
            correct.append(find_matches(prediction.boxes_xywhn[mine], prediction.scores[mine], real, MATCH_IOU))
    return np.concatenate(classes), np.concatenate(scores), np.concatenate(correct)


def labels_of(images: Sequence[Path], n_classes: int) -> list[np.ndarray]:
    """True boxes of labeled images, (m, 5) each; unlike in :func:`true_boxes`, an invalid file is an error."""
    labels = [Path(label) for label in img2label_paths([str(i) for i in images])]
    return [read_label_file(p, n_classes) if p.is_file() else np.zeros((0, 5), dtype=np.float32) for p in labels]


def true_boxes(images: Sequence[Path], n_classes: int, n_label_classes: int | None = None) -> dict[Path, np.ndarray]:
    """True boxes of those images that have a readable label file: image -> (n, 5) [class, x, y, w, h], xywh, 0-1.

    Labels of unlabeled images are not guaranteed to be correct: an invalid file counts as unknown. Boxes of class ids
    from ``n_classes`` up to ``n_label_classes``, which the teacher does not know yet, are left out.
    """
    truth = {}
    for image, label in zip(images, img2label_paths([str(i) for i in images])):
        if Path(label).is_file():
            with contextlib.suppress(UserError):
                boxes = read_label_file(Path(label), n_label_classes or n_classes)
                truth[Path(image)] = boxes[boxes[:, 0] < n_classes]
    return truth
