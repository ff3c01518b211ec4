"""The figures of a segmentation report, drawn from recorded numbers and image files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from dfssd.datasets.images.files import UNREADABLE, gray_values, open_image
from dfssd.datasets.records import IGNORE
from dfssd.reporting import figures
from dfssd.reporting.figures import COLORS, save_figure, shortened
from dfssd.reporting.overlays import class_colors, overlay
from dfssd.reporting.sections import Drawn
from dfssd.reporting.words import baseline_is_selected
from dfssd.results.record import MaskRecord
from dfssd.results.sections import Loss, MaskScores, MaskTraining, Picture, Role
from dfssd.segmentation.run_files import SegmentationFiles
from dfssd.segmentation.verdict import networks, student_training

MOST_ROWS = 8

_SIDE = 480
"""Longer side of an image in the figure of masks [px]."""

_CELL = 2.1
"""Side of an image in the figure of masks [inch]."""

_TRAINED = "#67a9cf"
_COMPARED = ("#1b7837", "#762a83", "#8c510a", "#c51b7d")


def draw(run: SegmentationFiles) -> Drawn:
    """Draw the ``plots/*.png`` of a run folder for which there is data.

    Raises:
        UserError: The folder cannot be written to.
    """
    record, plots, labels = run.record, run.plots, networks(run.record)
    student = student_training(record)
    drawn: dict[str, int] = {
        "per_class_iou": class_iou(record.test, labels, plots / "per_class_iou.png"),
        "validation": validation(record.training, labels, plots / "validation.png"),
        "losses": losses(student.losses, plots / "losses.png") if student else 0,
    }
    if any(role in record.test for role in labels):
        columns = {role: labels[role] for role in _columns(record) if role in labels}
        drawn["masks"] = masks(record.pictures, _class_names(record), columns, run.folder, plots / "masks.png")
    return {name: int(shown) for name, shown in drawn.items() if shown}


def _columns(record: MaskRecord) -> list[Role]:
    """Networks whose masks are shown, in order; a baseline that was selected as the student is shown once."""
    shown = ["student", "student_trained", "teacher", "baseline"]
    return shown[:-1] if baseline_is_selected(record) else shown


def _class_names(record: MaskRecord) -> tuple[str, ...]:
    """Class names in id order."""
    if record.data:
        return record.data.classes
    return tuple(record.test["student"].per_class) if "student" in record.test else ()


def network_color(role: Role) -> str:
    """Color of a network; those of ``compare1``, ``compare2``, ... repeat after the fourth."""
    if role.startswith("compare"):
        return _COMPARED[(int(role.removeprefix("compare")) - 1) % len(_COMPARED)]
    return COLORS.get(role, _TRAINED)


def class_iou(test: Mapping[Role, MaskScores], labels: Mapping[Role, str], path: Path) -> bool:
    """IoU of each class on the test images, a bar per network.

    Args:
        test: Role -> its scores.
        labels: Role -> its name in the legend, in order.
        path: File to write.

    Returns:
        Whether the figure was drawn: if any class has an IoU in every network.
    """
    scores = figures.common_scores(
        {role: {n: own.iou for n, own in test[role].per_class.items()} for role in labels if role in test}
    )

    def spread(name: str) -> float:
        found = [own[name] for own in scores.values()]
        return max(found) - min(found)

    return figures.class_bars(
        scores, path, labels=labels, color=network_color, interest=spread, score="IoU", widest=1.08
    )


def validation(training: Mapping[Role, MaskTraining], labels: Mapping[Role, str], path: Path) -> bool:
    """Mean IoU of the defects on the validation images over optimizer steps, a line per network; False without data.

    Args:
        training: Role -> its training.
        labels: Role -> its name in the legend, in order.
        path: File to write.
    """
    curves = {}
    for role in labels:
        if (done := training.get(role)) and done.optimizer_steps and done.val_score_by_epoch:
            values = done.val_score_by_epoch
            steps = [done.optimizer_steps * (i + 1) / len(values) for i in range(len(values))]
            curves[role] = (steps, values)
    return figures.validation_curves(curves, path, labels=labels, color=network_color, score="mIoU of the defects")


def losses(recorded: Mapping[str, Loss], path: Path) -> bool:
    """One small chart per loss of a training over the epochs; False without data.

    Args:
        recorded: Name of each loss -> its record.
        path: File to write.
    """
    names = [name for name, loss in recorded.items() if loss.by_epoch]
    if not names:
        return False

    def plot(axes: Axes, name: str) -> None:
        figures.plot_epochs(axes, recorded[name].by_epoch, color=COLORS["student"])
        axes.set_title(name, fontsize=11)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), max(0.0, high))

    save_figure(figures.epoch_charts(names, plot, most_columns=2, height=2.6), path)
    return True


@dataclass(frozen=True)
class _Row:
    """An image of the figure of masks: file name, why it is shown, gray values, and class ids of truth and networks."""

    file: str
    said: str
    gray: np.ndarray
    ids: Mapping[str, np.ndarray]


def masks(
    pictures: Sequence[Picture], names: Sequence[str], labels: Mapping[Role, str], run_dir: Path, path: Path
) -> int:
    """Test images with their true and predicted masks, a row per image: image, truth, then the networks.

    Args:
        pictures: The recorded images. Rows without image or truth and networks without any mask are left out; a
            single missing mask leaves its place empty.
        names: Class names in id order, the background first.
        labels: Role -> head of its column, in order.
        run_dir: Folder that the paths of predicted masks are relative to.
        path: File to write.

    Returns:
        Number of rows, at most :data:`MOST_ROWS`; 0 if no file can be read, and then there is no figure.
    """
    rows: list[_Row] = []
    for picture in pictures:
        if row := _read_row(picture, labels, run_dir):
            rows.append(row)
        if len(rows) == MOST_ROWS:
            break
    if not rows:
        return 0
    drawn = {role for row in rows for role in row.ids}
    heads = {"truth": "truth", **{role: label for role, label in labels.items() if role in drawn}}
    save_figure(_table_of_masks(rows, heads, names), path)
    return len(rows)


def _table_of_masks(rows: Sequence[_Row], heads: Mapping[str, str], names: Sequence[str]) -> Figure:
    """The figure of :func:`masks`; ``heads``: truth and role -> head of its column."""
    colors = class_colors(len(names))
    tallest = max(row.gray.shape[0] / row.gray.shape[1] for row in rows)
    size = (_CELL * (1 + len(heads)), (_CELL * min(tallest, 1.5) + 0.1) * len(rows) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(heads), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        _draw_row(line, row, list(heads), colors)
    for axes, head in zip(grid[0], ("image", *heads.values()), strict=True):
        axes.set_title(head, fontsize=9)
    if patches := _legend(rows, names, colors):
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), frameon=False)
    return figure


def _read_row(picture: Picture, labels: Mapping[Role, str], run_dir: Path) -> _Row | None:
    """An image with its masks; None if it has been moved: the figure is an illustration, not a result."""
    try:
        with open_image(Path(picture.image)) as image:
            gray = gray_values(image)
    except UNREADABLE:
        return None
    gray.thumbnail((_SIDE, _SIDE))
    files = {role: run_dir / picture.masks[role] for role in labels if role in picture.masks}
    read = {role: _ids(file, gray.size) for role, file in {"truth": Path(picture.truth), **files}.items()}
    ids = {role: own for role, own in read.items() if own is not None}
    return _Row(Path(picture.image).name, picture.said, np.asarray(gray), ids) if "truth" in ids else None


def _draw_row(line: Sequence[Axes], row: _Row, roles: Sequence[str], colors: np.ndarray) -> None:
    """Draw an image and its masks side by side."""
    for axes in line:
        axes.set_axis_off()
    line[0].imshow(row.gray, cmap="gray", vmin=0, vmax=255)
    text = shortened(row.file) + (f"\n{row.said}" if row.said else "")
    line[0].text(0.5, -0.03, text, transform=line[0].transAxes, ha="center", va="top", fontsize=7)
    for axes, role in zip(line[1:], roles, strict=True):
        if role in row.ids:
            axes.imshow(overlay(row.gray, row.ids[role], colors))


def _legend(rows: Sequence[_Row], names: Sequence[str], colors: np.ndarray) -> list[Patch]:
    """A patch for each class that is shown, and for ignored pixels."""
    seen = {int(i) for row in rows for ids in row.ids.values() for i in np.unique(ids)}
    patches = [Patch(color=colors[i] / 255, label=names[i]) for i in range(1, len(names)) if i in seen]
    if IGNORE in seen:
        patches.append(Patch(facecolor="#808080", edgecolor="white", hatch="////", label="not counted"))
    return patches


def _ids(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Ids of a mask, scaled to (width, height) [px] without new ones in between; None if it cannot be read."""
    try:
        with open_image(path) as mask:
            return np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    except UNREADABLE:
        return None
