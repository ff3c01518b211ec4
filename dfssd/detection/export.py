"""Export of a detector: every decoded box and class score is compared, those of background anchors too, and mAP50-95.

See :mod:`dfssd.evaluation.export` for how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfssd.detection.evaluate import evaluate
from dfssd.evaluation.export import (
    ExportRequest,
    Limit,
    export_and_compare,
    finite,
    paired_outputs,
    running_max,
    score_both,
)
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import BoxTolerance


@dataclass(frozen=True)
class BoxParity:
    """Largest differences between two files over some images.

    Attributes:
        images: Number of images compared.
        max_box_diff_px: Largest difference of a box edge (x1, y1, x2, y2) [px of the letterboxed input].
        max_score_diff: Largest difference of a class score, in [0, 1].
        size: Height and width of the ONNX input [px].

    Both differences are NaN if an output is NaN, and infinite if the outputs have different shapes.
    """

    images: int
    max_box_diff_px: float
    max_score_diff: float
    size: tuple[int, int]


def export_detector(request: ExportRequest, tolerance: BoxTolerance, *, save_dir: Path) -> dict[str, Any]:
    """Export a detector to ONNX, compare both files, then write the other formats.

    Args:
        request: What to export; Ultralytics rounds ``imgsz`` up to a multiple of the stride.
        tolerance: Allowed differences.
        save_dir: Folder that Ultralytics may write to.

    Returns:
        The section ``export`` of ``results.json`` (docs/results.md).

    Raises:
        UserError: Unknown format, no readable image in the split, or Ultralytics cannot write ONNX.
    """

    def map50_95(weights: Path, settings: EvalSettings) -> float | None:
        value: float | None = evaluate(weights, settings, save_dir=save_dir)["map50_95"]
        return value

    def compare(exported: Path, images: Sequence[Path]) -> tuple[dict[str, Any], list[Limit]]:
        found = box_parity(request.weights, exported, images)
        scores = score_both(map50_95, request, exported)
        section = {
            "input": [1, 3, *found.size],
            "images": found.images,
            "max_box_diff_px": finite(found.max_box_diff_px),
            "max_score_diff": finite(found.max_score_diff),
            "map50_95_torch": scores.torch,
            "map50_95_onnx": scores.onnx,
            "tolerance": tolerance.model_dump(),
        }
        return section, [
            Limit("box edges [px] differ by", found.max_box_diff_px, tolerance.box_px),
            Limit("class scores differ by", found.max_score_diff, tolerance.score),
            Limit("the two mAP50-95 differ by", scores.difference, tolerance.map50_95),
        ]

    return export_and_compare(request, task="detect", compare=compare)


def box_parity(weights: Path, onnx_file: Path, images: Sequence[Path]) -> BoxParity:
    """Compare all raw decoded outputs, (1, 4 + classes, anchors), of a ``.pt`` and an ONNX file on the same inputs.

    Args:
        weights: ``.pt`` of a detector; run unfused, fp32, on the CPU.
        onnx_file: ONNX file with one input (1, 3, h, w), RGB in [0, 1].
        images: Images to letterbox to (h, w); unreadable ones are left out.

    Raises:
        UserError: None of the images can be read.
    """
    from ultralytics import YOLO

    network: Any = YOLO(weights, task="detect").model
    network = network.float().cpu().eval()

    def decoded(pixels: Tensor, _: tuple[int, int]) -> Tensor:
        result = network(pixels)
        output: Tensor = result[0] if isinstance(result, (tuple, list)) else result
        return output

    size, pairs = paired_outputs(decoded, onnx_file, images)
    count, box_diff, score_diff = 0, 0.0, 0.0
    for expected, found in pairs:
        count += 1
        if expected.shape != found.shape:
            return BoxParity(count, math.inf, math.inf, size)
        box_diff = running_max(box_diff, _edges(expected) - _edges(found))
        score_diff = running_max(score_diff, expected[:, 4:] - found[:, 4:])
    return BoxParity(count, box_diff, score_diff, size)


def _edges(outputs: Tensor) -> Tensor:
    """Boxes (1, 4, anchors) as x1, y1, x2, y2 [px] from decoded outputs whose first rows are center x, y, w, h."""
    center, half = outputs[:, :2], outputs[:, 2:4] / 2
    return torch.cat([center - half, center + half], dim=1)
