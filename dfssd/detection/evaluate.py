"""Detection metrics of one weight file on one split, as plain numbers, and the detections they were computed from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.evaluation.detections import DETECTIONS, PREDICTIONS, Detections
from dfssd.evaluation.settings import EvalSettings, quiet

CURVE_POINTS = 101
"""Recall points of the precision-recall curve: 0, 0.01, ..., 1 (the sampling of COCO)."""


def evaluate(
    weights: Path,
    settings: EvalSettings,
    *,
    save_dir: Path,
    keep_detections: bool = False,
    confidence: float | None = None,
) -> dict[str, Any]:
    """Measure a detector with Ultralytics' validator, so that ``yolo val`` gives the same average precision.

    Args:
        weights: ``.pt`` or exported file (an exported file with fixed input shape is always run on squares).
        settings: What to measure it on.
        save_dir: Folder for what Ultralytics writes and for the detections.
        keep_detections: Write ``detections.npz`` into ``save_dir``, from which differences between detectors get their
            confidence intervals, and ``predictions.npz``, from which thresholds are chosen
            (:class:`~dfssd.evaluation.detections.Detections`).
        confidence: Score threshold of precision and recall of the predictions, chosen elsewhere, in [0, 1]; None: the
            one with the highest mean F1 on this split, and both as ``yolo val`` has them.

    Returns:
        ``map50``, ``map50_95``: mean over the classes present of the average precision at IoU 0.5, and of its mean over
        IoU 0.50, 0.55, ..., 0.95. ``precision``, ``recall``: means over the classes at the score threshold
        ``confidence``. ``per_class``: name -> ``ap50``, ``ap50_95``, ``precision``, ``recall`` (None for a class
        without boxes in the split) and ``instances``. ``pr_curve``: ``recall`` and ``precision``, 101 points each,
        precision at IoU 0.5 as mean over the classes present. ``images``, ``instances``: counts. All values are in
        [0, 1]; the means are None if the split has no boxes at all.

    Raises:
        UserError: The weights are missing, or the data have no such split.
    """
    from dfssd.detection.recording import RecordingValidator
    from dfssd.trust.checkpoints import open_yolo

    settings.check(weights)
    model = open_yolo(weights, task="detect")
    kept: list[RecordingValidator] = []
    model.add_callback("on_val_end", kept.append)
    save_dir = save_dir.absolute()
    new_folders = [folder for folder in (save_dir, *save_dir.parents) if not folder.exists()]
    with quiet():
        metrics = model.val(
            validator=RecordingValidator,
            data=str(settings.data_yaml),
            split=settings.split,
            imgsz=settings.imgsz,
            batch=settings.batch,
            device=settings.device,
            rect=settings.rect,
            plots=False,
            verbose=False,
            project=str(save_dir.parent),
            name=save_dir.name,
            exist_ok=True,
        )
    predicted = kept[0].predictions()
    if keep_detections:
        kept[0].detections().write(save_dir / DETECTIONS)
        predicted.write(save_dir / PREDICTIONS)
    else:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not empty: something was written after all
                folder.rmdir()
    result = plain_metrics(metrics, images=len(predicted.images))
    return result if confidence is None else at_confidence(result, predicted, confidence)


def at_confidence(metrics: Mapping[str, Any], detections: Detections, confidence: float) -> dict[str, Any]:
    """Metrics with precision and recall at another score threshold.

    Args:
        metrics: As :func:`evaluate` returns them.
        detections: What the network predicts.
        confidence: The threshold.

    Returns:
        The same with new ``precision``, ``recall`` (means over the classes that have true boxes; a class without any
        detection has precision 0), and ``confidence``, and with those of each class.
    """
    classes = metrics["per_class"]
    rates = detections.rates(np.full(len(classes), confidence))
    per_class = {}
    for class_id, (name, own) in enumerate(classes.items()):
        precision, recall = rates[class_id]
        known = {} if recall is None else {"precision": precision or 0.0, "recall": recall}
        per_class[name] = {**own, "precision": None, "recall": None, **known}
    means = {
        key: float(np.mean([own[key] for own in per_class.values() if own[key] is not None]))
        for key in ("precision", "recall")
        if metrics["map50"] is not None
    }
    known = {**means, "confidence": confidence} if means else {}
    return {**metrics, **known, "per_class": per_class}


def balanced_confidence(predicted: Detections) -> float | None:
    """Score threshold, in [0, 1], at which precision and recall are best balanced: the best mean F1 of the classes.

    As ``yolo val`` chooses it (of its smoothed curve over 1,000 thresholds, at IoU 0.5), but for what a network
    predicts, one class a box.

    Args:
        predicted: What it predicts on the validation images.

    Returns:
        The threshold; None without any prediction, or without any true box.
    """
    from ultralytics.utils.metrics import ap_per_class, smooth

    if not len(predicted.conf) or not len(predicted.target_cls):
        return None
    *_, f1_curve, thresholds, _ = ap_per_class(
        predicted.tp, predicted.conf, predicted.pred_cls, predicted.target_cls, plot=False
    )
    return float(thresholds[smooth(f1_curve.mean(0), 0.1).argmax()])


def plain_metrics(metrics: Any, images: int) -> dict[str, Any]:
    """Ultralytics' metrics object -> the dictionary that :func:`evaluate` documents."""
    from ultralytics.utils.metrics import smooth

    box = metrics.box
    measured = len(box.ap_class_index) > 0
    # where Ultralytics reads precision and recall off their curves over the score threshold
    best = smooth(box.f1_curve.mean(0), 0.1).argmax() if measured else 0
    recall = np.linspace(0.0, 1.0, CURVE_POINTS)
    curve = np.interp(recall, box.px, np.asarray(box.prec_values).mean(0))
    return {
        "map50": float(box.map50) if measured else None,
        "map50_95": float(box.map) if measured else None,
        "precision": float(box.mp) if measured else None,
        "recall": float(box.mr) if measured else None,
        "confidence": float(box.px[best]) if measured else None,
        "per_class": {name: _class_metrics(metrics, int(class_id)) for class_id, name in metrics.names.items()},
        "pr_curve": {"recall": recall.round(2).tolist(), "precision": curve.tolist()},
        "images": images,
        "instances": int(metrics.nt_per_class.sum()),
    }


def _class_metrics(metrics: Any, class_id: int) -> dict[str, float | int | None]:
    """The numbers of one class; None for a class without boxes."""
    box, instances = metrics.box, int(metrics.nt_per_class[class_id])
    rows = np.flatnonzero(np.asarray(box.ap_class_index) == class_id)
    if not len(rows):
        return {"ap50": None, "ap50_95": None, "precision": None, "recall": None, "instances": instances}
    row = rows[0]
    values = {"ap50": box.ap50[row], "ap50_95": box.ap[row], "precision": box.p[row], "recall": box.r[row]}
    return {**{name: float(value) for name, value in values.items()}, "instances": instances}
