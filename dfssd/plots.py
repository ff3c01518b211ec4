"""The pictures of the report, drawn from recorded numbers and image files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # used directly: pyplot would choose a backend and keep every figure alive
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dfssd.files import whole_file

COLOURS = {"teacher": "#7a7a7a", "baseline": "#e08214", "student": "#2166ac"}
ACCEPTED, IGNORED = "#1a9850", "#e08214"
GALLERY_IMAGES = 12
MOST_CLASSES = 40
"""More classes than this make bars and names unreadable; those where student and baseline differ most are kept."""

Curves = Mapping[str, Sequence[float]]
"""Columns of a results.csv: name -> one value per epoch; NaN where a value is missing."""


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to ``path``, whole."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def bare_axes(axes: Axes) -> None:
    """Take off the frame and lay a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def loss_terms(student: Curves, baseline: Curves | None, path: Path) -> bool:
    """One small chart per training loss of the student over the epochs, the baseline behind it; False without data."""
    names = [name for name in student if name.startswith("train/") and np.isfinite(student[name]).any()]
    if not names:
        return False
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    shown: dict[str, Any] = {}
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        for role, curves in (("baseline", baseline), ("student", student)):
            values = (curves or {}).get(name)
            if values is not None and np.isfinite(values).any():
                # a single epoch has no line, only a point
                style = "." if len(values) == 1 else "-"
                [shown[role]] = axes.plot(range(1, len(values) + 1), values, style, color=COLOURS[role], label=role)
        axes.set_title(name.removeprefix("train/"), fontsize=11)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if place + columns >= len(names):
            axes.set_xlabel("epoch")
        bare_axes(axes)
    figure.legend(handles=list(shown.values()), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle("Training losses", x=0.01, ha="left")
    save_figure(figure, path)
    return True


def validation(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> bool:
    """Validation mAP50-95 over optimizer steps; ``curves``: role -> (steps, values). False without data."""
    if not curves:
        return False
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for role, (steps, values) in curves.items():
        axes.plot(steps, values, ".-" if len(values) < 30 else "-", color=COLOURS[role], label=role)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("mAP50-95 on the validation images")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    bare_axes(axes)
    save_figure(figure, path)
    return True


def precision_recall(test: Mapping[str, Any], path: Path) -> bool:
    """Precision over recall at IoU 0.5 on the test images, mean over classes, a line per network."""
    roles = [role for role in COLOURS if (test.get(role) or {}).get("map50") is not None]
    if not roles:
        return False
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for role in roles:
        curve = test[role]["pr_curve"]
        label = f"{role} (mAP50 {test[role]['map50']:.3f})"
        axes.plot(curve["recall"], curve["precision"], color=COLOURS[role], label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of the defects found")
    axes.set_ylabel("precision: share of the alarms that are right")
    axes.legend(frameon=False, loc="best")
    bare_axes(axes)
    save_figure(figure, path)
    return True


def class_precision(test: Mapping[str, Any], path: Path) -> bool:
    """AP50-95 of each class present in the test images, a bar per network."""
    roles = [role for role in COLOURS if (test.get(role) or {}).get("per_class")]
    table = {role: test[role]["per_class"] for role in roles}
    names = [
        n for n in table.get("student", {}) if all((table[r].get(n) or {}).get("ap50_95") is not None for r in roles)
    ]
    if not names:
        return False
    if len(names) > MOST_CLASSES:
        against = "baseline" if "baseline" in table else roles[0]
        names.sort(key=lambda n: -abs(table["student"][n]["ap50_95"] - table[against][n]["ap50_95"]))
        names = names[:MOST_CLASSES]
    figure = Figure(figsize=(8, 1.2 + len(names) * (0.2 + 0.17 * len(roles))), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(roles)
    places = np.arange(len(names))
    for number, role in enumerate(roles):
        values = [table[role][name]["ap50_95"] for name in names]
        bars = axes.barh(places + (number - (len(roles) - 1) / 2) * height, values, height * 0.9, color=COLOURS[role])
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        bars.set_label(role)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, min(1.1, axes.get_xlim()[1] * 1.08)), xlabel="AP50-95 on the test images")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    bare_axes(axes)
    axes.grid(visible=False, axis="y")
    save_figure(figure, path)
    return True


def pseudo_label_counts(section: Mapping[str, Any], path: Path) -> bool:
    """Accepted and ignored boxes per class with the class threshold, and their quality where it is known."""
    per_class = section.get("per_class") or {}
    names = sorted(per_class, key=lambda n: -sum(per_class[n].values()))[:MOST_CLASSES]
    if not names:
        return False
    quality = (section.get("quality") or {}).get("per_class")
    panels = 2 if quality else 1
    figure = Figure(figsize=(5.4 * panels + 1.5, 1.6 + 0.38 * len(names)), layout="constrained")
    places = np.arange(len(names))

    axes = figure.add_subplot(1, panels, 1)
    accepted = np.array([per_class[n]["accepted"] for n in names])
    ignored = np.array([per_class[n]["ignored"] for n in names])
    axes.barh(places, accepted, 0.7, color=ACCEPTED, label="accepted")
    axes.barh(places, ignored, 0.7, left=accepted, color=IGNORED, alpha=0.5, label="ignored")
    for place, name, total in zip(places, names, accepted + ignored, strict=True):
        threshold = (section.get("thresholds") or {}).get(name)
        if threshold is not None:
            axes.annotate(f" from {threshold:.2f}", (total, place), va="center", fontsize=8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, max(1, (accepted + ignored).max()) * 1.2), xlabel="pseudo boxes (number: threshold of the class)")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    bare_axes(axes)
    axes.grid(visible=False, axis="y")

    if quality:
        axes = figure.add_subplot(1, panels, 2)
        for offset, key, colour in ((-0.18, "precision", "#4d4d4d"), (0.18, "recall", "#b3b3b3")):
            values = [(quality.get(n) or {}).get(key) or 0.0 for n in names]
            axes.barh(places + offset, values, 0.33, color=colour, label=key)
        axes.set_yticks(places, [])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="accepted boxes against the true labels")
        axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        bare_axes(axes)
        axes.grid(visible=False, axis="y")
    save_figure(figure, path)
    return True


