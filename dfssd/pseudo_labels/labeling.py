"""The pseudo-label stage: teacher inference, class thresholds, zones, files, and quality where the truth is known."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import img2label_paths

from dfssd.datasets.label_files import read_label_file
from dfssd.errors import UserError
from dfssd.pseudo_labels.labels import write_pseudo_labels
from dfssd.pseudo_labels.teacher_inference import predict
from dfssd.pseudo_labels.thresholds import ClassThresholds


def label_images(
    weights: Path,
    images: Sequence[Path],
    folder: Path,
    *,
    names: Sequence[str],
    imgsz: int,
    batch: int,
    device: str,
    tau_low: float,
    tau0: float,
    tau_max: float,
    ema_decay: float,
    iou: float,
) -> dict[str, Any]:
    """Label ``images`` with the teacher and write ``folder`` as a whole.

    The thresholds follow the confidences of all images first (batch by batch, in list order); the final thresholds
    then zone every detection, so the zone of a box does not depend on when its image was seen.

    Args:
        weights: The teacher, with the classes ``names`` in that order.
        images: Unlabelled images.
        folder: Where ``labels/`` and ``predictions.json`` go.
        names: Class names in id order.
        imgsz: Inference size [px].
        batch: Images per forward pass and per threshold update.
        device: Ultralytics device.
        tau_low: Scores below are background.
        tau0: Lowest class threshold.
        tau_max: Highest class threshold.
        ema_decay: Decay of the class confidence average.
        iou: IoU of the non-maximum suppression.

    Returns:
        The section ``pseudo_labels`` of ``results.json``. ``quality`` compares the accepted boxes with true labels
        where a data set has them (benchmark splits); they are read here for the report and used for nothing else.
    """
    thresholds = ClassThresholds(len(names), tau_low=tau_low, tau0=tau0, tau_max=tau_max, decay=ema_decay)
    predictions = list(predict(weights, images, imgsz=imgsz, batch=batch, device=device, conf=tau_low, iou=iou))
    for start in range(0, len(predictions), batch):
        part = predictions[start : start + batch]
        thresholds.update(
            np.concatenate([p.classes for p in part]).astype(int), np.concatenate([p.scores for p in part])
        )
    return write_pseudo_labels(folder, predictions, thresholds, names, truth=true_boxes(images, len(names)) or None)


def true_boxes(images: Sequence[Path], n_classes: int) -> dict[Path, np.ndarray]:
    """True boxes of those images that have a readable label file: image -> (n, 5) [class, x, y, w, h], xywh, 0-1.

    Labels beside unlabelled images are nobody's promise: one that is wrong counts as not known.
    """
    truth = {}
    for image, label in zip(images, img2label_paths([str(i) for i in images])):
        if Path(label).is_file():
            with contextlib.suppress(UserError):
                truth[Path(image)] = read_label_file(Path(label), n_classes)
    return truth
