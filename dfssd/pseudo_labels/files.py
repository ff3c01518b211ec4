"""Files of the pseudo-label stage: plain YOLO labels for people and tools, JSON with scores for this program.

``labels/*.txt`` hold the accepted boxes only, five columns, since Ultralytics rejects a sixth. An image without an
accepted box has no file there: an empty file would declare it free of defects. ``predictions.json`` holds every box
with score and zone. The folder is written completely or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.pseudo_labels.quality import pseudo_label_quality
from dfssd.pseudo_labels.records import ImagePrediction, PseudoImage
from dfssd.pseudo_labels.thresholds import ACCEPT, BACKGROUND, IGNORE, ClassThresholds
from dfssd.wording import counted

PREDICTIONS = "predictions.json"


def label_stems(images: Sequence[Path]) -> list[str]:
    """A unique file name (without suffix) for the labels of each image.

    It is the stem of the image; where several images share it, in other folders, with other suffixes or in other letter
    case, each gets a short hash of its path appended.

    Raises:
        ValueError: An image is listed twice.
    """
    if repeated := [path for path, count in Counter(images).items() if count > 1]:
        raise ValueError(f"{repeated[0]} is listed {Counter(images)[repeated[0]]} times")
    shared = Counter(path.stem.casefold() for path in images)
    return [
        path.stem
        if shared[path.stem.casefold()] == 1
        else f"{path.stem}-{hashlib.sha256(path.as_posix().encode()).hexdigest()[:12]}"
        for path in images
    ]


def write_pseudo_labels(
    folder: Path,
    predictions: Sequence[ImagePrediction],
    thresholds: ClassThresholds,
    names: Sequence[str],
    truth: Mapping[Path, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Assign all predictions to zones by the current thresholds and write the folder.

    Args:
        folder: Folder to write; an existing one is replaced.
        predictions: Predictions of all unlabeled images, each image once.
        thresholds: Thresholds after all updates.
        names: Class names in id order.
        truth: True boxes of some images, to report the quality, see :func:`pseudo_label_quality`.

    Returns:
        The section ``pseudo_labels`` of ``results.json``: ``images``, ``boxes`` and how many of them are ``accepted``,
        ``ignored`` and ``background``, ``thresholds`` {name: value}, ``per_class`` {name: {accepted, ignored}},
        ``starved`` (names of the classes without an accepted box), ``mean_score`` (of the accepted boxes; None without
        any), ``images_without_accepted``, and ``quality`` (None without ``truth``).

    Raises:
        UserError: The disk is full or the folder cannot be written to.
        ValueError: An image is listed twice, or the numbers of names and thresholds differ.
    """
    if len(names) != thresholds.nc:
        raise ValueError(f"{counted(len(names), 'class name')}, but thresholds for {counted(thresholds.nc, 'class')}")
    folder = Path(folder)
    stems = label_stems([p.image for p in predictions])
    zones = [thresholds.zone(p.classes, p.scores) for p in predictions]
    by_name = dict(zip(names, thresholds.thresholds().tolist(), strict=True))

    building, old = (folder.with_name(f".{folder.name}.{state}") for state in ("building", "old"))
    for leftover in (building, old):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    # the JSON file is renamed into place last, and its writer turns "disk full" into a UserError for all of them
    with atomic_write(building / PREDICTIONS) as temporary:
        (building / "labels").mkdir()
        entries = []
        for prediction, stem, zone in zip(predictions, stems, zones, strict=True):
            label = _write_label(building, stem, prediction, zone)
            entries.append(json.dumps(_entry(prediction, label, zone), ensure_ascii=False, allow_nan=False))
        head = {
            "names": list(names),
            "thresholds": by_name,
            "rule": thresholds.rule,
            "state": thresholds.state_dict(),
        }
        text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        listing = "[\n  " + ",\n  ".join(entries) + "\n ]" if entries else "[]"
        temporary.write_text(f'{text},\n "images": {listing}\n}}\n', encoding="utf-8", newline="\n")
    if folder.exists():
        os.replace(folder, old)
    os.replace(building, folder)
    shutil.rmtree(old, ignore_errors=True)

    written = read_pseudo_labels(folder)
    quality = pseudo_label_quality(written, truth, names) if truth else None
    return {**_count(written, names), "thresholds": by_name, "quality": quality}


