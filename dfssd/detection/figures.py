"""The figures of a detection report, drawn from recorded numbers and image files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dfssd.datasets.images.pixels import read_pixels
from dfssd.detection.examples import Example
from dfssd.detection.run_files import DetectionFiles
from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.reporting import figures
from dfssd.reporting.boxes import Mark, annotated
from dfssd.reporting.figures import COLORS, MOST_CLASSES, bare_axes, list_classes, save_figure, shortened
from dfssd.reporting.run_files import Curves
from dfssd.reporting.sections import Drawn
from dfssd.reporting.words import NAMES, ROLES
from dfssd.results.record import BoxRecord
from dfssd.results.sections import BoxScores, Errors, Health, PseudoLabels, Quality, Role

ACCEPTED, IGNORED = "#1a9850", "#e08214"
GALLERY_IMAGES = 12


def draw(run: DetectionFiles) -> Drawn:
    """Draw the ``plots/*.png`` of a run folder for which there is data.

    Raises:
        UserError: The folder cannot be written to.
    """
    record, plots = run.record, run.plots
    drawn: dict[str, int] = {
        "per_class_ap": class_precision(record.test, plots / "per_class_ap.png"),
        "pr_curves": precision_recall(record.test, plots / "pr_curves.png"),
    }
    if record.data and (own := record.operating.get("student")) and own.errors:
        drawn["confusion"] = confusion(own.errors, record.data.classes, plots / "confusion.png")
    for number, example in enumerate(run.examples, 1):
        drawn[example_name(number)] = draw_example(example, plots, number)
    if section := record.pseudo_labels:
        drawn["pseudo_labels"] = pseudo_label_counts(section, plots / "pseudo_labels.png")
        drawn["gallery"] = gallery(run.predictions, plots / "gallery.png") if run.predictions.get("images") else 0
    if record.distill:
        drawn["health"] = health(record.distill.health, plots / "health.png")
    if record.training:
        drawn["validation"] = validation(record, run.curves, plots / "validation.png")
        student, baseline = (run.curves.get(role, {}) for role in ("student", "baseline"))
        drawn["loss_terms"] = loss_terms(student, baseline, plots / "loss_terms.png")
    return {name: int(shown) for name, shown in drawn.items() if shown}


def confusion(errors: Errors, names: Sequence[str], path: Path) -> bool:
    """What the true boxes of each class are taken for; the classes that occur, at most :data:`MOST_CLASSES`.

    Args:
        errors: Counts of a network.
        names: Class names in id order.
        path: File to write.

    Returns:
        Whether there was a box to draw.
    """
    counts = np.array(errors.confusion)
    most = counts[:-1].sum(1) + counts[:, :-1].sum(0)
    order = [i for i in np.argsort(-most, kind="stable") if most[i]][:MOST_CLASSES]
    if not order:
        return False
    shown = sorted(order)
    table = counts[np.ix_([*shown, len(names)], [*shown, len(names)])].astype(float)
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    side = 2.4 + 0.5 * len(shown)
    figure = Figure(figsize=(side + 1.4, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(table > 0):
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.annotate(f"{table[row, column]:.0f}", (column, row), ha="center", va="center", fontsize=9, color=color)
    labels = [shortened(names[i], 20) for i in shown]
    axes.set_xticks(np.arange(len(labels) + 1), [*labels, "missed"], rotation=45, ha="right")
    axes.set_yticks(np.arange(len(labels) + 1), [*labels, "nothing there"])
    axes.set(xlabel="found as", ylabel="true class")
    save_figure(figure, path)
    return True


def example_name(number: int, what: str = "") -> str:
    """Name of the picture of an example, counted from 1: of all its pictures, or of what one shows."""
    return f"examples/{number:02}" + (f"_{what}" if what else "")


def draw_example(example: Example, plots: Path, number: int) -> int:
    """Draw an example, a picture for the truth and one for each network; 0 if the image cannot be read any more."""
    try:
        pixels = np.ascontiguousarray(read_pixels(example.image)[..., ::-1])
    except (OSError, UserError):  # since moved or damaged: the picture is an illustration, not a result
        return 0
    for what, marks in example.marks.items():
        with atomic_write(plots / f"{example_name(number, what)}.jpg") as temporary:
            annotated(pixels, marks).save(temporary, format="JPEG", quality=85)
    return len(example.marks)


def loss_terms(student: Curves, baseline: Curves, path: Path) -> bool:
    """One small chart per training loss of the student over the epochs, the baseline behind it; False without data."""
    names = [name for name in student if name.startswith("train/") and figures.has_numbers(student[name])]
    if not names:
        return False
    shown: dict[str, Any] = {}

    def plot(axes: Axes, name: str) -> None:
        for role, curves in (("baseline", baseline), ("student", student)):
            if figures.has_numbers(curves.get(name, ())):
                shown[role] = figures.plot_epochs(axes, curves[name], color=COLORS[role], label=role)
        axes.set_title(name.removeprefix("train/"), fontsize=11)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))

    figure = figures.epoch_charts(names, plot, most_columns=3, height=2.9)
    figure.legend(handles=list(shown.values()), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle("Training losses", x=0.01, ha="left")
    save_figure(figure, path)
    return True


def validation(record: BoxRecord, curves: Mapping[Role, Curves], path: Path) -> bool:
    """Validation mAP50-95 of the networks over optimizer steps; False without data.

    Args:
        record: Record of the run.
        curves: Role -> its results.csv. A baseline of another run has none here, its record has the scores.
        path: File to write.
    """
    shown = {}
    for role in COLORS:
        if (done := record.training.get(role)) and done.epochs_done and done.optimizer_steps:
            values = curves.get(role, {}).get("metrics/mAP50-95(B)") or done.val_score_by_epoch
            steps = [done.optimizer_steps * (i + 1) / done.epochs_done for i in range(len(values))]
            if values:
                shown[role] = (steps, values)
    return figures.validation_curves(shown, path, labels=NAMES, color=COLORS.__getitem__, score="mAP50-95")


def precision_recall(test: Mapping[Role, BoxScores], path: Path) -> bool:
    """Precision over recall at IoU 0.5 on the test images, mean over classes, a line per network."""
    roles = [role for role in ROLES if role in test and test[role].map50 is not None]
    if not roles:
        return False
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for role in roles:
        curve = test[role].pr_curve
        label = f"{role} (mAP50 {test[role].map50:.3f})"
        axes.plot(curve.recall, curve.precision, color=COLORS[role], label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of the defects found")
    axes.set_ylabel("precision: share of the alarms that are correct")
    axes.legend(frameon=False, loc="best")
    bare_axes(axes)
    save_figure(figure, path)
    return True


def class_precision(test: Mapping[Role, BoxScores], path: Path) -> bool:
    """AP50-95 of each class present in the test images, a bar per network; False without a student."""
    if "student" not in test:
        return False
    scores = figures.common_scores(
        {role: {n: own.ap50_95 for n, own in test[role].per_class.items()} for role in ROLES if role in test}
    )
    against = scores.get("baseline") or next(iter(scores.values()))
    return figures.class_bars(
        scores,
        path,
        labels={role: role for role in scores},
        color=COLORS.__getitem__,
        interest=lambda name: abs(scores["student"][name] - against[name]),
        score="AP50-95",
    )


def pseudo_label_counts(section: PseudoLabels, path: Path) -> bool:
    """Accepted and ignored boxes per class with the class threshold, and their quality where it is known."""
    per_class = section.per_class
    names = sorted(per_class, key=lambda n: -(per_class[n].accepted + per_class[n].ignored))[:MOST_CLASSES]
    if not names:
        return False
    quality = section.quality if section.quality and section.quality.per_class else None
    panels = 2 if quality else 1
    figure = Figure(figsize=(5.4 * panels + 1.5, 1.6 + 0.38 * len(names)), layout="constrained")
    _counts_panel(figure.add_subplot(1, panels, 1), section, names)
    if quality:
        _quality_panel(figure.add_subplot(1, panels, 2), quality, names)
    save_figure(figure, path)
    return True


def _counts_panel(axes: Axes, section: PseudoLabels, names: Sequence[str]) -> None:
    """Accepted and ignored boxes of each class, side by side, with its threshold."""
    places = np.arange(len(names))
    accepted = np.array([section.per_class[n].accepted for n in names])
    ignored = np.array([section.per_class[n].ignored for n in names])
    axes.barh(places, accepted, 0.7, color=ACCEPTED, label="accepted")
    axes.barh(places, ignored, 0.7, left=accepted, color=IGNORED, alpha=0.5, label="ignored")
    for place, name, total in zip(places, names, accepted + ignored, strict=True):
        if (threshold := section.thresholds.get(name)) is not None:
            axes.annotate(f" from {threshold:.2f}", (total, place), va="center", fontsize=8)
    most = max(1, (accepted + ignored).max())
    axes.set(xlim=(0, most * 1.2), xlabel="pseudo boxes (number: threshold of the class)")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    list_classes(axes, names)


def _quality_panel(axes: Axes, quality: Quality, names: Sequence[str]) -> None:
    """Precision and recall of the accepted boxes of each class; 0 where there is nothing to divide by."""
    places = np.arange(len(names))
    known = [quality.per_class.get(name) for name in names]
    precision = [(own.precision if own else None) or 0.0 for own in known]
    recall = [(own.recall if own else None) or 0.0 for own in known]
    axes.barh(places - 0.18, precision, 0.33, color="#4d4d4d", label="precision")
    axes.barh(places + 0.18, recall, 0.33, color="#b3b3b3", label="recall")
    axes.set(xlim=(0, 1), xlabel="accepted boxes against the true labels")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    list_classes(axes, [""] * len(names))  # the panel on the left names them


def health(epochs: Sequence[Health], path: Path) -> bool:
    """Accepted boxes per class and image, and the shares of the health meter, over the epochs; False without data."""
    if not epochs:
        return False
    place = np.arange(1, len(epochs) + 1)

    def floats(values: Sequence[float | None]) -> np.ndarray:
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    by_class = {name: floats([epoch.per_class.get(name) for epoch in epochs]) for name in epochs[0].per_class}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    counts, shares = figure.subplots(1, 2)
    for name in sorted(by_class, key=lambda name: -np.nansum(by_class[name]))[:MOST_CLASSES]:
        counts.plot(place, by_class[name], label=shortened(name, 20))
    counts.set(xlabel="epoch", ylabel="accepted boxes per unlabeled image")
    counts.set_ylim(bottom=0)
    counts.legend(frameon=False, fontsize=7)
    labels = {"score": "mean score", "agreement": "student agrees", "precision": "precision", "recall": "recall"}
    for key, label in labels.items():
        values = floats([getattr(epoch, key) for epoch in epochs])
        if not np.isnan(values).all():
            shares.plot(place, values, label=label)
    shares.set(xlabel="epoch", ylim=(0, 1.02))
    if shares.lines:  # matplotlib warns of a legend without entries
        shares.legend(frameon=False, fontsize=8)
    for axes in (counts, shares):
        bare_axes(axes)
    save_figure(figure, path)
    return True


def gallery(predictions: Mapping[str, Any], path: Path) -> int:
    """Pseudo-labeled images with accepted and ignored boxes.

    Args:
        predictions: Content of ``pseudo/predictions.json``.
        path: File to write.

    Returns:
        Number of images shown, at most :data:`GALLERY_IMAGES`; 0 if none can be read, and then no file.
    """
    shown = []
    for entry in _varied(predictions):
        try:
            pixels = np.ascontiguousarray(read_pixels(Path(entry["image"]))[..., ::-1])
        except (OSError, UserError):  # since moved or damaged: the picture is an illustration, not a result
            continue
        marks = [mark for box in entry["boxes"] if (mark := _mark(box, predictions["names"]))]
        shown.append((entry, np.asarray(annotated(pixels, marks))))
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
    accepted = Patch(color=ACCEPTED, label="accepted: trained on")
    ignored = Patch(color=IGNORED, label="ignored (with ?): neither defect nor background")
    figure.legend(handles=[accepted, ignored], loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)
    return len(shown)


def _mark(box: Mapping[str, Any], names: Sequence[str]) -> Mark | None:
    """What is drawn of a pseudo box; nothing of background."""
    if box["zone"] == "background":
        return None
    accepted = box["zone"] == "accept"
    x, y, w, h = box["xywhn"]
    text = f"{names[box['cls']]} {box['score']:.2f}" + ("" if accepted else "?")
    return Mark((x - w / 2, y - h / 2, x + w / 2, y + h / 2), text, ACCEPTED if accepted else IGNORED)


def _varied(predictions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Images with accepted or ignored boxes, the classes taking turns, then the rest in order."""
    entries = [entry for entry in predictions["images"] if any(box["zone"] != "background" for box in entry["boxes"])]
    accepted = [{box["cls"] for box in entry["boxes"] if box["zone"] == "accept"} for entry in entries]
    queues = ([i for i, own in enumerate(accepted) if c in own] for c in range(len(predictions["names"])))
    turns = chain.from_iterable(zip_longest(*queues))
    order = dict.fromkeys([*turns, *range(len(entries))])
    return [entries[i] for i in order if i is not None]
