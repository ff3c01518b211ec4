"""The pictures of a segmentation report, drawn from recorded numbers and image files alone."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # see dfssd.plots
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dfssd.datasets.image_files import UNREADABLE, grey_values, open_image
from dfssd.datasets.records import IGNORE
from dfssd.plots import COLOURS, MOST_CLASSES, bare_axes, save_figure, shortened

MOST_ROWS = 8
OPACITY = 0.55
"""Of a class over the grey image."""

_SIDE = 480
"""Longer side of an image in the picture of masks [px]."""

_TRAINED = "#67a9cf"
_COMPARED = ("#1b7837", "#762a83", "#8c510a", "#c51b7d")
_CLASSES = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
"""Told apart by the colour-blind, too (Okabe and Ito)."""


def network_colour(role: str) -> str:
    """Colour of a network; those of ``compare1``, ``compare2``, ... repeat after the fourth."""
    if role.startswith("compare"):
        return _COMPARED[(int(role.removeprefix("compare")) - 1) % len(_COMPARED)]
    return COLOURS.get(role, _TRAINED)


def class_colours(nc: int) -> np.ndarray:
    """(nc, 3) uint8, a colour for each class; that of the background, id 0, is never drawn."""
    if nc - 1 <= len(_CLASSES):
        colours = [[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in _CLASSES[: nc - 1]]
    else:  # as many hues, the neighbours dark and light in turn
        hues = (colorsys.hsv_to_rgb(i / (nc - 1), 1.0, 1.0 if i % 2 else 0.7) for i in range(nc - 1))
        colours = [[round(255 * share) for share in hue] for hue in hues]
    return np.array([[0, 0, 0], *colours], np.uint8)


def class_iou(test: Mapping[str, Any], labels: Mapping[str, str], path: Path) -> bool:
    """IoU of each class on the test images, a bar per network.

    Args:
        test: Section ``test`` of ``results.json``.
        labels: Role -> its name in the legend, in order.
        path: Picture to write.

    Returns:
        Whether there was something to draw: a class with an IoU in every network.
    """
    table = {role: test[role]["per_class"] for role in labels if (test.get(role) or {}).get("per_class")}
    values: dict[str, dict[str, Any]] = {
        role: {name: (own[name] or {}).get("iou") for name in own} for role, own in table.items()
    }
    first = next(iter(values.values()), {})
    names = [name for name in first if all(own.get(name) is not None for own in values.values())]
    if not names:
        return False
    if len(names) > MOST_CLASSES:
        names.sort(key=lambda name: min(own[name] for own in values.values()) - max(o[name] for o in values.values()))
        names = names[:MOST_CLASSES]
    figure = Figure(figsize=(8, 1.2 + len(names) * (0.2 + 0.17 * len(values))), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(values)
    places = np.arange(len(names))
    for number, (role, own) in enumerate(values.items()):
        where = places + (number - (len(values) - 1) / 2) * height
        bars = axes.barh(where, [own[name] for name in names], height * 0.9, color=network_colour(role))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        bars.set_label(labels[role])
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.08), xlabel="IoU on the test images")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    bare_axes(axes)
    axes.grid(visible=False, axis="y")
    save_figure(figure, path)
    return True


def validation(training: Mapping[str, Any], labels: Mapping[str, str], path: Path) -> bool:
    """Mean IoU of the defects on the validation images over optimizer steps, a line per network; False without data.

    Args:
        training: Section ``training`` of ``results.json``.
        labels: Role -> its name in the legend, in order.
        path: Picture to write.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for role, label in labels.items():
        done = training.get(role) or {}
        values, steps = _floats(done.get("val_score_by_epoch")), done.get("optimizer_steps")
        if steps and np.isfinite(values).any():
            place = steps * np.arange(1, len(values) + 1) / len(values)
            style = ".-" if len(values) < 30 else "-"
            axes.plot(place, values, style, color=network_colour(role), label=label)
    if not axes.lines:
        return False
    axes.set(xlabel="optimizer steps", ylabel="mIoU of the defects on the validation images")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    bare_axes(axes)
    save_figure(figure, path)
    return True