def health(epochs: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Accepted boxes per class and image, and the shares of the health meter, over the epochs; False without data.

    Args:
        epochs: Records of :meth:`dfssd.pseudo_labels.meter.HealthMeter.record`, epoch by epoch.
        path: File to write.
    """
    if not epochs:
        return False
    place = np.arange(1, len(epochs) + 1)

    def values(key: str) -> np.ndarray:
        return np.array([np.nan if epoch.get(key) is None else epoch[key] for epoch in epochs], dtype=float)

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    counts, shares = figure.subplots(1, 2)
    classes = sorted((k for k in epochs[0] if k.startswith("class/")), key=lambda k: -np.nansum(values(k)))
    for key in classes[:MOST_CLASSES]:
        counts.plot(place, values(key), label=shortened(key.removeprefix("class/"), 20))
    counts.set(xlabel="epoch", ylabel="accepted boxes per unlabelled image")
    counts.set_ylim(bottom=0)
    counts.legend(frameon=False, fontsize=7)
    for key, label in (
        ("score", "mean score"),
        ("agreement", "student agrees"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        if not np.isnan(values(key)).all():
            shares.plot(place, values(key), label=label)
    shares.set(xlabel="epoch", ylim=(0, 1.02))
    if shares.lines:  # matplotlib warns of a legend without entries
        shares.legend(frameon=False, fontsize=8)
    for axes in (counts, shares):
        bare_axes(axes)
    save_figure(figure, path)
    return True


def gallery(predictions: Mapping[str, Any], path: Path) -> int:
    """Pseudo-labelled images with accepted (solid) and ignored (dashed) boxes.

    Args:
        predictions: Content of ``pseudo/predictions.json``.
        path: Picture to write.

    Returns:
        Number of images shown, at most :data:`GALLERY_IMAGES`; 0 if none can be read, and then no picture.
    """
    shown = []
    for entry in _varied(predictions):
        try:
            with Image.open(entry["image"]) as image:
                small = image.convert("RGB")
                small.thumbnail((640, 640))  # boxes are relative to the image
                shown.append((entry, np.asarray(small)))
        except (OSError, ValueError):  # moved or unreadable since: the picture is an illustration, not a result
            continue
        if len(shown) == GALLERY_IMAGES:
            break
    if not shown:
        return 0
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    tallest = max(pixels.shape[0] / pixels.shape[1] for _, pixels in shown)
    figure = Figure(figsize=(3.4 * columns, (3.3 * min(tallest, 1.5) + 0.3) * rows + 0.5), layout="constrained")
    for place, (entry, pixels) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(shortened(Path(entry["image"]).name), fontsize=8)
        for box in entry["boxes"]:
            _draw(axes, box, predictions["names"], pixels.shape[1], pixels.shape[0])
    accepted = Patch(fill=False, edgecolor=ACCEPTED, linewidth=2, label="accepted: trained on")
    ignored = Patch(
        fill=False, edgecolor=IGNORED, linewidth=2, linestyle="--", label="ignored: neither defect nor background"
    )
    figure.legend(handles=[accepted, ignored], loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)
    return len(shown)


def _varied(predictions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Images with accepted or ignored boxes, the classes taking turns, then the rest in order."""
    entries = [e for e in predictions["images"] if any(b["zone"] != "background" for b in e["boxes"])]
    queues = [
        [i for i, e in enumerate(entries) if any(b["cls"] == class_id and b["zone"] == "accept" for b in e["boxes"])]
        for class_id in range(len(predictions["names"]))
    ]
    longest = max(map(len, queues), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return [entries[i] for i in dict.fromkeys([*turns, *range(len(entries))])]


def _draw(axes: Axes, box: Mapping[str, Any], names: Sequence[str], width: int, height: int) -> None:
    if box["zone"] == "background":
        return
    accepted = box["zone"] == "accept"
    colour = ACCEPTED if accepted else IGNORED
    x, y, w, h = box["xywhn"]
    left, top = (x - w / 2) * width, (y - h / 2) * height
    line = "-" if accepted else "--"
    axes.add_patch(
        Rectangle((left, top), w * width, h * height, fill=False, edgecolor=colour, linewidth=1.8, linestyle=line)
    )
    # inside the picture at its upper edge, above the box elsewhere
    inside = top < 0.08 * height
    at_right = left > 0.65 * width
    axes.text(
        min(left + w * width, width) if at_right else max(left, 0),
        max(top, 0),
        f"{names[box['cls']]} {box['score']:.2f}",
        fontsize=6.5,
        color="white",
        ha="right" if at_right else "left",
        va="top" if inside else "bottom",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        clip_on=True,
    )


def shortened(name: str, most: int = 34) -> str:
    """A name of at most ``most`` characters, its middle left out if need be."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-(most // 2 - 2) :]}"
