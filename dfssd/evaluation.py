"""Detection metrics of one weight file on one split, as plain numbers, and the detections they were computed from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.bootstrap import Detections
from dfssd.config import read_yaml
from dfssd.errors import UserError

CURVE_POINTS = 101
"""Recall points of the precision-recall curve: 0, 0.01, ..., 1 (the sampling of COCO)."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Ultralytics logs as information; warnings, errors and progress bars stay."""
    from ultralytics.utils import LOGGER

    def warnings_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    # Raising the level instead would switch Ultralytics' progress bars off, too.
    LOGGER.addFilter(warnings_only)
    try:
        yield
    finally:
        LOGGER.removeFilter(warnings_only)


def evaluate(
    weights: Path,
    data_yaml: Path,
    *,
    split: str = "test",
    imgsz: int,
    batch: int,
    device: str | None,
    save_dir: Path,
    rect: bool = True,
    keep_detections: bool = False,
) -> dict[str, Any]:
    """Measure a detector with Ultralytics' validator, so that ``yolo val`` gives the same numbers.

    Args:
        weights: ``.pt`` or exported file (an exported file with fixed input shape is always run on squares).
        data_yaml: Ultralytics dataset YAML.
        split: Key of the image list in ``data_yaml``.
        imgsz: Longer side of the network input [px].
        batch: Images per forward pass.
        device: Ultralytics device; None lets Ultralytics choose.
        save_dir: Folder for what Ultralytics writes and for the detections.
        rect: Pad each batch to its own smallest rectangle (``yolo val``'s default) instead of to squares.
        keep_detections: Write ``detections.npz`` (:class:`dfssd.bootstrap.Detections`) into ``save_dir``, from which
            differences between detectors get their confidence intervals.

    Returns:
        ``map50``, ``map50_95``: mean over the classes present of the average precision at IoU 0.5, and of its mean over
        IoU 0.50, 0.55, ..., 0.95. ``precision``, ``recall``: means over the classes at ``confidence``, the one score
        threshold at which the mean F1 is highest. ``per_class``: name -> ``ap50``, ``ap50_95``, ``precision``,
        ``recall`` (None for a class without boxes in the split) and ``instances``. ``pr_curve``: ``recall`` and
        ``precision``, 101 points each, precision at IoU 0.5 as mean over the classes present. ``images``,
        ``instances``: counts. All values are in [0, 1]; the means are None if the split has no boxes at all.

    Raises:
        UserError: The weights are missing or ``data_yaml`` has no such split.
    """
    from ultralytics import YOLO

    if not weights.exists():
        raise UserError(f"{weights} does not exist: nothing to evaluate")
    if not read_yaml(data_yaml).get(split):
        raise UserError(f"{data_yaml} has no '{split}:' entry: add a list of images, or choose another split")
    model = YOLO(weights, task="detect")
    record = _Record()
    model.add_callback("on_val_batch_end", record.add)
    model.add_callback("on_val_end", record.close)
    save_dir = save_dir.absolute()
    made = [folder for folder in (save_dir, *save_dir.parents) if not folder.exists()]
    with quiet():
        metrics = model.val(
            data=str(data_yaml),
            split=split,
            imgsz=imgsz,
            batch=batch,
            device=device,
            rect=rect,
            plots=False,
            verbose=False,
            project=str(save_dir.parent),
            name=save_dir.name,
            exist_ok=True,
        )
    if keep_detections:
        record.detections().write(save_dir / "detections.npz")
    else:
        for folder in made:
            with contextlib.suppress(OSError):  # something was written after all
                folder.rmdir()
    return _plain(metrics, images=len(record.images))


class _Record:
    """Callbacks of a validator that keep what it found in each image; it forgets that before its metrics are ready."""

    def __init__(self) -> None:
        self.stats: dict[str, list[np.ndarray]] = {"tp": [], "conf": [], "pred_cls": [], "target_cls": []}
        self.images: tuple[str, ...] = ()

    def add(self, validator: Any) -> None:
        """Take over the images of the last batch."""
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


def _plain(metrics: Any, images: int) -> dict[str, Any]:
    """Ultralytics' metrics object -> the dictionary that :func:`evaluate` documents."""
    from ultralytics.utils.metrics import smooth

    box, counts = metrics.box, metrics.nt_per_class
    rows = {int(class_id): row for row, class_id in enumerate(box.ap_class_index)}
    per_class = {}
    for class_id, name in metrics.names.items():
        row = rows.get(int(class_id))
        per_class[name] = {
            "ap50": None if row is None else float(box.ap50[row]),
            "ap50_95": None if row is None else float(box.ap[row]),
            "precision": None if row is None else float(box.p[row]),
            "recall": None if row is None else float(box.r[row]),
            "instances": int(counts[class_id]),
        }
    # where Ultralytics reads precision and recall off their curves over the score threshold
    best = smooth(box.f1_curve.mean(0), 0.1).argmax() if rows else 0
    recall = np.linspace(0.0, 1.0, CURVE_POINTS)
    curve = np.interp(recall, box.px, np.asarray(box.prec_values).mean(0))
    return {
        "map50": float(box.map50) if rows else None,
        "map50_95": float(box.map) if rows else None,
        "precision": float(box.mp) if rows else None,
        "recall": float(box.mr) if rows else None,
        "confidence": float(box.px[best]) if rows else None,
        "per_class": per_class,
        "pr_curve": {"recall": recall.round(2).tolist(), "precision": curve.tolist()},
        "images": images,
        "instances": int(counts.sum()),
    }
