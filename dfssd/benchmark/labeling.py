"""Pseudo-labeling against the forward pass alone: ``python scripts/benchmark_labels.py images=FOLDER [key=value ...]``.

Measured in one process, round by round in turn: the forward pass of the teacher on images that are on the device
already, at batches of 8, 16, ... up to the one that pseudo-labeling takes, and pseudo-labeling of the images of the
folder, from the files to the boxes. Printed are images per second, and the ratio to the fastest forward pass.

Arguments: ``images=FOLDER`` (searched for image files), ``teacher=yolov8s.yaml`` (random weights, with scores that give
each image some boxes) or a ``.pt``, ``imgsz=416``, ``batch=16``, ``device=``, ``most=500`` images, ``rounds=3``,
``out=file.json``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dfssd.benchmark.script import run_script
from dfssd.config import parse_arguments
from dfssd.errors import UserError

DEFAULTS = {
    "images": None, "teacher": "yolov8s.yaml", "imgsz": 416, "batch": 16, "device": None, "most": 500, "rounds": 3,
    "out": None,
}  # fmt: skip
SMALLEST = 8
"""Images in the smallest forward pass that is timed."""

TARGET = 0.9
"""Smallest share of the fastest forward pass that pseudo-labeling should reach."""

CONF, IOU = 0.1, 0.6
"""Lowest score of a box, and overlap of boxes, as in a run."""

CLASSES = 7
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def found_images(folder: Any, most: int) -> list[Path]:
    """The first ``most`` image files below a folder, by name.

    Raises:
        UserError: No folder is given, or there is no image in it.
    """
    if folder is None or not Path(str(folder)).is_dir():
        raise UserError(f"images={folder}: give a folder of images")
    files = sorted(p for p in Path(str(folder)).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(f"images={folder}: no image there ({', '.join(sorted(_SUFFIXES))})")
    return files[:most]


def batches_to_time(largest: int) -> list[int]:
    """Batch sizes of the forward pass: 8, 16, ... below ``largest``, and that one."""
    sizes, size = [], SMALLEST
    while size < largest:
        sizes.append(size)
        size *= 2
    return [*sizes, largest]


def rates(todo: dict[str, tuple[Callable[[], int], int]], rounds: int) -> dict[str, float]:
    """Images per second of each function: median over the rounds, after one that does not count.

    Args:
        todo: Name -> (function, images that one call handles); what it returns is not used.
        rounds: Rounds that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(-1, rounds):
        for name, (function, _) in todo.items():
            start = time.perf_counter()
            function()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: todo[name][1] / statistics.median(values) for name, values in seconds.items()}


def forward_passes(
    detector: Any, sizes: Sequence[int], images: int, imgsz: int
) -> dict[str, tuple[Callable[[], int], int]]:
    """The forward pass alone, for :func:`rates`.

    Args:
        detector: A :class:`~dfssd.pseudo_labels.detector.Detector`.
        sizes: Images at once.
        images: Images of a call, about.
        imgsz: Side of the input [px].
    """
    import torch

    def passes(calls: int, pixels: Any) -> int:
        with torch.inference_mode():
            for _ in range(calls):
                detector.network(pixels)
            if detector.device.type == "cuda":
                torch.cuda.synchronize()
        return calls * len(pixels)

    found: dict[str, tuple[Callable[[], int], int]] = {}
    for size in sizes:
        calls, pixels = max(1, images // size), torch.rand(size, 3, imgsz, imgsz, device=detector.device)
        found[f"forward {size}"] = (partial(passes, calls, pixels), calls * size)
    return found


def write_model(architecture: str, images: Sequence[Path], imgsz: int, target: Path) -> None:
    """Write a network with random weights that finds some boxes in these images."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from dfssd.benchmark.synthetic import mark_boxes
    from dfssd.pseudo_labels.detector import Detector
    from dfssd.pseudo_labels.teacher_inference import read_as_in_training

    torch.manual_seed(0)
    network = DetectionModel(architecture, nc=CLASSES, verbose=False)
    seen = [Detector.prepare(read_as_in_training(image), imgsz, stretched=False) for image in images]
    mark_boxes(network, torch.stack([torch.from_numpy(one).permute(2, 0, 1) for one in seen]).float() / 255, CONF)
    torch.save({"model": network.half(), "train_args": {"imgsz": imgsz}}, target)


def checked(given: dict[str, Any]) -> dict[str, Any]:
    """All arguments, those not given by default.

    Raises:
        UserError: One does not exist, or a number is out of range.
    """
    if unknown := sorted(set(given) - set(DEFAULTS)):
        raise UserError(f"{unknown[0]}={given[unknown[0]]}: no such argument; see --help")
    given = {**DEFAULTS, **given}
    for key in ("imgsz", "batch", "most", "rounds"):
        if type(given[key]) is not int or given[key] < 1:
            raise UserError(f"{key}={given[key]}: must be a whole number >= 1")
    return given


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """Measure everything; the content of the JSON file."""
    import torch

    from dfssd.benchmark.children import machine_name
    from dfssd.distillation.compatibility import resolve_weights
    from dfssd.hardware import check_device
    from dfssd.pseudo_labels.detector import Detector
    from dfssd.pseudo_labels.teacher_inference import Inference, View, forward_batch

    device, imgsz = check_device(given["device"]), given["imgsz"]
    images = found_images(given["images"], given["most"])
    source = resolve_weights(str(given["teacher"]), "teacher")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(source)
        if file.suffix != ".pt":
            file = Path(folder) / "teacher.pt"
            write_model(source, images[:SMALLEST], imgsz, file)
        boxes = 0

        def labels() -> int:
            nonlocal boxes
            inference = Inference([file], [View(imgsz)], batch=given["batch"], device=device, conf=CONF, iou=IOU)
            boxes = sum(len(found.scores) for (found,) in inference.predict(images))
            return boxes

        detector = Detector(file, device)
        largest = forward_batch(given["batch"], imgsz, device)

        todo = {"pseudo-labels": (labels, len(images))}
        found = rates(todo | forward_passes(detector, batches_to_time(largest), len(images), imgsz), given["rounds"])
    ratio = found["pseudo-labels"] / max(rate for name, rate in found.items() if name != "pseudo-labels")
    facts = {"machine": machine_name(device), "device": device, "threads": torch.get_num_threads()}
    return {
        "facts": {**facts, "teacher": Path(source).name, "imgsz": imgsz, "images": len(images), "boxes": boxes},
        "images_per_second": found,
        "ratio": ratio,
        "met": ratio >= TARGET,
    }


def run(words: list[str]) -> None:
    """Measure, print what was found, and write it if asked to."""
    given = checked(parse_arguments(words))
    result = measured(given)
    for name, rate in result["images_per_second"].items():
        print(f"{name:>14} {rate:9.1f} images/s")
    verdict = "met" if result["met"] else "missed"
    print(f"pseudo-labels / fastest forward pass: {result['ratio']:.3f} (target {TARGET}: {verdict})")
    print(", ".join(f"{key} {value}" for key, value in result["facts"].items()))
    if given["out"]:
        from dfssd.files import write_json

        write_json(str(given["out"]), result)


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_labels.py``; returns its exit code."""
    return run_script(argv, run, __doc__)
