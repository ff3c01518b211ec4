"""The results of a segmentation run, a row for each network: ``segmentation.csv``."""

from __future__ import annotations

from typing import Any

from dfssd.results.record import MaskRecord

NAMES = {"teacher": "teacher", "baseline": "student", "student": "student", "student_trained": "student"}
"""The argument that names the network of a role."""


def rows(record: MaskRecord) -> list[dict[str, Any]]:
    """Rows of all networks that were tested.

    Args:
        record: Record of the run; only sections of finished stages are used.

    Returns:
        One mapping per network: what it is, the images it was trained on, its scores in [0, 1] (shares), parameters,
        latency [ms] and how long it was trained; None where a value is unknown.
    """
    run, data = record.run, record.data
    names = {**{role: record.models.get(key) for role, key in NAMES.items()}, **record.compare}
    shipped = record.guard.chosen if record.guard else "student"
    found = []
    for role, scores in record.test.items():
        trained_as = {"student_trained": "student", "student": shipped}.get(role, role)
        training, timed = record.training.get(trained_as), record.latency.get(role)
        kd = training.losses.get("kd") if training else None
        found.append(
            {
                "model": names.get(role),
                "role": role,
                "split": data.split if data else None,
                "labeled": data.train_labeled if data else None,
                "unlabeled": (data.train_unlabeled if data else None) if kd else 0,
                "seed": run.seed,
                "miou_fg": scores.miou_fg,
                "miou_all": scores.miou_all,
                "pixel_accuracy": scores.pixel_accuracy,
                **{f"iou_{name}": values.iou for name, values in scores.per_class.items()},
                "params": scores.parameters,
                "latency_ms": timed.median_ms if timed else None,
                "teacher": record.models.get("teacher") if kd else None,
                "kd": kd.weight if kd else 0.0,
                "imgsz": scores.imgsz,
                "optimizer_steps": training.optimizer_steps if training else None,
                "batch": training.batch if training else None,
                "best_epoch": training.best_epoch if training else None,
                "val_miou_fg": training.val_score if training else None,
                "test_images": scores.images,
                "leaking_test_images": data.leaks.test if data else None,
                **{key: getattr(run, key) for key in ("device", "dfssd", "ultralytics", "torch", "git")},
            }
        )
    return found
