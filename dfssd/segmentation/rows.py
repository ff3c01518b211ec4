"""What a segmentation run has measured, a row for each network: ``segmentation.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

NAMES = {"teacher": "teacher", "baseline": "student", "student": "student", "student_trained": "student"}
"""The argument that names the network of a role."""


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of all networks that were tested.

    Args:
        results: Content of ``results.json``; only sections of finished stages are used.

    Returns:
        One mapping per network: what it is, the images it learnt from, its scores in [0, 1] (shares), parameters,
        latency [ms] and how long it was trained; None where something is not known.
    """
    run, data, models = (results.get(section) or {} for section in ("run", "data", "models"))
    names = {**{role: models.get(key) for role, key in NAMES.items()}, **(results.get("compare") or {})}
    handed = (results.get("guard") or {}).get("chosen")
    found = []
    for role, measured in (results.get("test") or {}).items():
        trained_as = "student" if role == "student_trained" else handed if role == "student" and handed else role
        training = (results.get("training") or {}).get(trained_as) or {}
        kd = (training.get("losses") or {}).get("kd") or {}
        found.append(
            {
                "model": names.get(role),
                "role": role,
                "split": data.get("split"),
                "labeled": data.get("train_labeled"),
                "unlabeled": data.get("train_unlabeled") if kd else 0,
                "seed": run.get("seed"),
                "miou_fg": measured["miou_fg"],
                "miou_all": measured["miou_all"],
                "pixel_accuracy": measured["pixel_accuracy"],
                **{f"iou_{name}": values["iou"] for name, values in measured["per_class"].items()},
                "params": measured["parameters"],
                "latency_ms": ((results.get("latency") or {}).get(role) or {}).get("median_ms"),
                "teacher": models.get("teacher") if kd else None,
                "kd": kd.get("weight", 0.0),
                "imgsz": measured["imgsz"],
                "optimizer_steps": training.get("optimizer_steps"),
                "batch": training.get("batch"),
                "best_epoch": training.get("best_epoch"),
                "val_miou_fg": training.get("val_miou_fg"),
                "test_images": measured["images"],
                "leaking_test_images": (data.get("leaks") or {}).get("test"),
                **{key: run.get(key) for key in ("device", "dfssd", "ultralytics", "torch", "git")},
            }
        )
    return found


def csv_text(results: Mapping[str, Any]) -> str:
    """:func:`rows` as CSV, empty without any."""
    found = rows(results)
    text = io.StringIO()
    if found:
        writer = csv.DictWriter(text, fieldnames=list(found[0]), lineterminator="\n")
        writer.writeheader()
        rounded = ({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in found)
        writer.writerows(rounded)
    return text.getvalue()
