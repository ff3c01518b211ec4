"""Find defects in images with an exported detector; needs numpy, onnxruntime, and pillow, and prints a line for each.

    python infer.py IMAGE_OR_FOLDER ... [--model student.onnx] [--conf 0.25]

The boxes are those of ``dfssd predict`` and ``YOLO()``. Exit code 2: no image, or one cannot be read. AGPL-3.0.
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would report to its maker
import onnxruntime

GRAY, CONFIDENCE, OVERLAP, MOST = 114, 0.25, 0.7, 300
"""Of the padding; lowest score where a file has none; IoU above which the weaker box goes; most boxes of an image."""


class Detector:
    """An ONNX file; ``names`` by class id, ``thresholds``: lowest score of each class, ``facts``: what dfssd adds."""

    def __init__(self, model: str | Path, options: onnxruntime.SessionOptions | None = None) -> None:
        devices = [name for name in onnxruntime.get_available_providers() if name.startswith(("CUDA", "CPU"))]
        self.session = onnxruntime.InferenceSession(str(model), options, providers=devices)
        meta = self.session.get_modelmeta().custom_metadata_map
        if meta.get("task") != "detect":
            raise ValueError(f"{model} is no detector that Ultralytics exported: its task is {meta.get('task')}")
        self.names: dict[int, str] = ast.literal_eval(meta["names"])
        self.facts: dict = json.loads(meta.get("dfssd", "{}"))
        own = self.facts.get("thresholds", {})
        self.thresholds = np.array([own.get(name, CONFIDENCE) for name in self.names.values()], np.float32)
        self.input = self.session.get_inputs()[0]
        self.batch, _, *sides = self.input.shape  # text instead of a number where it is free
        self.fixed = all(isinstance(side, int) for side in sides)
        self.height, self.width = sides if self.fixed else ast.literal_eval(meta["imgsz"])
        self.stride = int(meta["stride"])

    def __call__(self, images: Sequence[np.ndarray], conf: float | None = None) -> list[np.ndarray]:
        """Boxes of RGB images (h, w, 3) uint8, best first: float32 rows x1, y1, x2, y2 [px], score, class id."""
        inputs = [letterbox(image, *self.shape(image)) for image in images]
        inputs += inputs[:1] * (self.batch - len(inputs) if isinstance(self.batch, int) else 0)
        kind = np.float16 if "float16" in self.input.type else np.float32
        pixels = np.stack(inputs).transpose(0, 3, 1, 2).astype(kind) / kind(255)
        outputs = self.session.run(None, {self.input.name: pixels})[0].astype(np.float32)
        return [self.boxes(output, image, conf) for output, image in zip(outputs, images)]

    def boxes(self, output: np.ndarray, image: np.ndarray, conf: float | None) -> np.ndarray:
        """The boxes in the raw output for an image: finished rows, or columns of center x, y, w, h, and all scores."""
        boxes = output[output[:, 4] > 0]
        if not (finished := output.shape[-1] == 6):
            half, scores = output[2:4] / 2, output[4:]
            rows = [output[:2] - half, output[:2] + half, scores.max(0)[None], scores.argmax(0)[None]]
            boxes = np.concatenate(rows).T.astype(np.float32)
        boxes = boxes[boxes[:, 4] >= (self.thresholds[boxes[:, 5].astype(int)] if conf is None else conf)]
        boxes = boxes[:MOST] if finished else suppressed(boxes)
        inner, corner = fitted(image, *self.shape(image))
        for axis, side in ((1, 0), (0, 1)):  # y and the height, x and the width
            moved = (boxes[:, axis:4:2] - corner[side]) / (inner[side] / image.shape[side])
            boxes[:, axis:4:2] = moved.clip(0, image.shape[side])
        return boxes

    def shape(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width of the input for an image; where they are free, no more than it needs."""
        (h, w), step = fitted(image, self.height, self.width)[0], self.stride
        return (self.height, self.width) if self.fixed else (-(-h // step) * step, -(-w // step) * step)


def fitted(image: np.ndarray, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of an image scaled into the middle of an input, and where it begins there: top and left."""
    ratio = min(height / image.shape[0], width / image.shape[1])
    h, w = (max(round(side * ratio), 1) for side in image.shape[:2])
    return (h, w), (round((height - h) / 2 - 0.1), round((width - w) / 2 - 0.1))


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image, scaled into an input and padded with gray: (height, width, 3) uint8."""
    (h, w), (top, left) = fitted(image, height, width)
    around = (top, height - h - top), (left, width - w - left), (0, 0)
    return np.pad(resized(image, h, w), around, constant_values=GRAY)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, the same to the last bit as OpenCV's INTER_LINEAR, whose weights have 11 bits."""
    h, w = image.shape[:2]
    (up, above, below), (left, before, behind) = taps(h, height), taps(w, width, border=True)
    rows, place = np.unique(np.concatenate([up, up + 1]).clip(0, h - 1), return_inverse=True)
    used = image[rows].astype(np.int32)
    wide = (used[:, left.clip(0, w - 1)] * before + used[:, (left + 1).clip(0, w - 1)] * behind) >> 4
    upper, lower = wide[place[:height]] * above[:, None], wide[place[height:]] * below[:, None]
    return (((upper >> 16) + (lower >> 16) + 2) >> 2).astype(np.uint8)


def taps(old: int, new: int, border: bool = False) -> tuple[np.ndarray, ...]:
    """Of each of ``new`` pixels the first of two source pixels, and the weights of both, (new, 1), in 1/2048."""
    place = ((np.arange(new) + 0.5) * (1 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(place)
    part = np.where(border & ((first < 0) | (first >= old - 1)), np.float32(0), place - first)[:, None]
    return first.astype(int), *(np.rint(share * np.float32(2048)).astype(np.int32) for share in (1 - part, part))


def suppressed(boxes: np.ndarray) -> np.ndarray:
    """Of boxes of one class that overlap by more than ``OVERLAP``, the one with the highest score; best first."""
    boxes, kept = boxes[np.argsort(-boxes[:, 4], kind="stable")], list[int]()
    areas, left = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.arange(len(boxes))
    while len(left) and len(kept) < MOST:
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:4], boxes[left, 2:4]) - np.maximum(boxes[best, :2], boxes[left, :2])
        common = sides.clip(0).prod(1) * (boxes[best, 5] == boxes[left, 5])
        left = left[common <= OVERLAP * (areas[best] + areas[left] - common)]
    return boxes[np.array(kept, int)]


def read(path: Path, bits: int) -> np.ndarray:
    """RGB values of an image file, (h, w, 3) uint8; of 16-bit gray the upper 8 of the ``bits`` that its camera uses."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8))
        return np.asarray(image.convert("RGB"))


def main(words: Sequence[str] | None = None, opened: Callable[[Path], Detector] = Detector) -> int:
    """Print the verdict and the boxes of each image as JSON: NG if there is a box, else OK."""
    parser = argparse.ArgumentParser(description="Find defects in images.")
    parser.add_argument("source", nargs="+", type=Path, help="images and folders")
    parser.add_argument("--model", default=Path(__file__).with_name("student.onnx"), type=Path)
    parser.add_argument("--conf", type=float, help="lowest score, instead of those in the file")
    given, code = parser.parse_args(words), 0
    detector, kinds = opened(given.model), Image.registered_extensions()
    if "preprocess" in detector.facts:
        parser.error(f"the training images were changed ({detector.facts['preprocess']}): use dfssd predict")
    files = (file for one in given.source for file in (sorted(one.rglob("*")) if one.is_dir() else [one]))
    for path in (images := [file for file in files if file in given.source or file.suffix.lower() in kinds]):
        try:
            found = detector([read(path, detector.facts.get("bits", 16))], given.conf)[0].tolist()
            boxes = [{"class": detector.names[int(row[5])], "score": row[4], "box": row[:4]} for row in found]
            print(json.dumps({"image": str(path), "verdict": "NG" if boxes else "OK", "boxes": boxes}), flush=True)
        except Exception as e:  # of a damaged file Pillow raises nearly everything
            code = 2
            print(f"error: {path}: {e}", file=sys.stderr)
    return code if images else parser.error(f"there are no images in {', '.join(map(str, given.source))}")


if __name__ == "__main__":
    sys.exit(main())
