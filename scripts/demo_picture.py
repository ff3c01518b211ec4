"""Draw the picture of the README: ``python scripts/demo_picture.py RUN_FOLDER PICTURE.png``.

Five test images of a finished detection run of ``data=demo``: ground truth above, the detections of the network that
the run selected (``weights/student.pt``) below. Other data is rejected: only generated images may be published.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

IMAGES = 5
TRUE, FOUND = "#1a9850", "#2166ac"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    run, picture = Path(arguments[0]), Path(arguments[1])
    if json.loads((run / "results.json").read_text(encoding="utf-8"))["data"]["name"] != "demo":
        print(f"error: {run} is no run of data=demo", file=sys.stderr)
        return 2
    draw(run, picture)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
    return 0


def draw(run: Path, picture: Path) -> None:
    """Draw test images of ``run`` into ``picture``, a PNG file of at most 64 colors."""
    from ultralytics import YOLO
    from ultralytics.data.utils import img2label_paths

    images = (run / "splits" / "test.txt").read_text(encoding="utf-8").split("\n")
    truth = {image: read_boxes(Path(img2label_paths([image])[0])) for image in images if image}
    shown = varied(truth)
    network = YOLO(run / "weights" / "student.pt")
    figure = Figure(figsize=(2 * len(shown), 4.3), layout="constrained")
    rows = figure.subplots(2, len(shown), squeeze=False)
    for column, image in enumerate(shown):
        pixels = np.asarray(Image.open(image).convert("L"))
        found = network.predict(image, verbose=False)[0].boxes
        boxes = np.column_stack([found.cls.cpu(), found.xywhn.cpu()])
        draw_boxes(rows[0, column], pixels, truth[image], network.names, TRUE)
        draw_boxes(rows[1, column], pixels, boxes, network.names, FOUND, found.conf.tolist())
    for row, title in zip(rows, ("ground truth", "detected")):
        row[0].set_ylabel(title)
    figure.savefig(picture, dpi=100)
    Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)


def read_boxes(label: Path) -> np.ndarray:
    """(n, 5) rows [class id, x, y, w, h] of a YOLO label file, xywh center format, 0-1."""
    return np.array([line.split() for line in label.read_text().splitlines()], dtype=float).reshape(-1, 5)


def varied(truth: dict[str, np.ndarray]) -> list[str]:
    """At most :data:`IMAGES` images that together show many classes: each adds as many unseen ones as possible."""
    chosen: list[str] = []
    seen: set[int] = set()
    while len(chosen) < min(IMAGES, len(truth)):
        best = max((i for i in truth if i not in chosen), key=lambda i: (len({*truth[i][:, 0]} - seen), len(truth[i])))
        chosen.append(best)
        seen |= {int(c) for c in truth[best][:, 0]}
    return chosen


def draw_boxes(
    axes: Axes, pixels: np.ndarray, boxes: np.ndarray, names: dict[int, str], color: str, scores: Sequence[float] = ()
) -> None:
    """One image with boxes, (n, 5) rows as of :func:`read_boxes`, and their names and scores."""
    height, width = pixels.shape
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    for number, (class_id, x, y, w, h) in enumerate(boxes):
        left, top = (x - w / 2) * width, (y - h / 2) * height
        axes.add_patch(Rectangle((left, top), w * width, h * height, fill=False, edgecolor=color, linewidth=1.8))
        text = names[int(class_id)] + (f" {scores[number]:.2f}" if len(scores) else "")
        right = left > 0.6 * width
        axes.text(
            min(left + w * width, width) if right else max(left, 0),
            max(top, 0),
            text,
            fontsize=7,
            color="white",
            ha="right" if right else "left",
            va="top" if top < 0.1 * height else "bottom",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