def _write_label(folder: Path, stem: str, prediction: ImagePrediction, zones: np.ndarray) -> str | None:
    """Write the accepted boxes of one image; its path below ``folder``, or None if there are none."""
    accepted = zones == ACCEPT
    if not accepted.any():
        return None
    rows = [
        f"{cls} " + " ".join(f"{v:.6f}" for v in box) + "\n"
        for cls, box in zip(prediction.classes[accepted], prediction.boxes_xywhn[accepted], strict=True)
    ]
    label = f"labels/{stem}.txt"
    (folder / label).write_text("".join(rows), encoding="utf-8", newline="\n")
    return label


def _entry(prediction: ImagePrediction, label: str | None, zones: np.ndarray) -> dict[str, Any]:
    boxes = zip(prediction.classes, prediction.scores, prediction.boxes_xywhn, zones, strict=True)
    return {
        "image": str(prediction.image),
        "width": int(prediction.width),
        "height": int(prediction.height),
        "label": label,
        "boxes": [
            {
                "cls": int(cls),
                "score": round(float(score), 6),
                "xywhn": [round(float(v), 6) for v in xywhn],
                "zone": str(zone),
            }
            for cls, score, xywhn, zone in boxes
        ],
    }


def _count(images: Sequence[PseudoImage], names: Sequence[str]) -> dict[str, Any]:
    per_class = {name: {"accepted": 0, "ignored": 0} for name in names}
    total = Counter({ACCEPT: 0, IGNORE: 0, BACKGROUND: 0})
    score_sum = 0.0
    for image in images:
        total.update(image.zones.tolist())
        score_sum += float(image.scores[image.zones == ACCEPT].sum(dtype=np.float64))
        for cls, zone in zip(image.classes, image.zones, strict=True):
            if zone != BACKGROUND:
                per_class[names[cls]]["accepted" if zone == ACCEPT else "ignored"] += 1
    return {
        "images": len(images),
        "boxes": sum(total.values()),
        "accepted": total[ACCEPT],
        "ignored": total[IGNORE],
        "background": total[BACKGROUND],
        "per_class": per_class,
        "starved": [name for name in names if not per_class[name]["accepted"]],
        "mean_score": round(score_sum / total[ACCEPT], 6) if total[ACCEPT] else None,
        "images_without_accepted": sum(image.label is None for image in images),
    }


def read_pseudo_labels(folder: Path) -> list[PseudoImage]:
    """Read a folder of :func:`write_pseudo_labels`; images in the order in which they were written.

    Raises:
        UserError: The folder holds no complete pseudo-labels.
    """
    with _predictions(folder) as (path, tree):
        return [
            PseudoImage(
                image=Path(entry["image"]),
                width=entry["width"],
                height=entry["height"],
                label=None if entry["label"] is None else path.parent / entry["label"],
                classes=np.array([b["cls"] for b in entry["boxes"]], dtype=np.int64),
                scores=np.array([b["score"] for b in entry["boxes"]], dtype=np.float32),
                boxes_xywhn=np.array([b["xywhn"] for b in entry["boxes"]], dtype=np.float32).reshape(-1, 4),
                zones=np.array([b["zone"] for b in entry["boxes"]], dtype=np.str_),
            )
            for entry in tree["images"]
        ]


def read_thresholds(folder: Path) -> ClassThresholds:
    """The class thresholds that a folder of :func:`write_pseudo_labels` was written with, ready to be continued.

    Raises:
        UserError: The folder holds no complete pseudo-labels.
    """
    with _predictions(folder) as (_, tree):
        return ClassThresholds.from_state(tree["state"])


@contextlib.contextmanager
def _predictions(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Path and content of ``predictions.json``; errors in it, also while the block runs, become a UserError."""
    path = Path(folder) / PREDICTIONS
    try:
        yield path, json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{path} is missing: the pseudo-label stage has not finished; resume the run") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be read ({e}): delete {path.parent} and resume the run") from e