def losses(recorded: Mapping[str, Any], path: Path) -> bool:
    """One small chart per loss of a training over the epochs; False without data.

    Args:
        recorded: Entry ``losses`` of a training: name -> ``weight`` and ``by_epoch``.
        path: Picture to write.
    """
    curves = {name: _floats((own or {}).get("by_epoch")) for name, own in recorded.items()}
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    if not curves:
        return False
    columns = min(2, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    for place, (name, values) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        style = "." if len(values) == 1 else "-"  # a single epoch has no line, only a point
        axes.plot(range(1, len(values) + 1), values, style, color=COLOURS["student"])
        axes.set_title(name, fontsize=11)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), max(0.0, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if place + columns >= len(curves):
            axes.set_xlabel("epoch")
        bare_axes(axes)
    save_figure(figure, path)
    return True


def masks(
    pictures: Sequence[Mapping[str, Any]], names: Sequence[str], labels: Mapping[str, str], run_dir: Path, path: Path
) -> int:
    """Test images with their true and predicted masks, a row per image: image, truth, then the networks.

    Args:
        pictures: Section ``pictures`` of ``results.json``. Rows without image or truth are left out, networks
            without any mask, too; a single missing mask leaves its place empty.
        names: Class names in id order, the background first.
        labels: Role -> head of its column, in order.
        run_dir: Folder that the paths of predicted masks are relative to.
        path: Picture to write.

    Returns:
        Number of rows, at most :data:`MOST_ROWS`; 0 if no file can be read, and then there is no picture.
    """
    shown: list[tuple[str, np.ndarray, dict[str, np.ndarray]]] = []
    for entry in pictures:
        try:
            with open_image(Path(entry["image"])) as image:
                small = grey_values(image)
        except UNREADABLE:  # moved since: the picture is an illustration, not a result
            continue
        small.thumbnail((_SIDE, _SIDE))
        found = entry.get("masks") or {}
        files = {"truth": Path(entry["truth"]), **{role: run_dir / found[role] for role in labels if role in found}}
        read = {role: _ids(file, small.size) for role, file in files.items()}
        columns = {role: ids for role, ids in read.items() if ids is not None}
        if "truth" in columns:
            shown.append((Path(entry["image"]).name, np.asarray(small), columns))
        if len(shown) == MOST_ROWS:
            break
    if not shown:
        return 0
    colours = class_colours(len(names))
    heads = {"truth": "truth", **{role: label for role, label in labels.items() if any(role in c for _, _, c in shown)}}
    tallest = max(grey.shape[0] / grey.shape[1] for _, grey, _ in shown)
    cell = 2.1
    size = (cell * (1 + len(heads)), (cell * min(tallest, 1.5) + 0.1) * len(shown) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(shown), 1 + len(heads), squeeze=False)
    for line, (file, grey, columns) in zip(grid, shown, strict=True):
        looks = {role: overlay(grey, columns[role], colours) for role in heads if role in columns}
        for axes, role in zip(line, ("image", *heads), strict=True):
            axes.set_axis_off()
            if role == "image":
                axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
                axes.text(0.5, -0.03, shortened(file), transform=axes.transAxes, ha="center", va="top", fontsize=7)
            elif role in looks:
                axes.imshow(looks[role])
    for axes, head in zip(grid[0], ("image", *heads.values()), strict=True):
        axes.set_title(head, fontsize=9)
    seen = {int(i) for _, _, columns in shown for ids in columns.values() for i in np.unique(ids)}
    patches = [Patch(color=colours[i] / 255, label=names[i]) for i in range(1, len(names)) if i in seen]
    if IGNORE in seen:
        patches.append(Patch(facecolor="#808080", edgecolor="white", hatch="////", label="not counted"))
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), frameon=False)
    save_figure(figure, path)
    return len(shown)


def overlay(grey: np.ndarray, ids: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A mask over its image: each defect in its colour, the background as it is, ignored pixels striped.

    Args:
        grey: Image, (H, W) uint8.
        ids: Class ids, (H, W) uint8; those without a colour are left as they are.
        colours: Of each class, (nc, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    look = np.repeat(grey[..., None], 3, 2)
    defect = (ids > 0) & (ids < len(colours))
    blend = (1 - OPACITY) * look[defect] + OPACITY * colours[ids[defect]]
    look[defect] = blend.round().astype(np.uint8)
    rows, columns = np.nonzero(ids == IGNORE)
    stripe = max(2, max(grey.shape) // 60)
    look[rows, columns] = np.where((rows + columns) // stripe % 2, 255, 128)[:, None]
    return look


def _ids(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Ids of a mask, scaled to (width, height) [px] without new ones in between; None if it cannot be read."""
    try:
        with open_image(path) as mask:
            return np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    except UNREADABLE:
        return None


def _floats(values: Sequence[float | None] | None) -> np.ndarray:
    """NaN for what JSON calls null."""
    return np.array([math.nan if value is None else value for value in values or ()], dtype=float)
