"""Detection metrics of one weight file on one split, as plain numbers, and the detections they were computed from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.evaluation.detections import Detections
from dfssd.evaluation.settings import EvalSettings, quiet

DETECTIONS = "detections.npz"
"""Name of the file of all detections in the folder of a test."""

CURVE_POINTS = 101
"""Recall points of the precision-recall curve: 0, 0.01, ..., 1 (the sampling of COCO)."""


def evaluate(weights: Path, settings: EvalSettings, *, save_dir: Path, keep_detections: bool = False) -> dict[str, Any]:
    """Measure a detector with Ultralytics' validator, so that ``yolo val`` gives the same numbers.

    Args:
        weights: ``.pt`` or exported file (an exported file with fixed input shape is always run on squares).
        settings: What to measure it on.
        save_dir: Folder for what Ultralytics writes and for the detections.
        keep_detections: Write ``detections.npz`` (:class:`~dfssd.evaluation.detections.Detections`) into ``save_dir``,
            from which differences between detectors get their confidence intervals.

    Returns:
        ``map50``, ``map50_95``: mean over the classes present of the average precision at IoU 0.5, and of its mean over
        IoU 0.50, 0.55, ..., 0.95. ``precision``, ``recall``: means over the classes at ``confidence``, the one score
        threshold at which the mean F1 is highest. ``per_class``: name -> ``ap50``, ``ap50_95``, ``precision``,
        ``recall`` (None for a class without boxes in the split) and ``instances``. ``pr_curve``: ``recall`` and
        ``precision``, 101 points each, precision at IoU 0.5 as mean over the classes present. ``images``,
        ``instances``: counts. All values are in [0, 1]; the means are None if the split has no boxes at all.

    Raises:
        UserError: The weights are missing, or the data have no such split.
    """
    from ultralytics import YOLO

    settings.check(weights)
    model = YOLO(weights, task="detect")
    recorder = _DetectionRecorder()
    model.add_callback("on_val_batch_end", recorder.add)
    model.add_callback("on_val_end", recorder.close)
    save_dir = save_dir.absolute()
    new_folders = [folder for folder in (save_dir, *save_dir.parents) if not folder.exists()]
    with quiet():
        metrics = model.val(
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
    if keep_detections:
        recorder.detections().write(save_dir / DETECTIONS)
    else:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not empty: something was written after all
                folder.rmdir()
    return plain_metrics(metrics, images=len(recorder.images))


class _DetectionRecorder:
    """Validator callbacks that keep the detections of each image, which the validator itself drops too early."""

    def __init__(self) -> None:
        self.stats: dict[str, list[np.ndarray]] = {"tp": [], "conf": [], "pred_cls": [], "target_cls": []}
        self.images: tuple[str, ...] = ()

    def add(self, validator: Any) -> None:
        """Keep the detections of the last batch."""
        for name, kept in self.stats.items():
            kept += validator.metrics.stats[name][len(kept) :]

    def close(self, validator: Any) -> None:
        """Note the names of the images, in the order in which they were measured."""
        self.images = tuple(Path(file).name for file in validator.dataloader.dataset.im_files)

    def detections(self) -> Detections:
        """Everything that was kept, with the number of its image."""
        joined = {name: np.concatenate(kept) for name, kept in self.stats.items()}
        found, true = (np.array([len(x) for x in self.stats[name]], int) for name in ("conf", "target_cls"))
        return Detections(
            **joined,
            image=np.repeat(np.arange(len(found)), found),
            target_image=np.repeat(np.arange(len(true)), true),
            images=self.images,
        )


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
